"""The Interfaces of the parts of p2pnet that a program can replace."""

from collections.abc import Callable, Sequence
from typing import Any

from zope.interface import Attribute, Interface

from p2pnet.wire.address import Address
from p2pnet.wire.codes import ErrorCode

Datagrams = Sequence[tuple[bytes, Address]]
"""UDP payloads, each with its source or destination address."""


Forward = Callable[[bytes, int, Address], Address | None]
"""See IDatagramTransport.forward."""


class IDatagramTransport(Interface):
    """A UDP socket. Addresses are canonical: an IP literal and a port, never IPv6-mapped.

    Datagrams come and go in batches, because most of their cost is per call.
    """

    gathers = Attribute(
        "Whether one call of `receive` gets all waiting datagrams, so that the caller may send the"
        " answers at once. If not, the caller should send them in the reactor's next turn."
    )

    forward = Attribute(
        "Optional hook, set before start(). The transport calls forward(data, size, source) with"
        " one datagram, or with several of `size` bytes that the kernel joined; it returns where to"
        " send them unchanged, or None to have them delivered to receive(). A transport that joins"
        " nothing need not call it."
    )

    def start(receive: Callable[[Datagrams], Any]) -> None:
        """Open the socket, which the constructor does not. Raises CannotListenError.

        :param receive: gets datagrams in the order of their arrival, in batches small enough for
            the reactor to serve other sockets in between.
        """

    def send(datagrams: Datagrams, ttl: int | None = None) -> None:
        """Send datagrams, best effort: a datagram that fails counts as lost, and nothing is raised.

        Datagrams to one address keep their order; the order of the addresses may change.

        :param ttl: the TTL (IPv4) or hop limit (IPv6) of the packets, None for the system's. A
            packet with 2 crosses one router and ends at the second.
        """

    def get_address() -> Address:
        """The local address of the started transport."""

    def stop() -> Any:
        """Close the socket; `receive` gets no further call. A second call does nothing.

        Returns None, or a Deferred that fires once the socket is closed.
        """


class IAuthorizer(Interface):
    """Decides, at the Connector, which agents may use which services."""

    def authorize(agent: str, service: str) -> ErrorCode | None:
        """Whether the agent may use the service: None, or the code of the refusal.

        :param agent: the name that the agent's certificate proved.
        """


class IServiceDirectory(Interface):
    """The registry of the Intermediate: which nodes serve which services.

    A node is a hashable key, which the directory does not interpret.
    """

    def register(realm: str, services: tuple[str, ...], key: Any) -> None:
        """List the node `key` for exactly these services; its earlier ones end."""

    def unregister(realm: str, key: Any) -> None:
        """List the node `key` for no service. Harmless if it is not registered."""

    def lookup(realm: str, service: str) -> list[Any]:
        """The keys of the nodes that serve `service`, oldest first."""


class IPathSelector(Interface):
    """Decides which of a session's paths carries its packets. Pure: no clock, no state."""

    name = Attribute("The policy's name in the configuration.")
    searches = Attribute("Whether the ends exchange candidates and check for a direct path.")
    relays = Attribute("Whether relays carry data of services, not only messages about paths.")

    def select(choices: Any) -> Any:
        """The Decision among Choices (both are classes of p2pnet.traversal.selection)."""


class ICandidateSource(Interface):
    """Finds host candidates: addresses of this machine (RFC 8445 section 5.1.1)."""

    def hosts() -> list[str]:
        """The present addresses as IP literals, without ports."""
