"""Addresses that are given: for tests, and for hosts that know better than the system."""

from collections.abc import Iterable

from zope.interface import implementer

from p2pnet.interfaces import ICandidateSource


@implementer(ICandidateSource)
class StaticSource:
    """Always the same addresses."""

    name = "static"

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = list(hosts)

    def hosts(self) -> list[str]:
        """The given IP literals."""
        return list(self._hosts)
