"""What measures tunnels: a load comes through whole, and nothing outlives its context."""

import argparse
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench import forward
from bench.forwarding import Load, measure, opened, target
from bench.tunnel import LOOPBACK, P2PNet, Place, Tunnel, touch
from p2pnet.testing.processes import ProcessError
from p2pnet.wire.address import Address

TINY = Load(seconds=0.05, echoes=8, connects=2)
FIGURES = ["MB/s", "echo_p50_us", "echo_p99_us", "open_ms", "beside_bulk_p99_ms"]


class Broken(Tunnel):
    """One that does not lead anywhere."""

    name = "broken"

    def start(self, target: Address) -> Address:
        """Port 9 of loopback (discard), where nobody is."""
        self.run("program", ["echo", "what it said"], self.ends.near).wait()
        return "127.0.0.1", 9


class LoadTests(SynchronousTestCase):
    """The load without a tunnel."""

    def test_each_figure_is_there(self) -> None:
        """Nothing carries bytes, so that no processor time and no memory are told."""
        found = measure(Tunnel, TINY, LOOPBACK)
        self.assertTrue(all(found[name] for name in FIGURES), found)
        self.assertIsNone(found["cpu_s/GB"])
        self.assertIsNone(found["memory_MB"])

    def test_so_much_is_uploaded_on_many_connections(self) -> None:
        """In whole blocks of each; the target counts them."""
        with opened(Tunnel, LOOPBACK) as (_, client):
            found = client.run("upload", streams=5, megabytes=1)
        self.assertGreaterEqual(found["bytes"], 1_000_000)
        self.assertEqual(0, found["bytes"] % (5 << 16))

    def test_a_tunnel_that_leads_nowhere_fails_with_what_it_printed(self) -> None:
        """Not with a hang, nor with a traceback alone."""
        error = self.assertRaises(ProcessError, measure, Broken, TINY, LOOPBACK)
        self.assertIn("what it said", str(error))
        self.assertIn("Connection refused", str(error))

    def test_the_target_ends_with_its_context(self) -> None:
        """It is there, then it is not."""
        with tempfile.TemporaryDirectory() as directory:
            with target(Path(directory), Place()) as address:
                self.assertTrue(touch(Place(), address))
            self.assertFalse(touch(Place(), address))


class CommandTests(SynchronousTestCase):
    """``python -m bench.forward``."""

    def test_only_the_chosen_tunnels_are_measured(self) -> None:
        """Here the one that is none."""
        options = argparse.Namespace(only=["plain"], seconds=0.1, echoes=8, connects=2, rounds=1)
        found, versions = forward.measure(options)
        self.assertEqual(["plain TCP"], list(found))
        self.assertEqual(["plain TCP"], list(versions))
        self.assertLessEqual(set(FIGURES), set(found["plain TCP"]))


class P2PNetTests(SynchronousTestCase):
    """The load through real roles."""

    def test_each_figure_is_there(self) -> None:
        """Processor time and memory of the processes that carry bytes, too."""
        found = measure(P2PNet, TINY, LOOPBACK)
        self.assertTrue(all(found[name] for name in [*FIGURES, "memory_MB"]), found)
        self.assertIsNotNone(found["cpu_s/GB"])
