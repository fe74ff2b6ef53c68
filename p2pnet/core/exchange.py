"""Candidates as signaling messages carry them, and as people read them."""

from collections.abc import Iterable

from p2pnet.traversal.candidate import Candidate, CandidateType
from p2pnet.wire import messages
from p2pnet.wire.address import format_address


def to_wire(candidates: Iterable[Candidate]) -> tuple[messages.CandidateInfo, ...]:
    """For a message."""
    return tuple(
        messages.CandidateInfo(c.type.value, *c.address, c.priority, c.foundation)
        for c in candidates
    )


def from_wire(infos: Iterable[messages.CandidateInfo]) -> list[Candidate]:
    """From a message, as it came: not sanitized yet."""
    return [
        Candidate(CandidateType(i.type), (i.host, i.port), i.priority, i.foundation) for i in infos
    ]


def for_people(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """As "type address"."""
    return tuple(f"{c.type} {format_address(c.address)}" for c in candidates)
