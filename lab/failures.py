"""What may fail under a session, and how soon its traffic has to flow again."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lab.survival import LIMIT, RELAY_ONLY, Recovery, Setup, Testbed
from lab.wire import Conditions
from p2pnet.testing.processes import ProcessError

AGENT, CONNECTOR = 0, 1
DIRECT, RELAYED = Setup(), Setup(RELAY_ONLY)
SHORT, LONG = 2.0, 15.0  # seconds of an outage: direct paths are given up after 10
WINDOW = 1.0  # seconds in which a direct session's bytes are looked for at the Intermediate
RELAYED_AT_MOST = 40_000  # bytes then; the flow has ten times as many
DOWN_FOR = 5.0  # seconds that an Intermediate is away
UNPLUGGED = 1.0  # seconds without any network
RATE = 50.0  # requests a second
PROBE_RATE = 10.0  # of those that show when a service is there again
SETTLE = 2.0  # seconds between the restarts of two Intermediates


def black_hole(testbed: Testbed) -> Recovery:
    """The direct path loses everything, and nobody is told."""
    try:
        return testbed.trial(testbed.cut)
    finally:
        testbed.topology.mend()


def restore(testbed: Testbed, outage: float) -> Recovery:
    """The direct path is back after an outage: until both ends use it, and only it."""
    end = 0.0

    def cut() -> None:
        nonlocal end
        testbed.cut()
        end = time.time() + outage

    def until_direct() -> float | None:
        time.sleep(max(0.0, end - time.time()))
        mended = time.time()
        testbed.topology.mend()

        def back() -> float | None:
            since = testbed.direct_since()
            return since if since and since > mended else None

        since: float | None = testbed.wait(back, LIMIT)
        before = testbed.relays[0].host.received("wan")
        time.sleep(WINDOW)
        relayed = testbed.relays[0].host.received("wan") - before
        if since is None or relayed > RELAYED_AT_MOST:
            return None
        return since - mended

    try:
        return testbed.trial(cut, then=until_direct)
    finally:
        testbed.topology.mend()


def rebind(testbed: Testbed, side: int) -> Recovery:
    """The NAT of one side forgets its mappings and gives others."""
    return testbed.trial(testbed.sites[side].routers[0].rebind)


def move(testbed: Testbed, side: int, unplugged: float) -> Recovery:
    """A host goes to another network: until traffic flows, from the new address being up.

    :param unplugged: seconds that it has none of both; 0: the new one is up before.
    """
    old, new = testbed.uplinks[side]
    testbed.uplinks[side] = new, old
    metric = next(_metrics)
    if not unplugged:
        new.bring_up(metric)
        return testbed.trial(old.take_down)

    def plug_in() -> float:
        time.sleep(unplugged)
        new.bring_up(metric)
        return time.time()

    return testbed.trial(old.take_down, plug_in)


_metrics = itertools.count(100)  # so that a new way never takes over by itself


def kill_intermediate(testbed: Testbed) -> Recovery:
    """The Intermediate in use dies, and another one is there."""
    killed = []

    def kill() -> None:
        killed.append(testbed.intermediate_in_use())
        killed[0].kill()

    try:
        return testbed.trial(kill)
    finally:
        for process in killed:
            testbed.start_again(process)


def restart_intermediate(testbed: Testbed) -> Recovery:
    """The only Intermediate dies and is back a while later.

    For a relayed session: until traffic flows, from its listening. A direct one should notice
    nothing: the longest silence.
    """
    (process,) = testbed.intermediates

    def start() -> float:
        time.sleep(DOWN_FOR)
        return testbed.start_again(process)

    trial = testbed.trial(process.kill, start)
    if testbed.setup == RELAYED:
        return trial
    return dataclasses.replace(trial, seconds=trial.silence if trial.intact else None)


def rolling_restart(testbed: Testbed) -> Recovery:
    """Two Intermediates are replaced one after the other under requests: the slowest of them."""
    with testbed.flow():
        testbed.await_path()
    with testbed.requests(RATE) as requests:
        time.sleep(SETTLE)
        for process in testbed.intermediates:
            process.terminate()
            process.wait()
            testbed.start_again(process)
            testbed.wait(testbed.is_connected, LIMIT)
            time.sleep(SETTLE)
    failed = [request.problem for request in requests.done if request.problem]
    slowest = max(request.ended - request.begun for request in requests.done)
    reason = f"{len(failed)} of {len(requests.done)} requests: {failed[0]}" if failed else ""
    return Recovery(None if failed else slowest, slowest, intact=not failed, reason=reason)


def restart_connector(testbed: Testbed, figure: str) -> Recovery:
    """The Connector dies and is back at once. Counting from its registration: until the Agent's
    client sees the end of its old connection ("end"), or a new request was answered ("request").
    """
    with testbed.flow() as flow:
        testbed.await_path()
        count = len(testbed.connector.find("registered")) + 1
        testbed.connector.kill()
        testbed.start_again(testbed.connector)
        back = float(testbed.connector.wait_for("registered", count=count)["time"])

        def happened() -> float | None:
            if figure == "end":
                return flow.down.ended_at
            return min((r.ended for r in requests.done if not r.problem), default=None)

        with testbed.requests(PROBE_RATE) as requests:
            when: float | None = testbed.wait(happened, LIMIT)
        seconds = max(0.0, when - back) if when is not None else None
        return Recovery(seconds, intact=True, reason="" if when else "it did not happen in time")


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of failure.

    :ivar what: in which situation, and what is measured where that is not plain.
    :ivar goal: seconds that 95 % of the trials should stay within, None: there is no such goal.
    """

    name: str
    what: str
    goal: float | None
    trial: Callable[[Testbed], Recovery]
    setup: Setup = DIRECT


def _cases() -> Iterator[Case]:
    ends = ((AGENT, "agent"), (CONNECTOR, "connector"))
    kinds = ((DIRECT, "direct"), (RELAYED, "relayed"))
    yield Case("black-hole", "direct path cut", 1.0, black_hole)
    for outage in (SHORT, LONG):
        what = f"until direct, after {outage:.0f} s"
        yield Case("restore", what, 10.0, functools.partial(restore, outage=outage))
    for setup, kind in kinds:
        for side, name in ends:
            rebinding = functools.partial(rebind, side=side)
            yield Case("rebind", f"{name}, {kind}", 1.0, rebinding, setup)
    for setup, kind in kinds:
        for side, name in ends:
            for seconds in (0.0, UNPLUGGED):
                moving = functools.partial(move, side=side, unplugged=seconds)
                what = f"{name}, {kind}" + (f", {seconds:.0f} s unplugged" if seconds else "")
                yield Case("move", what, 2.0, moving, dataclasses.replace(setup, uplinks=True))
    pair = Setup(RELAY_ONLY, intermediates=2)
    yield Case("kill-intermediate", "relayed, another is there", 2.0, kill_intermediate, pair)
    yield Case("restart-intermediate", "direct: silence", 1.0, restart_intermediate)
    yield Case("restart-intermediate", "relayed", 3.0, restart_intermediate, RELAYED)
    yield Case("rolling-restart", "slowest request", None, rolling_restart, pair)
    for setup, kind in kinds:
        for figure, what in (("end", "old streams end"), ("request", "new request")):
            restarting = functools.partial(restart_connector, figure=figure)
            yield Case("restart-connector", f"{kind}: {what}", 3.0, restarting, setup)


CASES = tuple(_cases())


def run(
    cases: Iterable[Case], trials: int, conditions: Conditions | None
) -> Iterator[tuple[Case, list[Recovery]]]:
    """Do the trials of these cases, those of one name on one deployment where that can be."""
    for (_, setup), group in itertools.groupby(cases, key=lambda case: (case.name, case.setup)):
        with Testbed(setup, conditions) as testbed:
            for case in group:
                yield case, [_attempt(case, testbed) for _ in range(trials)]


def _attempt(case: Case, testbed: Testbed) -> Recovery:
    """One trial; what goes wrong is in its result."""
    try:
        return case.trial(testbed)
    except (ProcessError, OSError) as error:
        return Recovery(reason=str(error))


def summarize(case: Case, trials: Sequence[Recovery]) -> dict[str, Any]:
    """The object that ``python -m lab survive --json`` prints about a case."""
    times = sorted(math.inf if t.seconds is None else t.seconds for t in trials)
    figures = {f"p{p}": times[math.ceil(len(times) * p / 100) - 1] for p in (50, 95)}
    figures["max"] = times[-1]
    whole = all(t.intact and not t.lost and not t.resets and not t.reason for t in trials)
    return {
        "case": case.name,
        "what": case.what,
        "trials": len(trials),
        "failed": times.count(math.inf),
        "ms": {key: None if s == math.inf else round(s * 1000) for key, s in figures.items()},
        "goal_ms": None if case.goal is None else round(case.goal * 1000),
        "longest_silence_ms": round(max(t.silence for t in trials) * 1000),
        "behind_ms": round(max(t.behind for t in trials) * 1000),
        "bytes_lost": sum(t.lost for t in trials),
        "sha256_ok": sum(t.intact for t in trials),
        "streams_broken": sum(t.resets for t in trials),
        "reasons": [t.reason for t in trials if t.reason],
        "ok": whole and figures["p95"] <= (math.inf if case.goal is None else case.goal),
    }
