"""Which of the paths of a session to use: policies by name, each decision with its reason."""

import dataclasses

from zope.interface import implementer

from p2pnet.interfaces import IPathSelector

DIRECT, RELAYED, NONE = "direct", "relayed", "none"
FASTER = 0.7  # of the relay's round-trip time: what direct must reach under lowest-rtt


@dataclasses.dataclass(frozen=True, slots=True)
class Choices:
    """What there is: round-trip times in seconds, None where there is no such path or figure."""

    has_direct: bool
    has_relay: bool
    direct_rtt: float | None = None
    relay_rtt: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """DIRECT, RELAYED or NONE, and why, for people."""

    path: str
    reason: str


def _milliseconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds * 1000:.1f} ms"


@implementer(IPathSelector)
class PreferDirect:
    """Direct whenever a direct path works, else relayed."""

    name = "prefer-direct"
    searches = relays = True

    def select(self, choices: Choices) -> Decision:
        """Return the path to use, and why."""
        if choices.has_direct:
            figures = (
                f"{_milliseconds(choices.direct_rtt)}, relay {_milliseconds(choices.relay_rtt)}"
            )
            return Decision(DIRECT, f"a direct path works: {figures}")
        if choices.has_relay:
            return Decision(RELAYED, "no direct path")
        return Decision(NONE, "no path at all")


@implementer(IPathSelector)
class LowestRtt:
    """Direct only where it is at least 30 % faster than the relay."""

    name = "lowest-rtt"
    searches = relays = True

    def select(self, choices: Choices) -> Decision:
        """Return the path to use, and why."""
        direct, relay = choices.direct_rtt, choices.relay_rtt
        if not (choices.has_relay and choices.has_direct) or direct is None or relay is None:
            return PreferDirect().select(choices)
        figures = f"direct {_milliseconds(direct)}, relay {_milliseconds(relay)}"
        if direct <= FASTER * relay:
            return Decision(DIRECT, f"direct is at least 30 % faster: {figures}")
        return Decision(RELAYED, f"direct is not 30 % faster: {figures}")


@implementer(IPathSelector)
class RelayOnly:
    """Never direct: the peer does not learn this node's addresses."""

    name = "relay-only"
    searches, relays = False, True

    def select(self, choices: Choices) -> Decision:
        """Return the path to use, and why."""
        if choices.has_relay:
            return Decision(RELAYED, "the policy is relay-only")
        return Decision(NONE, "the policy is relay-only and there is no relay")


@implementer(IPathSelector)
class DirectOnly:
    """No data of a service goes through a relay, only what finds the direct path."""

    name = "direct-only"
    searches, relays = True, False

    def select(self, choices: Choices) -> Decision:
        """Return the path to use, and why."""
        if choices.has_direct:
            return Decision(DIRECT, f"a direct path works: {_milliseconds(choices.direct_rtt)}")
        if choices.has_relay:
            return Decision(RELAYED, "the policy is direct-only and there is no direct path")
        return Decision(NONE, "no path at all")


SELECTORS = {kind.name: kind for kind in (PreferDirect, LowestRtt, RelayOnly, DirectOnly)}
