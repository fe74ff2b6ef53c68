"""The registry of an Intermediate: the connectors of each service, in memory."""

from typing import Any

from zope.interface import implementer

from p2pnet.interfaces import IServiceDirectory


@implementer(IServiceDirectory)
class MemoryDirectory:
    """The IServiceDirectory of a single Intermediate. Its length: services with a connector."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], dict[Any, None]] = {}
        self._services: dict[tuple[str, Any], tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def register(self, realm: str, services: tuple[str, ...], key: Any) -> None:
        """List the node `key` for exactly these services; its earlier ones end."""
        self.unregister(realm, key)
        if services:
            self._services[realm, key] = services
        for service in services:
            self._keys.setdefault((realm, service), {})[key] = None

    def unregister(self, realm: str, key: Any) -> None:
        """List the node `key` for no service. Harmless if it is not registered."""
        for service in self._services.pop((realm, key), ()):
            keys = self._keys[realm, service]
            del keys[key]
            if not keys:
                del self._keys[realm, service]

    def lookup(self, realm: str, service: str) -> list[Any]:
        """The keys of the nodes that serve `service`, oldest first."""
        return list(self._keys.get((realm, service), ()))
