"""A case of the comparison loads one site for a moment and returns times, CPU and sizes."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from bench.pair.site import Site

Figures = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Effort:
    """Load of one batch on each site.

    :ivar requests: number sent one after the other on an open connection.
    :ivar connections: number opened one after the other.
    :ivar seconds: approximate duration of a bulk transfer, at the rate of the first site.
    :ivar nodes: number that connect to the Intermediate.
    """

    requests: int = 200
    connections: int = 10
    seconds: float = 0.4
    nodes: int = 24


class Sample(NamedTuple):
    """Measurements of one turn of a site.

    :ivar times: seconds of each request, connection or transfer.
    :ivar cpu: processor time of the site's processes in seconds.
    :ivar size: bytes of a transfer.
    :ivar found: finished figures by name, of cases that have no times.
    """

    times: Sequence[float] = ()
    cpu: float = 0.0
    size: int = 0
    found: Figures = MappingProxyType({})


class Case:
    """Base of the cases. A batch is several turns of either site.

    :cvar share: share of the batches of a round that this case runs, at least one batch.
    """

    share: ClassVar[float] = 1.0

    def prepare(self, site: Site, effort: Effort) -> None:
        """Prepare a site before its first batch. Raises ProcessError or OSError."""

    def turns(self, effort: Effort) -> int:
        """Return the number of turns in a batch."""
        return 1

    def measure(self, site: Site, effort: Effort) -> Sample:
        """Load the site for one turn and measure it. Raises ProcessError or OSError."""
        raise NotImplementedError

    def figures(self, samples: Sequence[Sample]) -> Figures:
        """Return the figures of a batch from the samples of all its turns."""
        raise NotImplementedError
