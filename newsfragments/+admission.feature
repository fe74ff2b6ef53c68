A flood of first packets no longer locks nodes out of an Intermediate: a first packet is decrypted before a
connection is made, networks take turns, and a client that proved its address is never refused for the
handshakes of others. After a restart all nodes are back soon, also at a slow Intermediate. The setting
`retry_above` also counts unproven handshakes a second.
