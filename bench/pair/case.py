"""What a case of the comparison is: it loads one site for a moment and says what that took."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from bench.pair.site import Site

Figures = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much a batch is, of each site.

    :ivar requests: one after the other on an open connection.
    :ivar connections: opened one after the other.
    :ivar seconds: that a bulk transfer lasts about, at the rate of the first site.
    :ivar nodes: that connect to the Intermediate.
    """

    requests: int = 200
    connections: int = 10
    seconds: float = 0.4
    nodes: int = 24


class Sample(NamedTuple):
    """What one turn of a site took.

    :ivar times: seconds of each request, connection or transfer.
    :ivar cpu: seconds of the site's processes.
    :ivar size: bytes of a transfer.
    :ivar found: what has neither, by its name.
    """

    times: Sequence[float] = ()
    cpu: float = 0.0
    size: int = 0
    found: Figures = MappingProxyType({})


class Case:
    """Base of the cases. A batch is several turns of either site.

    :cvar share: of the batches of a round that this case has, at least one.
    """

    share: ClassVar[float] = 1.0

    def prepare(self, site: Site, effort: Effort) -> None:
        """Prepare a site once, before its first batch. Raises ProcessError or OSError."""

    def turns(self, effort: Effort) -> int:
        """The turns of a batch."""
        return 1

    def measure(self, site: Site, effort: Effort) -> Sample:
        """Load the site for one turn. Raises ProcessError or OSError."""
        raise NotImplementedError

    def figures(self, samples: Sequence[Sample]) -> Figures:
        """What the samples of a batch come to."""
        raise NotImplementedError
