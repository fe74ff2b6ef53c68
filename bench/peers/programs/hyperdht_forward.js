// A TCP forward over HyperDHT: an encrypted connection for each TCP connection (see base.Pair).
// The far end runs a DHT of its own, so that nothing leaves this machine.

const net = require('net')
const DHT = require('hyperdht')
const createTestnet = require('hyperdht/testnet')

const NODES = 4 // of the DHT, which the two ends find each other with

const [role, address, ...rest] = process.argv.slice(2)

function splice (a, b) {
  a.on('error', () => b.destroy())
  b.on('error', () => a.destroy())
  a.pipe(b).pipe(a)
}

async function far (host, port) {
  const testnet = await createTestnet(NODES, { host: address })
  const node = testnet.createNode({ host: address })
  const server = node.createServer((socket) => {
    const local = net.connect({ host, port: Number(port), noDelay: true })
    splice(socket, local)
  })
  await server.listen()
  console.log('ready', `${server.publicKey.toString('hex')}@${address}:${testnet.bootstrap[0].port}`)
}

async function near (ticket) {
  const [key, bootstrap] = ticket.split('@')
  const node = new DHT({ bootstrap: [bootstrap], host: address })
  const listener = net.createServer({ noDelay: true }, (local) => {
    splice(node.connect(Buffer.from(key, 'hex')), local)
  })
  listener.listen(0, address, () => console.log('ready', listener.address().port))
}

const roles = { far, near }
roles[role](...rest)
