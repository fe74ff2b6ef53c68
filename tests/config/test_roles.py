"""Configuration files: what they may say, and what the command line changes."""

from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.config.loading import load_config
from p2pnet.config.roles import (
    AgentConfig,
    ConnectorConfig,
    ForwardConfig,
    IntermediateConfig,
    RoleConfig,
    ServiceConfig,
)
from p2pnet.config.setting import ConfigError
from p2pnet.quic.congestion import CONTROLLERS

INTERMEDIATE = """\
[intermediate]
ca = "certs/ca.pem"
cert = "certs/me.pem"
key = "certs/me.key"
"""
CONNECTOR = """\
# A comment.
[connector]
intermediates = ["127.0.0.1:4433"]
ca = "certs/ca.pem"
cert = "certs/me.pem"
key = "certs/me.key"
[[service]]
name = "web"
target = "tcp:127.0.0.1:8080"
allow = ["alice"]

[[service]]
name = "dns"
target = "udp:127.0.0.1:53"
allow = ["*"]
"""
AGENT = """\
[agent]
intermediates = ["127.0.0.1:4433", "[::1]:4433"]
ca = "certs/ca.pem"
cert = "certs/me.pem"
key = "certs/me.key"
[[forward]]
service = "web"
listen = "tcp:8081:interface=127.0.0.1"
[[forward]]
service = "web"
listen = "udp:5353:interface=127.0.0.1"
"""
KINDS: dict[str, type[RoleConfig]] = {
    INTERMEDIATE: IntermediateConfig,
    CONNECTOR: ConnectorConfig,
    AGENT: AgentConfig,
}


class ConfigTestCase(SynchronousTestCase):
    """A directory with the files of a node."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        (self.directory / "certs").mkdir(parents=True)
        for name in ("ca.pem", "me.pem", "me.key"):
            (self.directory / "certs" / name).touch()
        self.path = self.directory / "p2pnet.toml"

    def load(self, base: str, old: str = "", new: str = "", **overrides: object) -> Any:
        """The config from one of the files above, with `old` changed to `new`."""
        self.assertIn(old, base)
        self.path.write_text(base.replace(old, new, 1))
        return load_config(KINDS[base], self.path, overrides)

    def assert_mistake(
        self, expected: str, base: str, old: str = "", new: str = "", **overrides: object
    ) -> None:
        """Loading fails with this message: "LINE: ..." about the file, else "--option: ..."."""
        with self.assertRaises(ConfigError) as caught:
            self.load(base, old, new, **overrides)
        message = str(caught.exception).removeprefix(f"{self.path}:")
        self.assertEqual(expected, message.replace(str(self.directory), "DIR"))


class GoodFileTests(ConfigTestCase):
    """Files as the README shows them."""

    def test_an_intermediate_needs_only_its_files(self) -> None:
        """The rest has defaults; paths are relative to the file, and absolute afterwards."""
        expected = IntermediateConfig(
            ca=self.directory / "certs/ca.pem",
            cert=self.directory / "certs/me.pem",
            key=self.directory / "certs/me.key",
        )
        self.assertEqual(expected, self.load(INTERMEDIATE))
        self.assertEqual("0.0.0.0:4433", expected.listen)

    def test_a_connector_has_services(self) -> None:
        """Each with its target, the place of the target, and those who may use it."""
        config = self.load(CONNECTOR)
        web = ServiceConfig(
            name="web", target="tcp:127.0.0.1:8080", allow=("alice",),
            where=f"{self.path}:9: target in [[service]] 1",
        )  # fmt: skip
        dns = ServiceConfig(
            name="dns", target="udp:127.0.0.1:53", allow=("*",),
            where=f"{self.path}:14: target in [[service]] 2",
        )  # fmt: skip
        self.assertEqual((web, dns), config.services)
        self.assertEqual(("127.0.0.1:4433",), config.intermediates)

    def test_nobody_is_allowed_unless_listed(self) -> None:
        """Default deny."""
        config = self.load(CONNECTOR, 'allow = ["alice"]', "")
        self.assertEqual((), config.services[0].allow)

    def test_an_agent_has_forwards(self) -> None:
        """One service may have several listeners."""
        tcp = ForwardConfig(
            service="web", listen="tcp:8081:interface=127.0.0.1",
            where=f"{self.path}:8: listen in [[forward]] 1",
        )  # fmt: skip
        udp = ForwardConfig(
            service="web", listen="udp:5353:interface=127.0.0.1",
            where=f"{self.path}:11: listen in [[forward]] 2",
        )  # fmt: skip
        self.assertEqual((tcp, udp), self.load(AGENT).forwards)

    def test_the_congestion_controller_is_one_that_exists(self) -> None:
        """One for all of a node's sessions, the same default for either role."""
        self.assertEqual("bbr", self.load(CONNECTOR).congestion)
        for name in CONTROLLERS:
            config = self.load(AGENT, "[agent]", f'[agent]\ncongestion = "{name}"')
            self.assertEqual(name, config.congestion)
        with self.assertRaises(ConfigError) as caught:
            self.load(AGENT, "[agent]", '[agent]\ncongestion = "vegas"')
        self.assertIn("'vegas' is none of bbr, cubic, reno", str(caught.exception))

    def test_settings_replace_the_defaults(self) -> None:
        """Whole numbers do for seconds; the log is a file beside the config."""
        config = self.load(
            INTERMEDIATE,
            "[intermediate]",
            '[intermediate]\nlisten = "[::]:1"\ndrain_seconds = 4\nevent_log = "events.jsonl"',
        )
        self.assertEqual(("[::]:1", 4.0), (config.listen, config.drain_seconds))
        self.assertEqual(self.directory / "events.jsonl", config.event_log)

    def test_the_engine_can_be_chosen(self) -> None:
        """For each role; the fast one unless the file says otherwise."""
        self.assertEqual("fast", self.load(AGENT).quic)
        config = self.load(INTERMEDIATE, "[intermediate]", '[intermediate]\nquic = "stock"')
        self.assertEqual("stock", config.quic)

    def test_a_config_cannot_be_changed(self) -> None:
        """It is what the operator wrote for as long as the process lives."""
        config = self.load(INTERMEDIATE)
        self.assertRaises(AttributeError, setattr, config, "listen", "0.0.0.0:1")


class OverrideTests(ConfigTestCase):
    """The command line against the file."""

    def test_the_command_line_wins(self) -> None:
        """Its values are text, and a list replaces that of the file."""
        config = self.load(AGENT, intermediates=["192.0.2.1:1"], forwards=[], bind="[::]:0")
        self.assertEqual(("192.0.2.1:1",), config.intermediates)
        self.assertEqual(((), "[::]:0"), (config.forwards, config.bind))
        self.assertEqual(7, self.load(CONNECTOR, max_streams="7").max_streams)

    def test_its_paths_are_relative_to_the_current_directory(self) -> None:
        """As the user who types them sees it."""
        Path("other.pem").touch()
        config = self.load(INTERMEDIATE, cert="other.pem")
        self.assertEqual(Path.cwd() / "other.pem", config.cert)

    def test_allow_is_for_services_of_either_origin(self) -> None:
        """It leaves the other services as they are."""
        config = self.load(CONNECTOR, allow={"dns": ["bob", "carol"]})
        self.assertEqual([("alice",), ("bob", "carol")], [s.allow for s in config.services])
        services = [{"name": "ssh", "target": "tcp:127.0.0.1:22"}]
        config = self.load(CONNECTOR, services=services, allow={"ssh": ["*"]})
        self.assertEqual([("ssh", ("*",))], [(s.name, s.allow) for s in config.services])

    def test_no_file_is_needed(self) -> None:
        """Every setting has an option."""
        files = {"ca": "certs/ca.pem", "cert": "certs/me.pem", "key": "certs/me.key"}
        given = {name: str(self.directory / path) for name, path in files.items()}
        config = load_config(IntermediateConfig, None, given)
        self.assertEqual(self.directory / "certs/me.key", config.key)

    def test_a_mistake_names_the_option(self) -> None:
        """There is no line to name."""
        self.assert_mistake(
            "--max-streams: 'x': expected a whole number; write --max-streams=512",
            CONNECTOR,
            max_streams="x",
        )
        self.assert_mistake(
            "--max-streams: '0': expected a whole number >= 1; write --max-streams=512",
            CONNECTOR,
            max_streams="0",
        )
        self.assert_mistake(
            "--intermediate: 'relay' has no port; write host:port, for example 192.0.2.1:4433",
            AGENT,
            intermediates=["relay"],
        )
        self.assert_mistake(
            "--p2p-key: DIR/no.key: No such file or directory; `p2pnet pki` makes these files",
            AGENT,
            key=str(self.directory / "no.key"),
        )

    def test_allow_for_what_is_not_served_is_a_mistake(self) -> None:
        """A typing error must not leave a service closed, or the wrong one open."""
        self.assert_mistake(
            "--allow: 'wbe' is not a service here; configured: web, dns",
            CONNECTOR,
            allow={"wbe": ["alice"]},
        )
        self.assert_mistake(
            "--allow: agent name 'A' is not valid: use 1 to 63 of a-z 0-9 . _ -"
            " and begin and end with a letter or digit",
            CONNECTOR,
            allow={"web": ["A"]},
        )

    def test_what_is_missing_can_be_given_either_way(self) -> None:
        """Without a file the message says how to give one."""
        with self.assertRaises(ConfigError) as caught:
            load_config(IntermediateConfig, None, {})
        expected = "--p2p-ca: missing; write --p2p-ca=certs/ca.pem, or --config FILE"
        self.assertEqual(expected, str(caught.exception))


class ArbitraryFileTests(ConfigTestCase):
    """Whatever a file holds, the user gets a message and not a traceback."""

    def check(self, data: bytes) -> None:
        """The file loads or is refused with a ConfigError, for each role."""
        self.path.write_bytes(data)
        for kind in KINDS.values():
            try:
                load_config(kind, self.path, {})
            except ConfigError as error:
                self.assertRegex(str(error), rf"^{self.path}:[1-9]\d*: ")

    @given(st.binary(max_size=200))
    @example(b"\xef\xbb\xbf[agent]\n")
    def test_any_bytes(self, data: bytes) -> None:
        """Hardly ever TOML."""
        self.check(data)

    @given(st.data())
    def test_any_toml_like_text(self, data: st.DataObject) -> None:
        """A good file with a few pieces of it replaced by others."""
        base = data.draw(st.sampled_from(list(KINDS)))
        pieces = [*base.splitlines(), "service = 1", "service = [{}, 2]", "[service]", "[[agent]]"]
        lines = data.draw(st.lists(st.sampled_from(pieces) | st.text(max_size=20), max_size=20))
        at = data.draw(st.integers(0, len(base)))
        self.check((base[:at] + "\n".join(lines)).encode("utf-8", "surrogatepass"))

    @given(
        st.recursive(
            st.integers() | st.floats() | st.booleans() | st.text(max_size=8) | st.dates(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["name", "target", "allow", "x"]), inner, max_size=3
                )
            ),
        ),
        st.sampled_from(["ca", "listen", "max_sessions", "drain_seconds", "event_log"]),
    )
    def test_any_value_of_a_setting(self, value: object, key: str) -> None:
        """Of whatever type."""
        self.check(f"{INTERMEDIATE.replace('ca =', 'x =')}{key} = {toml(value)}\n".encode())


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    return str(value).lower()
