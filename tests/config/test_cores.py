"""How the values of a configuration reach the cores."""

import dataclasses
import inspect

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.config.cores import (
    HANDSHAKES,
    intermediate_options,
    load_credentials,
    peer_options,
)
from p2pnet.config.roles import AgentConfig, ConnectorConfig, IntermediateConfig
from p2pnet.core.intermediate.core import IntermediateCore
from p2pnet.core.intermediate.options import IntermediateOptions
from p2pnet.core.peer.agent import AgentCore
from p2pnet.core.peer.connector import SPARE_STREAMS, ConnectorCore
from p2pnet.core.peer.options import PeerOptions
from p2pnet.identity import CredentialsError, Role
from p2pnet.node.agent import AgentNode
from p2pnet.node.connector import ConnectorNode
from p2pnet.node.intermediate import IntermediateNode
from p2pnet.quic.admission import Limits
from p2pnet.testing.realm import Simulation
from tests.core.support import make_agent, make_connector
from tests.test_assembly import RealmCase

OPTIONAL = {"entropy", "event_log", "locality"}
"""What a core or node does without unless it is given; no setting has another default for it."""


class DefaultTests(SynchronousTestCase):
    """The config structs are the one home of the defaults."""

    def test_the_options_of_cores_have_no_defaults(self) -> None:
        """Neither those of a peer nor those of an Intermediate."""
        for kind in (PeerOptions, IntermediateOptions):
            for field in dataclasses.fields(kind):
                self.assertIs(dataclasses.MISSING, field.default, f"{kind.__name__}.{field.name}")

    def test_no_constructor_has_a_default_for_a_setting(self) -> None:
        """Those of cores and nodes."""
        cores = (AgentCore, ConnectorCore, IntermediateCore)
        for kind in (*cores, AgentNode, ConnectorNode, IntermediateNode):
            for name, parameter in inspect.signature(kind).parameters.items():
                if parameter.default is not inspect.Parameter.empty:
                    self.assertIn(name, OPTIONAL, kind.__name__)


class ValueTests(SynchronousTestCase):
    """A setting that is changed changes what the core is given."""

    def test_the_settings_of_peers(self) -> None:
        """By the name of the option."""
        plain = peer_options(Simulation.config(AgentConfig, intermediates=()))
        for settings, expected in (
            ({"quic": "stock"}, {"engine": "stock"}),
            ({"congestion": "reno"}, {"congestion": "reno"}),
            ({"candidates": ("host",)}, {"tell_observed": False}),
        ):
            config = Simulation.config(ConnectorConfig, intermediates=(), **settings)
            self.assertEqual(dataclasses.replace(plain, **expected), peer_options(config))

    def test_the_settings_of_an_intermediate(self) -> None:
        """All of those that its core needs."""
        config = Simulation.config(
            IntermediateConfig, quic="stock", max_connections=1, retry_above=2, max_sessions=3,
            max_sessions_per_node=4, session_rate=5,
        )  # fmt: skip
        self.assertEqual(
            IntermediateOptions("stock", Limits(1 + HANDSHAKES, retry_above=2), 1, 3, 4, 5),
            intermediate_options(config),
        )

    def test_the_settings_of_one_role(self) -> None:
        """Streams of a Connector; the policy of an Agent."""
        connector = make_connector([], max_streams=7, max_flows=3)
        self.assertEqual(10 + SPARE_STREAMS, connector.profiles.max_peer_streams)
        self.assertEqual("lowest-rtt", make_agent([], path="lowest-rtt")._policy)


class CredentialsTests(RealmCase):
    """The files that a configuration names."""

    def test_credentials_of_another_role_are_refused(self) -> None:
        """The message names the file, the node and the role."""
        files = self.files[Role.CONNECTOR]
        config = AgentConfig(**files, intermediates=("127.0.0.1:4433",))
        error = self.assertRaises(CredentialsError, load_credentials, config)
        self.assertIn(f"{files['cert']}: connector connector", str(error))
        self.assertIn("cannot be run as agent", str(error))
