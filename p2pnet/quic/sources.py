"""Items by the network that they come from, so that no network takes the share of another."""

from __future__ import annotations

import ipaddress
from typing import Generic, Protocol, TypeVar

from p2pnet.wire.address import Address

IPV4_PREFIXES = 2, 3, 4  # bytes: /16, /24, /32
IPV6_PREFIXES = 6, 7, 8  # bytes: /48, /56, /64, the network of one host


def prefixes(address: Address) -> tuple[bytes, ...]:
    """The networks that count as sources of `address`, the largest first."""
    packed = ipaddress.ip_address(address[0]).packed
    sizes = IPV4_PREFIXES if len(packed) == 4 else IPV6_PREFIXES
    return tuple(packed[:size] for size in sizes)


class Sourced(Protocol):
    """An item that came from somewhere; hashed by identity."""

    @property
    def source(self) -> tuple[bytes, ...]:
        """The prefixes() of its address."""


Item = TypeVar("Item", bound=Sourced)


class _Network(Generic[Item]):
    """A network: the networks in it in the order of their turns, or the items of one source."""

    __slots__ = ("items", "networks", "size")

    def __init__(self) -> None:
        self.size = 0
        self.networks: dict[bytes, _Network[Item]] = {}
        self.items: dict[Item, None] = {}

    def fullest(self) -> _Network[Item]:
        return max(self.networks.values(), key=lambda network: network.size)

    def oldest_of_fullest(self) -> Item:
        network = self
        while network.networks:
            network = network.fullest()
        return next(iter(network.items))


class Sources(Generic[Item]):
    """A collection of items, counted by source at each size of network."""

    def __init__(self) -> None:
        self._all: _Network[Item] = _Network()

    def __len__(self) -> int:
        return self._all.size

    def add(self, item: Item) -> None:
        """Add an item, the newest of its source."""
        network = self._all
        network.size += 1
        for prefix in item.source:
            network = network.networks.setdefault(prefix, _Network())
            network.size += 1
        network.items[item] = None

    def remove(self, item: Item) -> None:
        """Remove an item. Raises KeyError if it is not there."""
        network, path = self._all, []
        for prefix in item.source:
            path.append((network, prefix))
            network = network.networks[prefix]
        del network.items[item]
        self._all.size -= 1
        for parent, prefix in path:
            child = parent.networks[prefix]
            child.size -= 1
            if not child.size:
                del parent.networks[prefix]
                break

    def first(self) -> Item:
        """The oldest item of the source whose turn it is. Raises StopIteration if there is none."""
        network = self._all
        while network.networks:
            network = next(iter(network.networks.values()))
        return next(iter(network.items))

    def served(self, source: tuple[bytes, ...]) -> None:
        """Let all other sources have their turn before this one."""
        network = self._all
        for prefix in source:
            child = network.networks.pop(prefix, None)
            if child is None:
                return
            network.networks[prefix] = network = child

    def oldest_of_fullest(self) -> Item:
        """The oldest item of the fullest source. Raises StopIteration if there is none."""
        return self._all.oldest_of_fullest()

    def oldest_of_fuller(self, source: tuple[bytes, ...]) -> Item | None:
        """The oldest item of the fullest source that has more than `source` would have with one
        item more; None if there is no such source. Networks are compared first, then those in them.
        """
        network = self._all
        for prefix in source:
            if not network.networks:
                return None
            own, fullest = network.networks.get(prefix), network.fullest()
            if fullest.size > (own.size if own else 0) + 1:
                return fullest.oldest_of_fullest()
            if own is None:
                return None
            network = own
        return None
