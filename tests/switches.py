"""The two switches that change nothing but the speed, for a run of any tests: see tests/run.py."""

from typing import Any

from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.core.peer.agent import AgentCore
from p2pnet.core.peer.connector import ConnectorCore
from p2pnet.testing.processes import Deployment
from tests.quic import harness


def turn(quic: str, udp: str) -> None:
    """Have all nodes made from now on begin with these settings, whatever makes them."""
    for core in (AgentCore, ConnectorCore, IntermediateCore):
        defaults: Any = core.__init__.__kwdefaults__
        defaults["engine"] = quic
    harness.ENGINE = quic
    Deployment.defaults = {"quic": quic, "udp": udp}
