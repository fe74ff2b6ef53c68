"""Hosts, links and routers of the laboratory, and that none of them outlives it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest

from lab.namespaces import Lab, remove_leftovers
from lab.nat import BEHAVIORS
from lab.topology import Site, Topology
from lab.wire import TUN_DEVICE, Conditions
from p2pnet.testing.processes import Deadline, ProcessError, slowness
from tests.lab import ROOT, TIMEOUT, PrivilegedLabTestCase

PATIENCE = 1.0  # seconds, times slowness(), for a datagram to arrive
TRIES = 3
NAT = BEHAVIORS["port-restricted"]
ABANDONED = """
import os, subprocess, sys
from lab.namespaces import Lab
lab = Lab()
host = lab.host("host")
# As on a system that cannot tie a process to its parent.
command = [*host.prefix, "sh", "-c", "echo started; exec sleep 300"]
process = subprocess.Popen(command, stdout=subprocess.PIPE)
process.stdout.readline()
print(lab.directory, process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def need_wires() -> None:
    """Skip where this user may have no delay and loss."""
    if not os.access(TUN_DEVICE, os.R_OK | os.W_OK):
        raise SkipTest(f"needs {TUN_DEVICE}")


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not just because nobody asked how it ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class TopologyTests(PrivilegedLabTestCase):
    """Each test has a laboratory of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.lab = self.stack.enter_context(Lab())

    def endpoint(self, site: Site, address: str = "") -> socket.socket:
        """A UDP socket on the host of a site."""
        address = address or site.address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with site.host.enter():
            opened = self.stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        opened.bind((address, 0))
        opened.settimeout(PATIENCE * slowness())
        return opened

    def seen(self, source: socket.socket, target: socket.socket) -> tuple[str, int] | None:
        """Where a datagram from one socket to the other comes from; None if it is lost."""
        for _ in range(TRIES):  # a link between busy processes loses one now and then
            token = os.urandom(8)  # a datagram of an earlier try may come late
            source.sendto(token, target.getsockname())
            with contextlib.suppress(TimeoutError):
                while True:
                    data, sender = target.recvfrom(10)
                    if data == token:
                        return sender[0], sender[1]
        return None

    def test_a_restarted_router_forgets(self) -> None:
        """An answer to a packet from before does not come in; ports are preserved."""
        topology = Topology(self.lab)
        inside, outside = topology.site("inside", NAT), topology.site("outside")
        host, peer = self.endpoint(inside), self.endpoint(outside)
        external = self.seen(host, peer)
        self.assertEqual((inside.external, host.getsockname()[1]), external)
        inside.restart()
        peer.sendto(b"late", external or ("", 0))
        self.assertRaises(TimeoutError, host.recv, 10)
        self.assertEqual(external, self.seen(host, peer))

    def test_a_rebound_router_gives_other_ports(self) -> None:
        """Also when it is done again, and with every kind of NAT."""
        topology = Topology(self.lab)
        peer = self.endpoint(topology.site("outside"))
        for name in ("full-cone", "address-restricted", "port-restricted", "symmetric", "cgnat"):
            inside = topology.site(name, BEHAVIORS[name])
            host = self.endpoint(inside)
            seen = {self.seen(host, peer)}
            for _ in range(2):
                inside.routers[0].rebind()
                seen.add(self.seen(host, peer))
            self.assertEqual(3, len(seen - {None}), f"{name}: {seen}")

    def test_cut(self) -> None:
        """Only what passes between those two is lost, and only until it is mended."""
        topology = Topology(self.lab, ipv6=True)
        sites = topology.site("one", NAT), topology.site("other"), topology.site("third")
        one, other, third = (self.endpoint(site) for site in sites)
        one6, other6 = (self.endpoint(site, site.address6) for site in sites[:2])
        topology.cut(*sites[:2])
        self.assertEqual([None, None], [self.seen(one, other), self.seen(one6, other6)])
        self.assertIsNotNone(self.seen(one, third))
        topology.mend()
        self.assertIsNotNone(self.seen(one, other))
        self.assertIsNotNone(self.seen(one6, other6))

    def test_conditions(self) -> None:
        """Packets take their time, and change with the link's conditions."""
        need_wires()
        topology = Topology(self.lab, conditions=Conditions(delay=0.02))
        sites = topology.site("one", NAT), topology.site("other")
        self.lab.start_wires()
        one, other = (self.endpoint(site) for site in sites)
        begun = time.monotonic()
        self.assertIsNotNone(self.seen(one, other))
        self.assertGreaterEqual(time.monotonic() - begun, 0.04)
        wire = sites[0].wire
        assert wire is not None
        self.lab.change(wire, Conditions(loss=1.0))
        time.sleep(0.1)
        self.assertIsNone(self.seen(one, other))

    def test_mtu(self) -> None:
        """The sender learns that a packet is too long."""
        topology = Topology(self.lab, mtu=1280)
        one, other = (self.endpoint(topology.site(name)) for name in ("one", "other"))
        with self.assertRaises(OSError):
            one.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
            one.sendto(bytes(1300), other.getsockname())

    def test_hairpin_is_refused_where_there_is_none(self) -> None:
        """Rather than ignored."""
        with self.assertRaises(ProcessError):
            Topology(self.lab).site("inside", BEHAVIORS["symmetric"], hairpin=True)


class CleanTests(PrivilegedLabTestCase):
    """What is left of laboratories."""

    def test_nothing_is_left(self) -> None:
        """Neither files nor descriptors."""
        need_wires()
        before = os.listdir("/proc/self/fd")
        with Lab() as lab:
            Topology(lab, conditions=Conditions(0.001)).site("inside", NAT)
            lab.start_wires()
        self.assertFalse(lab.directory.exists())
        self.assertEqual(before, os.listdir("/proc/self/fd"))

    def test_a_killed_laboratory(self) -> None:
        """The next one ends its processes and removes its files, and no living one's."""
        done = subprocess.run(
            [sys.executable, "-c", ABANDONED],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
        )
        self.assertEqual(-signal.SIGKILL, done.returncode)
        directory, pid = done.stdout.split()
        self.assertTrue(Path(directory).exists())
        with Lab() as lab:
            self.assertNotIn(lab.name, remove_leftovers())
            self.assertTrue(lab.directory.exists())
        self.assertFalse(Path(directory).exists())
        deadline = Deadline(TIMEOUT)
        while is_running(int(pid)):
            self.assertFalse(deadline.passed)
            time.sleep(0.01)
