"""What is said about each mistake in a configuration file."""

import os

from twisted.trial.unittest import SkipTest

from p2pnet.config.loading import load_config
from p2pnet.config.roles import AgentConfig, IntermediateConfig
from p2pnet.config.setting import ConfigError
from tests.config.test_roles import AGENT, CONNECTOR, INTERMEDIATE, ConfigTestCase


class MistakeTests(ConfigTestCase):
    """Each message names file, line and key, what is wrong and what would be right."""

    def test_an_unknown_key(self) -> None:
        """With the one that was meant, or those there are."""
        self.assert_mistake(
            "9: tarket in [[service]] 1: unknown; did you mean target?",
            CONNECTOR,
            "target",
            "tarket",
        )
        self.assert_mistake(
            "3: intermediate in [connector]: unknown; did you mean intermediates?",
            CONNECTOR,
            "intermediates",
            "intermediate",
        )
        self.assert_mistake(
            "13: colour in [[service]] 2: unknown; use allow, name, target",
            CONNECTOR,
            'name = "dns"',
            'colour = "red"',
        )

    def test_an_unknown_table(self) -> None:
        """A file is for one role."""
        self.assert_mistake(
            "7: services: unknown; did you mean service?", CONNECTOR, "service", "services"
        )
        self.assert_mistake(
            "2: agent: unknown; use connector, service", CONNECTOR, "connector", "agent"
        )

    def test_a_key_outside_its_table(self) -> None:
        """The header of the table was forgotten."""
        self.assert_mistake(
            "3: intermediates: unknown; it belongs under [connector]", CONNECTOR, "[connector]", ""
        )

    def test_a_missing_key(self) -> None:
        """The line is that of the table."""
        self.assert_mistake(
            '2: key in [connector]: missing; write key = "certs/me.key"',
            CONNECTOR,
            'key = "certs/me.key"',
        )
        self.assert_mistake(
            '12: target in [[service]] 2: missing; write target = "tcp:127.0.0.1:8080"',
            CONNECTOR,
            'target = "udp:127.0.0.1:53"',
        )
        self.assert_mistake(
            '1: ca in [intermediate]: missing; write ca = "certs/ca.pem"',
            INTERMEDIATE,
            INTERMEDIATE,
        )

    def test_a_wrong_type(self) -> None:
        """In the words of TOML, not of Python."""
        self.assert_mistake(
            "3: intermediates in [connector]: expected a list, got a string;"
            ' write intermediates = ["192.0.2.1:4433"]',
            CONNECTOR,
            '["127.0.0.1:4433"]',
            '"127.0.0.1:4433"',
        )
        self.assert_mistake(
            "14: target in [[service]] 2: expected a string, got a whole number;"
            ' write target = "tcp:127.0.0.1:8080"',
            CONNECTOR,
            '"udp:127.0.0.1:53"',
            "53",
        )
        self.assert_mistake(
            '10: allow in [[service]] 1: expected a list, got a string; write allow = ["alice"]',
            CONNECTOR,
            '["alice"]',
            '"alice"',
        )
        self.assert_mistake(
            "2: max_sessions in [intermediate]: expected a whole number, got a string;"
            " write max_sessions = 10000",
            INTERMEDIATE,
            "[intermediate]",
            '[intermediate]\nmax_sessions = "9"',
        )
        self.assert_mistake(
            "2: ca in [intermediate]: expected a string, got a whole number;"
            ' write ca = "certs/ca.pem"',
            INTERMEDIATE,
            '"certs/ca.pem"',
            "5",
        )

    def test_tables_written_as_something_else(self) -> None:
        """The tables themselves may be of the wrong type."""
        self.assert_mistake(
            "1: connector: must be a table: [connector]", CONNECTOR, CONNECTOR, "connector = 5"
        )
        rest = CONNECTOR[: CONNECTOR.index("[[service]]")]
        for value, expected in (
            ("5", "[[service]] 1: expected a list, got a whole number; write [[service]]"),
            ("[5]", "[[service]] 1: expected a table, got a whole number; write [[service]]"),
            (
                '[{name = "web"}]',
                'target in [[service]] 1: missing; write target = "tcp:127.0.0.1:8080"',
            ),
        ):
            text = f"service = {value}\n{rest}"
            self.assert_mistake(f"1: {expected}", CONNECTOR, CONNECTOR, text)

    def test_a_number_out_of_range(self) -> None:
        """Limits are positive, and times finite."""
        for setting, problem in (
            ("max_sessions = 0", "expected a whole number >= 1; write max_sessions = 10000"),
            ("retry_above = -1", "expected a whole number >= 0; write retry_above = 32"),
            ("drain_seconds = -1", "expected a number >= 0.0; write drain_seconds = 10.0"),
            ("drain_seconds = inf", "inf is not a number of seconds"),
            ("workers = 0", 'expected a whole number >= 1; write workers = "auto"'),
            ('workers = "all"', "invalid enum value 'all'; write workers = \"auto\""),
        ):
            self.assert_mistake(
                f"2: {setting.split()[0]} in [intermediate]: {problem}",
                INTERMEDIATE,
                "[intermediate]",
                f"[intermediate]\n{setting}",
            )

    def test_a_bad_address(self) -> None:
        """Intermediates may be host names."""
        good = '"127.0.0.1:4433"'
        for new, expected in (
            ("", 'expected a list of length >= 1; write intermediates = ["192.0.2.1:4433"]'),
            ('"relay"', "'relay' has no port; write host:port, for example 192.0.2.1:4433"),
            ('"::1:1"', "'::1:1': write an IPv6 address in brackets, for example [::1]:4433"),
            ('"relay:0"', "'relay:0': port 0 cannot be connected to"),
            ('"relay:70000"', "'relay:70000': '70000' is not a port (0 to 65535)"),
            ('"relay:1", "relay:1"', "'relay:1' is there twice; once is right"),
        ):
            self.assert_mistake(
                f"3: intermediates in [connector]: {expected}", CONNECTOR, good, new
            )

    def test_a_bad_local_address(self) -> None:
        """It is bound to, so it cannot be a name."""
        self.assert_mistake(
            "3: bind in [connector]: 'localhost:1': write an IP address of this machine"
            " instead of a name",
            CONNECTOR,
            "[connector]",
            '[connector]\nbind = "localhost:1"',
        )
        self.assert_mistake(
            "2: listen in [intermediate]: '' has no port; write host:port,"
            " for example 192.0.2.1:4433",
            INTERMEDIATE,
            "[intermediate]",
            '[intermediate]\nlisten = ""',
        )

    def test_a_bad_name(self) -> None:
        """Names travel in certificates and messages. All agents are not a service."""
        rule = "is not valid: use 1 to 63 of a-z 0-9 . _ - and begin and end with a letter or digit"
        for name in ("", "Web", "-web", "web-", "a b", "*"):
            place = "8: name in [[service]] 1"
            expected = f"{place}: service name {name!r} {rule}"
            self.assert_mistake(expected, CONNECTOR, '"web"', f'"{name}"')
        place = "10: allow in [[service]] 1"
        expected = f"{place}: agent name 'Alice' {rule}"
        self.assert_mistake(expected, CONNECTOR, '"alice"', '"Alice"')
        place = "7: service in [[forward]] 1"
        self.assert_mistake(f"{place}: service name '*' {rule}", AGENT, '"web"', '"*"')

    def test_one_of_a_few_words(self) -> None:
        """The message has all of them."""
        for base, table in ((AGENT, "agent"), (INTERMEDIATE, "intermediate")):
            self.assert_mistake(
                f"2: udp in [{table}]: 'fast' is none of auto, plain",
                base,
                f"[{table}]",
                f"[{table}]\nudp = 'fast'",
            )

    def test_a_bad_endpoint(self) -> None:
        """Of the common mistakes, a host and port without their kind is the commonest."""
        rule = "is not an endpoint; write, for example, tcp:127.0.0.1:8080"
        for bad in ("", "8080", "127.0.0.1:8080", "localhost:8080", "tcp:", ":8080"):
            place = "9: target in [[service]] 1"
            self.assert_mistake(f"{place}: {bad!r} {rule}", CONNECTOR, "tcp:127.0.0.1:8080", bad)
        place = "8: listen in [[forward]] 1"
        self.assert_mistake(
            f"{place}: '8081' {rule}", AGENT, "tcp:8081:interface=127.0.0.1", "8081"
        )

    def test_the_same_thing_twice(self) -> None:
        """Two services of one name, two listeners in one place."""
        self.assert_mistake(
            "13: name in [[service]] 2: 'web' is there twice; once is right",
            CONNECTOR,
            '"dns"',
            '"web"',
        )
        self.assert_mistake(
            "11: listen in [[forward]] 2: 'tcp:8081:interface=127.0.0.1' is there twice;"
            " once is right",
            AGENT,
            "udp:5353:interface=127.0.0.1",
            "tcp:8081:interface=127.0.0.1",
        )

    def test_a_file_that_is_not_there(self) -> None:
        """With its key and the whole path."""
        made = "; `p2pnet pki` makes these files"
        for new, expected in (
            ("certs/you.pem", f"DIR/certs/you.pem: No such file or directory{made}"),
            ("", "DIR is a directory, not a file"),
            ("a\\u0000b", f"DIR/a\0b: embedded null byte{made}"),
            ("a" * 300, f"DIR/{'a' * 300}: File name too long{made}"),
        ):
            place = "3: cert in [intermediate]"
            self.assert_mistake(f"{place}: {expected}", INTERMEDIATE, "certs/me.pem", new)
        self.assert_mistake(
            "2: event_log in [intermediate]: DIR/logs/events.jsonl: there is no directory DIR/logs",
            INTERMEDIATE,
            "[intermediate]",
            '[intermediate]\nevent_log = "logs/events.jsonl"',
        )

    def test_a_file_that_may_not_be_read(self) -> None:
        """Run as the wrong user."""
        if os.getuid() == 0:
            raise SkipTest("root may read everything")
        (self.directory / "certs/me.key").chmod(0)
        self.assert_mistake(
            "4: key in [intermediate]: DIR/certs/me.key: no permission to read it", INTERMEDIATE
        )

    def test_bad_toml(self) -> None:
        """The parser says where, even where it leaves that to Python."""
        for old, new, line in (
            ('"certs/ca.pem"', "", 2),
            ('me.key"', "me.key", 4),
            ('"certs/ca.pem"', "[" * 100_000, 5),
            ('"certs/ca.pem"', "9" * 10_000, 5),
        ):
            self.path.write_text(INTERMEDIATE.replace(old, new))
            with self.assertRaises(ConfigError) as caught:
                load_config(IntermediateConfig, self.path, {})
            start = f"{self.path}:{line}: not valid TOML: "
            self.assertEqual(start, str(caught.exception)[: len(start)])

    def test_a_config_file_that_cannot_be_read(self) -> None:
        """Not there, a directory, and not text."""
        with self.assertRaises(ConfigError) as caught:
            load_config(AgentConfig, self.path, {})
        self.assertEqual(f"{self.path}: No such file or directory", str(caught.exception))
        with self.assertRaises(ConfigError) as caught:
            load_config(AgentConfig, self.directory, {})
        self.assertEqual(f"{self.directory}: Is a directory", str(caught.exception))
        self.path.write_bytes(b"[agent]\n# \xff\n")
        with self.assertRaises(ConfigError) as caught:
            load_config(AgentConfig, self.path, {})
        self.assertEqual(f"{self.path}:2: not UTF-8, as TOML must be", str(caught.exception))
