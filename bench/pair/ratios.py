"""Medians of paired ratios, with bootstrap intervals."""

import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

RESAMPLES = 2000
SHARE = 0.95  # of the resampled medians that the interval holds
FEW = 6  # pairs; of fewer the interval spans nearly all, and says little
RATES = frozenset({"MB/s", "per_second", "per_cpu_second"})
"""Figures of which more is better; all others are costs."""

Pair = tuple[float, float]


class Comparison(NamedTuple):
    """One figure of both checkouts.

    :ivar old: median, `new` likewise.
    :ivar ratio: median of the cost of the new one as a multiple of the old one's, pair by pair:
        below 1 the new one is better, also where the figure is a rate.
    :ivar low: lower end of the ratio's 95 % interval, `high` its upper end.
    :ivar pairs: number of pairs.
    """

    old: float
    new: float
    ratio: float
    low: float
    high: float
    pairs: int

    @property
    def verdict(self) -> str:
        """Whether the interval excludes 1, and on which side; "-" for few pairs."""
        if self.pairs < FEW:
            return "-"
        if self.high < 1:
            return "better"
        return "worse" if self.low > 1 else "-"


def interval(values: Sequence[float], seed: int = 1) -> tuple[float, float]:
    """The percentile bootstrap interval of the median of `values`, the same for the same seed."""
    draw = random.Random(seed)
    medians = sorted(
        statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    outside = round(RESAMPLES * (1 - SHARE) / 2)
    return medians[outside], medians[-1 - outside]


def compare(figure: str, pairs: Sequence[Pair]) -> Comparison:
    """Compare the pairs (old, new) of a figure. Raises ValueError if no pair has a ratio."""
    costs = [pair[::-1] if figure in RATES else pair for pair in pairs]
    ratios = [new / old for old, new in costs if old > 0]
    if not ratios:
        raise ValueError(f"no pair of {figure} has a ratio: {list(pairs)[:3]}")
    old, new = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Comparison(old, new, statistics.median(ratios), *interval(ratios), len(ratios))
