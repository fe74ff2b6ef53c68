"""A long-lived deployment between NATs, and what a failure does to a transfer in it.

::

    acquire()
    with Testbed(Setup(), Conditions(delay=0.025)) as testbed:
        trial = testbed.trial(testbed.cut)
        testbed.topology.mend()
        print(trial.seconds)

Times are seconds since 1970; those of event logs, of the traffic and of failures are by one clock.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any, Self

from lab.flow import Flow, Requests
from lab.forked import ForkedDeployment
from lab.namespaces import Lab
from lab.nat import BEHAVIORS
from lab.topology import Topology
from lab.wire import Conditions
from p2pnet.testing.processes import POLL, ProcessError, RoleProcess, Service
from p2pnet.wire.address import parse_host_port

NAT = BEHAVIORS["port-restricted"]
PORT = 4433  # of the Intermediates
FLOW, REQUESTS = "flow", "requests"  # services
PORTS = {FLOW: 7001, REQUESTS: 7002}  # of their targets
PREFER_DIRECT, RELAY_ONLY = "prefer-direct", "relay-only"
PATIENCE = 60.0  # seconds for everything to be in order before a trial
LIMIT = 40.0  # seconds for traffic to flow again
BEFORE, AFTER = 1.5, 1.0  # seconds of traffic: to gather speed, and for loss to show


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a case needs.

    :ivar policy: of the Agent's paths.
    :ivar intermediates: how many, all of them known to both nodes.
    :ivar uplinks: whether each node has a second way out, behind another router.
    """

    policy: str = PREFER_DIRECT
    intermediates: int = 1
    uplinks: bool = False


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What one failure did.

    :ivar seconds: until what was waited for; None: it did not happen.
    :ivar silence: the longest time without a byte, in seconds; 0.0 if nobody would notice it.
    :ivar behind: seconds until what was sent after the failure came: when a download has made
        up for what it missed.
    :ivar lost: bytes that were sent and did not come; `intact`: whether the hashes are equal.
    :ivar resets: streams that broke.
    :ivar reason: what went wrong, "" if nothing did.
    """

    seconds: float | None = None
    silence: float = 0.0
    behind: float = 0.0
    lost: int = 0
    intact: bool = False
    resets: int = 0
    reason: str = ""


class Testbed:
    """An Agent and a Connector behind NATs, and Intermediates.

    :ivar agent, connector, intermediates: the processes; `nodes`: the first two.
    :ivar sites: of the Agent and the Connector; `relays`: of the Intermediates.
    :ivar uplinks: of the two sites, the one in use before the other, if the setup asks for them.
    """

    def __init__(self, setup: Setup, conditions: Conditions | None) -> None:
        self.setup = setup
        self._conditions = conditions
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            lab = stack.enter_context(Lab())
            self.topology = Topology(lab, conditions=self._conditions)
            names = [f"relay{number}" for number in range(1, self.setup.intermediates + 1)]
            self.relays = [self.topology.site(name) for name in names]
            self.sites = self.topology.site("agent", NAT), self.topology.site("connector", NAT)
            roaming = self.sites if self.setup.uplinks else ()
            self.uplinks = [self.topology.second_uplink(site, NAT) for site in roaming]
            lab.start_wires()
            self.deployment = stack.enter_context(ForkedDeployment(lab.directory))
            self.intermediates = [
                self.deployment.intermediate(name, f"{site.address}:{PORT}", site.host.prefix)
                for name, site in zip(names, self.relays, strict=True)
            ]
            self._start_nodes()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_nodes(self) -> None:
        agent, connector = (site.host.prefix for site in self.sites)
        services = {name: Service(f"tcp:127.0.0.1:{port}") for name, port in PORTS.items()}
        self.connector = self.deployment.connector("connector", services, connector)
        forwards = dict.fromkeys(PORTS, "tcp:0:interface=127.0.0.1")
        self.agent = self.deployment.agent("agent", forwards, agent, path=self.setup.policy)
        self.nodes = self.agent, self.connector

    # -- traffic ---------------------------------------------------------------------------------

    def _forward(self, service: str) -> tuple[str, int]:
        return parse_host_port(self.agent.wait_for("listening", what=service)["address"])

    def flow(self) -> Flow:
        """A busy connection through the Agent, once it is connected. Raises ProcessError."""
        if not self.wait(self.is_connected, PATIENCE):
            raise ProcessError("the nodes are not connected to the Intermediates")
        agent, connector = (site.host for site in self.sites)
        return Flow(agent, self._forward(FLOW), connector, PORTS[FLOW])

    def requests(self, rate: float) -> Requests:
        """So many requests a second through the Agent."""
        agent, connector = (site.host for site in self.sites)
        return Requests(agent, self._forward(REQUESTS), connector, PORTS[REQUESTS], rate)

    # -- the state of things, by the event logs --------------------------------------------------

    def path(self, node: RoleProcess) -> dict[str, Any]:
        """The path_selected event of the way that its session takes now, {} if there is none."""
        opened = self.agent.find("session_opened")
        chosen = node.find("path_selected", session=opened[-1]["session"]) if opened else []
        return chosen[-1] if chosen else {}

    def direct_since(self) -> float | None:
        """When the later of the two ends chose the direct path; None unless both use only it."""
        chosen = [self.path(node) for node in self.nodes]
        if all(c.get("path") == "direct" and " and " not in c["address"] for c in chosen):
            return max(float(c["time"]) for c in chosen)
        return None

    def is_connected(self) -> bool:
        """Whether both nodes are known to all Intermediates that run now."""
        return all(
            any(e["time"] > process.find("listening")[-1]["time"] for e in events)
            for process, name in zip(self.intermediates, self.deployment.intermediates, strict=True)
            for events in (
                self.agent.find("control_connected", intermediate=name),
                self.connector.find("registered", intermediate=name),
            )
        )

    def is_on_path(self) -> bool:
        """Whether the session goes the way that the case is about."""
        if self.setup.policy == RELAY_ONLY:
            return self.path(self.agent).get("path") == "relayed"
        return self.direct_since() is not None

    def await_path(self) -> None:
        """Wait until the session goes the way that the case is about. Raises ProcessError."""
        if not self.wait(self.is_on_path, PATIENCE):
            raise ProcessError(f"the session's path: {[self.path(node) for node in self.nodes]}")

    def wait(self, condition: Callable[[], Any], timeout: float) -> Any:
        """What `condition` returns once that is true, or its last word after `timeout` seconds.

        No figure comes from when this is noticed: see Direction and the event logs.
        """
        deadline = time.time() + timeout
        while not (result := condition()) and time.time() < deadline:
            time.sleep(POLL)
        return result

    def broken_streams(self) -> int:
        """How many streams ended in another way than properly, as either end saw it."""
        return sum(
            event["event"] == "stream_refused" or event.get("code", "no_error") != "no_error"
            for node in self.nodes
            for event in node.events()
            if event["event"] in ("stream_refused", "stream_finished")
        )

    # -- failures --------------------------------------------------------------------------------

    def cut(self) -> None:
        """Lose every packet between Agent and Connector that does not go by an Intermediate."""
        self.topology.cut(*self.sites)

    def start_again(self, process: RoleProcess) -> float:
        """Start a role that ended, as it was; returns when it listened."""
        count = len(process.find("listening", what="p2pnet")) + 1
        process.start()
        return float(process.wait_for("listening", count=count, what="p2pnet")["time"])

    def intermediate_in_use(self) -> RoleProcess:
        """The one that relays the session."""
        address = self.path(self.agent)["address"].partition(" and ")[0]
        return self.intermediates[self.deployment.intermediates.index(address)]

    def trial(
        self, fail: Callable[[], object], heal: Callable[[], float] | None = None,
        then: Callable[[], float | None] | None = None,
    ) -> Recovery:  # fmt: skip
        """Have something fail while bytes flow both ways, and see when they flow again.

        The time counts from before the failure. It ends with the longest silence of the direction
        that is silent later: what was on its way when something failed comes before that.

        :param fail: does it.
        :param heal: makes good what failed; returns the moment from which the time is to count.
        :param then: called once all flows; its result is the figure instead.
        :raises ProcessError: the trial could not begin.
        """
        with self.flow() as flow:
            self.await_path()
            time.sleep(BEFORE)
            broken, begun = self.broken_streams(), time.time()
            fail()
            marks = flow.marks
            since = heal() if heal else begun
            caught_up = self.wait(lambda: flow.caught_up(marks), LIMIT)
            time.sleep(AFTER)
            silence, end = flow.interruption(begun)
            figure = max(0.0, end - since) if caught_up else None
            if then and caught_up:
                figure = then()
            flow.finish()
            resets = self.broken_streams() - broken
        reason = flow.problem or ("" if figure is not None else "it did not happen in time")
        behind = max(0.0, caught_up - since) if caught_up else 0.0
        return Recovery(figure, silence, behind, flow.lost, flow.is_intact, resets, reason)
