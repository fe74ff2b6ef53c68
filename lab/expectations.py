"""What a session between two NAT behaviors is expected to become."""

import enum

from lab.nat import Behavior
from p2pnet.testing.nat import Filtering, Mapping


class Outcome(enum.StrEnum):
    """How a session's packets travel in the end."""

    DIRECT = "direct"
    RELAYED = "relayed"
    UNREACHABLE = "unreachable"  # one side cannot even reach the Intermediate, and says so
    FAILED = "failed"


def expected_outcome(agent: Behavior, connector: Behavior, *, ipv6: bool = False) -> Outcome:
    """What becomes of a session, if nobody guesses ports.

    Two endpoint-independent mappings find each other by server-reflexive candidates. Where the
    mapping of one side depends on the destination, its packets come from a port that nobody could
    announce: the other side must let them in from any port (EIF or ADF) and answer to where they
    came from, a peer-reflexive candidate (RFC 8445 section 7.3.1.3).

    :param ipv6: both sides have IPv6 behind a stateful firewall as well.
    """
    if agent.is_blocked or connector.is_blocked:
        return Outcome.UNREACHABLE
    dependent = [not _is_independent(side) for side in (agent, connector)]
    if ipv6 or not any(dependent):
        return Outcome.DIRECT
    if all(dependent):
        return Outcome.RELAYED
    other = connector if dependent[0] else agent
    return Outcome.RELAYED if other.filtering is Filtering.APDF else Outcome.DIRECT


def _is_independent(behavior: Behavior) -> bool:
    """Whether all remote hosts see the same address and port."""
    return behavior.mapping in (Mapping.NONE, Mapping.EIM)
