"""The points where p2pnet can be given another implementation."""

from collections.abc import Callable, Sequence
from typing import Any

from zope.interface import Attribute, Interface

from p2pnet.wire.address import Address
from p2pnet.wire.codes import ErrorCode

Datagrams = Sequence[tuple[bytes, Address]]
"""UDP payloads, each with the address that it came from or goes to."""


Forward = Callable[[bytes, int, Address], Address | None]
"""See IDatagramTransport.forward."""


class IDatagramTransport(Interface):
    """A UDP socket. Addresses are canonical: an IP literal and a port, never v4-mapped.

    Datagrams come and go in batches: what they cost is mostly what is done once for each call.
    """

    gathers = Attribute(
        "Whether `receive` is called once for all that waits, so that the answers may go at once."
        " Else they had better wait until the reactor has nothing more to read."
    )

    forward = Attribute(
        "None, or set before the start by who relays: asked where to send on as it is what came,"
        " one datagram or several that came joined from one address (the bytes, the size of each"
        " but the last, the address). If it returns None, `receive` gets the datagrams. A transport"
        " need not ask."
    )

    def start(receive: Callable[[Datagrams], Any]) -> None:
        """Open the socket, and only now. Raises CannotListenError.

        `receive` gets datagrams in the order in which they came, never so many that others would
        have to wait long for their turn.
        """

    def send(datagrams: Datagrams, hops: int | None = None) -> None:
        """Send, best effort: whatever goes wrong counts as packet loss.

        Those to one address go in the order given, those to different ones in any.
        `hops`: how many routers they may cross at most; None for the system's default.
        """

    def get_address() -> Address:
        """The local address, once started."""

    def stop() -> Any:
        """Close the socket; `receive` is not called any more. May be called again.

        Returns None, or a Deferred that fires when it is closed.
        """


class IAuthorizer(Interface):
    """Decides, at the Connector, which agents may use which services."""

    def authorize(agent: str, service: str) -> ErrorCode | None:
        """None to allow `agent` (its proven name) the service, else the code to refuse with."""


class IServiceDirectory(Interface):
    """The registry of the Intermediate: which nodes serve what. Keys are opaque to it."""

    def register(realm: str, services: tuple[str, ...], key: Any) -> None:
        """The node `key` serves exactly these services from now on."""

    def unregister(realm: str, key: Any) -> None:
        """The node `key` serves nothing any more."""

    def lookup(realm: str, service: str) -> list[Any]:
        """The keys of the nodes that serve `service`, oldest first."""


class IPathSelector(Interface):
    """Decides which of the ways of a session is used. Pure: no clock, no state."""

    name = Attribute("Of the policy, as in the configuration.")

    def select(choices: Any) -> Any:
        """The Decision for these Choices (both of p2pnet.traversal.selection)."""


class ICandidateSource(Interface):
    """Finds addresses that this node may be reached at."""

    name = Attribute("For the event log.")

    def hosts() -> list[str]:
        """The IP literals that it knows now."""
