"""aioquic's sets of ranges, of which most have one range that grows at its end."""

from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import MAX_ACK_RANGES


def ranges_of(numbers: RangeSet) -> list[range]:
    """The ranges themselves, the smallest first: a list that may be changed."""
    ranges: list[range] = numbers._RangeSet__ranges  # type: ignore[attr-defined]
    return ranges


def add_last(numbers: RangeSet, number: int) -> None:
    """Add a packet number, which is most often the one after the last."""
    ranges = ranges_of(numbers)
    if ranges and ranges[-1].stop == number:
        ranges[-1] = range(ranges[-1].start, number + 1)
        return
    numbers.add(number)
    if len(ranges) > MAX_ACK_RANGES:
        numbers.shift()
