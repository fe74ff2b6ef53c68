"""What a transfer on a direct path keeps of its rate as the path loses more and more packets."""

import dataclasses
import math
import socket
import time
from collections.abc import Iterator, Sequence

from lab.nat import Behavior
from lab.switching import Passage
from lab.traffic import Direction
from lab.trial import Cell, Conduct
from lab.wire import Conditions
from p2pnet.testing.processes import ProcessError

LOSSES = (0.0, 0.01, 0.05, 0.1, 0.2)  # of the packets, one way from end to end
BUFFER = 1 << 16  # bytes
DELAY = 0.045  # seconds, one way from end to end


@dataclasses.dataclass(frozen=True)
class Rung:
    """A transfer at one loss.

    :ivar rate: bytes/s, all in all. `stall`: the longest time in seconds without a byte.
    :ivar switches: how often the Agent took another path.
    :ivar problems: what must not happen and did.
    """

    loss: float
    bytes: int
    rate: float
    stall: float
    intact: bool
    switches: int
    problems: list[str]


def conditions(loss: float, delay: float = DELAY) -> Conditions:
    """Of each of the two links that a direct path crosses."""
    return Conditions(delay / 2, 1 - math.sqrt(1 - loss))


def climb(
    sides: tuple[Behavior, Behavior], seconds: float, losses: Sequence[float] = LOSSES
) -> Iterator[Rung]:
    """Transfer for so long at each loss, one after the other. Raises ProcessError, OSError."""
    for loss in losses:
        with Cell(*sides, Conduct(conditions(loss))) as cell:
            yield _transfer(cell, loss, seconds)


def _transfer(cell: Cell, loss: float, seconds: float) -> Rung:
    with Passage(cell) as passage:
        # Little in the kernel, or the end is long in coming where the path is slow.
        passage.far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        begun = time.time()
        carried = Direction(passage.far, passage.near)
        time.sleep(seconds)
        received, ended = carried.received, time.time()
        carried.end()
        carried.join()
        switches = passage.switches()["agent"]
        try:
            problems = passage.finish()
        except ProcessError as error:
            problems = [str(error)]
    if not received:
        problems.append("nothing arrived")
    rate, (stall, _) = received / (ended - begun), carried.longest_silence()
    return Rung(loss, received, rate, stall, carried.is_intact, switches, problems)
