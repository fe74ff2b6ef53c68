"""Medians of paired ratios, with bootstrap intervals."""

import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

RESAMPLES = 2000
SHARE = 0.95  # of the resampled medians that the interval holds
FEW = 6  # pairs; with fewer the interval is about the range of the ratios, not 95 %
RATES = frozenset({"MB/s", "per_second", "per_cpu_second"})
"""Figures where more is better; all others are costs."""

Pair = tuple[float, float]


class Comparison(NamedTuple):
    """One figure of both checkouts.

    :ivar old: median of the old checkout; `new`: of the new checkout.
    :ivar ratio: median over all pairs of the new cost divided by the old cost. The cost of a rate
        is its inverse, so that below 1 the new checkout is always better.
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
        """Return "better" or "worse" if the interval excludes 1, "-" if not or for few pairs."""
        if self.pairs < FEW:
            return "-"
        if self.high < 1:
            return "better"
        return "worse" if self.low > 1 else "-"


def interval(values: Sequence[float], seed: int = 1) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the median of `values`, the same for a seed."""
    draw = random.Random(seed)
    medians = sorted(
        statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    outside = round(RESAMPLES * (1 - SHARE) / 2)
    return medians[outside], medians[-1 - outside]


def compare(figure: str, pairs: Sequence[Pair]) -> Comparison:
    """Compare the pairs (old, new) of a figure. Raises ValueError if all old costs are 0."""
    costs = [pair[::-1] if figure in RATES else pair for pair in pairs]
    ratios = [new / old for old, new in costs if old > 0]
    if not ratios:
        raise ValueError(f"no pair of {figure} has a ratio: {list(pairs)[:3]}")
    old, new = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Comparison(old, new, statistics.median(ratios), *interval(ratios), len(ratios))
