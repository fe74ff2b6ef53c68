"""What may fail under a session, and how soon its traffic has to flow again."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lab.survival import LIMIT, RELAY_ONLY, Setup, Stage, Trial
from lab.wire import Conditions
from p2pnet.testing.processes import LabError

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


def black_hole(stage: Stage) -> Trial:
    """The direct path loses everything, and nobody is told."""
    try:
        return stage.trial(stage.cut)
    finally:
        stage.topology.mend()


def restore(stage: Stage, outage: float) -> Trial:
    """The direct path is back after an outage: until both ends use it, and only it."""
    end = 0.0

    def cut() -> None:
        nonlocal end
        stage.cut()
        end = time.time() + outage

    def until_direct() -> float | None:
        time.sleep(max(0.0, end - time.time()))
        mended = time.time()
        stage.topology.mend()

        def back() -> float | None:
            since = stage.direct_since()
            return since if since and since > mended else None

        since: float | None = stage.wait(back, LIMIT)
        before = stage.relays[0].host.received("wan")
        time.sleep(WINDOW)
        relayed = stage.relays[0].host.received("wan") - before
        if since is None or relayed > RELAYED_AT_MOST:
            return None
        return since - mended

    try:
        return stage.trial(cut, then=until_direct)
    finally:
        stage.topology.mend()


def rebind(stage: Stage, side: int) -> Trial:
    """The NAT of one side forgets its mappings and gives others."""
    return stage.trial(stage.sites[side].routers[0].rebind)


def move(stage: Stage, side: int, unplugged: float) -> Trial:
    """A host goes to another network: until traffic flows, from the new address being up.

    :param unplugged: seconds that it has none of both; 0: the new one is up before.
    """
    old, new = stage.uplinks[side]
    stage.uplinks[side] = new, old
    metric = next(_metrics)
    if not unplugged:
        new.bring_up(metric)
        return stage.trial(old.take_down)

    def plug_in() -> float:
        time.sleep(unplugged)
        new.bring_up(metric)
        return time.time()

    return stage.trial(old.take_down, plug_in)


_metrics = itertools.count(100)  # so that a new way never takes over by itself


def kill_intermediate(stage: Stage) -> Trial:
    """The Intermediate in use dies, and another one is there."""
    killed = []

    def kill() -> None:
        killed.append(stage.intermediate_in_use())
        killed[0].kill()

    try:
        return stage.trial(kill)
    finally:
        for process in killed:
            stage.start_again(process)


def restart_intermediate(stage: Stage) -> Trial:
    """The only Intermediate dies and is back a while later.

    For a relayed session: until traffic flows, from its listening. A direct one should notice
    nothing: the longest silence.
    """
    (process,) = stage.intermediates

    def start() -> float:
        time.sleep(DOWN_FOR)
        return stage.start_again(process)

    trial = stage.trial(process.kill, start)
    if stage.setup == RELAYED:
        return trial
    return dataclasses.replace(trial, seconds=trial.silence if trial.intact else None)


def rolling_restart(stage: Stage) -> Trial:
    """Two Intermediates are replaced one after the other under requests: the slowest of them."""
    with stage.flow():
        stage.await_path()
    with stage.requests(RATE) as requests:
        time.sleep(SETTLE)
        for process in stage.intermediates:
            process.terminate()
            process.wait()
            stage.start_again(process)
            stage.wait(stage.is_connected, LIMIT)
            time.sleep(SETTLE)
    failed = [request.problem for request in requests.done if request.problem]
    slowest = max(request.ended - request.begun for request in requests.done)
    reason = f"{len(failed)} of {len(requests.done)} requests: {failed[0]}" if failed else ""
    return Trial(None if failed else slowest, slowest, intact=not failed, reason=reason)


def restart_connector(stage: Stage, figure: str) -> Trial:
    """The Connector dies and is back at once. Counting from its registration: until the Agent's
    client sees the end of its old connection ("end"), or a new request was answered ("request").
    """
    with stage.flow() as flow:
        stage.await_path()
        count = len(stage.connector.find("registered")) + 1
        stage.connector.kill()
        stage.start_again(stage.connector)
        back = float(stage.connector.wait_for("registered", count=count)["time"])

        def happened() -> float | None:
            if figure == "end":
                return flow.down.ended_at
            return min((r.ended for r in requests.done if not r.problem), default=None)

        with stage.requests(PROBE_RATE) as requests:
            when: float | None = stage.wait(happened, LIMIT)
        seconds = max(0.0, when - back) if when is not None else None
        return Trial(seconds, intact=True, reason="" if when else "it did not happen in time")


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of failure.

    :ivar what: in which situation, and what is measured where that is not plain.
    :ivar goal: seconds that 95 % of the trials should stay within, None: there is no such goal.
    """

    name: str
    what: str
    goal: float | None
    trial: Callable[[Stage], Trial]
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
) -> Iterator[tuple[Case, list[Trial]]]:
    """Do the trials of these cases, those of one name on one deployment where that can be."""
    for (_, setup), group in itertools.groupby(cases, key=lambda case: (case.name, case.setup)):
        with Stage(setup, conditions) as stage:
            for case in group:
                yield case, [_attempt(case, stage) for _ in range(trials)]


def _attempt(case: Case, stage: Stage) -> Trial:
    """One trial; what goes wrong is in its result."""
    try:
        return case.trial(stage)
    except (LabError, OSError) as error:
        return Trial(reason=str(error))


def summarize(case: Case, trials: Sequence[Trial]) -> dict[str, Any]:
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
