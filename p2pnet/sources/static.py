"""Host candidates from a fixed list: for a node that binds one address, and for tests."""

from collections.abc import Iterable

from zope.interface import implementer

from p2pnet.interfaces import ICandidateSource


@implementer(ICandidateSource)
class StaticSource:
    """An ICandidateSource of a fixed list of addresses.

    :param hosts: IP literals.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = list(hosts)

    def hosts(self) -> list[str]:
        """The IP literals, in the order in which the constructor got them."""
        return list(self._hosts)
