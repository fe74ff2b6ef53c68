"""The two switches that change nothing but the speed, for a run of any tests: see tests/run.py."""

from p2pnet.testing.processes import Deployment
from p2pnet.testing.realm import Simulation
from tests.quic import harness


def turn(quic: str, udp: str) -> None:
    """Give all nodes these settings in place of the defaults, unless a test says otherwise."""
    harness.ENGINE = quic
    Simulation.defaults = {"quic": quic}
    Deployment.defaults = {"quic": quic, "udp": udp}
