"""A Connector whose targets cannot be what the configuration says."""

from p2pnet.config.loading import load_config
from p2pnet.config.roles import ConnectorConfig
from p2pnet.config.setting import ConfigError
from p2pnet.roles.connector import ConnectorService
from tests.net.support import EndpointCase


class TargetTests(EndpointCase):
    """Each message names file, line, key and endpoint."""

    def test_regression_a_target_that_cannot_be_parsed_names_file_and_line(self) -> None:
        """Those of Twisted, of p2pnet, and UDP ports."""
        nope = self.directory / "nope"
        for target, problem in (
            ("nope:1", "'nope:1': Unknown endpoint type: 'nope'"),
            (f"p2p:web:config={nope}", f"p2p:web:config={nope}: {nope}: No such file"),
            ("udp:x", "'udp:x' is not udp:PORT, "),
            ("udp:53", "'udp:53' has no host; write udp:HOST:PORT"),
        ):
            table = f'[[service]]\nname = "web"\ntarget = "{target}"\n'
            config = load_config(ConnectorConfig, self.write("office", "connector", table), {})
            error = self.assertRaises(ConfigError, ConnectorService, self.reactor, config)
            self.assertIn(f"office.toml:9: target in [[service]] 1: {problem}", str(error))
