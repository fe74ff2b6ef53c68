"""Tests of p2pnet.quic.sources."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic.sources import Sources, prefixes


@dataclasses.dataclass(eq=False)
class Item:
    """An item from somewhere."""

    host: str

    @property
    def source(self) -> tuple[bytes, ...]:
        """Where it came from."""
        return prefixes((self.host, 1))


HOSTS = [f"10.{a}.{b}.{c}" for a in (0, 1) for b in (0, 1) for c in (1, 2)]


class PrefixesTests(SynchronousTestCase):
    """Which networks an address counts for."""

    def test_the_networks_of_both_families(self) -> None:
        """/16, /24 and /32; /48, /56 and /64."""
        self.assertEqual((b"\x0a\1", b"\x0a\1\2", b"\x0a\1\2\3"), prefixes(("10.1.2.3", 4)))
        packed = bytes.fromhex("20010db800010203")
        self.assertEqual((packed[:6], packed[:7], packed), prefixes(("2001:db8:1:203:4:5:6:7", 8)))


class SourcesTests(SynchronousTestCase):
    """Counting, evicting and taking turns."""

    def of(self, *hosts: str) -> Sources[Item]:
        """A collection of an item for each host."""
        sources: Sources[Item] = Sources()
        for host in hosts:
            sources.add(Item(host))
        return sources

    def take(self, sources: Sources[Item]) -> str:
        """Serve the source whose turn it is; returns the item's host."""
        item = sources.first()
        sources.served(item.source)
        sources.remove(item)
        return item.host

    def test_each_network_has_its_turn(self) -> None:
        """Whatever it holds, and so do the networks in it, and the oldest item comes first."""
        sources = self.of("10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.1.1", "10.0.0.2", "10.1.0.1")
        self.assertEqual(
            ["10.0.0.1", "10.1.0.1", "10.0.1.1", "10.0.0.2", "10.0.0.1", "10.0.0.1"],
            [self.take(sources) for _ in range(6)],
        )
        self.assertEqual(0, len(sources))
        self.assertRaises(StopIteration, sources.first)

    def test_the_fullest_source_loses_its_oldest(self) -> None:
        """The fullest /16 first, then the fullest /24 in it, then the fullest address."""
        sources = self.of("10.0.0.1", "10.1.0.1", "10.1.1.1", "10.1.1.2", "10.1.1.2", "10.0.0.1")
        self.assertEqual("10.1.1.2", sources.oldest_of_fullest().host)

    def test_only_a_fuller_source_makes_way(self) -> None:
        """Than the newcomer's would be with the newcomer, at some size of network."""
        sources = self.of("10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.1.1")
        for host, loser in (
            ("10.0.0.1", None), ("10.0.0.2", "10.0.0.1"), ("10.0.1.1", "10.0.0.1"),
            ("10.0.2.1", "10.0.0.1"), ("10.9.0.1", "10.0.0.1"),
        ):  # fmt: skip
            found = sources.oldest_of_fuller(prefixes((host, 1)))
            self.assertEqual(loser, found and found.host, host)
        self.assertIsNone(self.of("10.0.0.1").oldest_of_fuller(prefixes(("10.9.0.1", 1))))
        self.assertIsNone(self.of().oldest_of_fuller(prefixes(("10.9.0.1", 1))))

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from(HOSTS))))
    def test_what_is_removed_leaves_nothing(self, steps: list[tuple[bool, str]]) -> None:
        """The counts are those of a list, at each step."""
        sources, kept = self.of(), list[Item]()
        for adds, host in steps:
            if adds:
                kept.append(Item(host))
                sources.add(kept[-1])
            elif kept:
                sources.remove(kept.pop(len(host) % len(kept)))
            self.assertEqual(len(kept), len(sources))
        for item in kept:
            sources.remove(item)
        self.assertEqual({}, sources._all.networks)
