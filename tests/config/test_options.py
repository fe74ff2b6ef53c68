"""The command line of the three roles."""

from pathlib import Path
from typing import TypeVar

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from p2pnet.config.options import RoleOptions
from p2pnet.config.roles import ForwardConfig, ServiceConfig
from p2pnet.config.setting import declared_settings
from p2pnet.roles import agent_tap, connector_tap, intermediate_tap

ROLES: tuple[type[RoleOptions], ...] = (
    intermediate_tap.Options,
    connector_tap.Options,
    agent_tap.Options,
)
Options = TypeVar("Options", bound=RoleOptions)


class TwistdOptions(usage.Options):
    """The part of twistd's own options that ours look at, with ours as its subcommands."""

    optParameters = [["pidfile", "", "twistd.pid", ""], ["logfile", "l", None, ""]]
    optFlags = [["nodaemon", "n", ""]]
    subCommands = [[role.kind.table, None, role, ""] for role in ROLES]


class OptionsTestCase(SynchronousTestCase):
    """A directory with the files of a node."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.files = []
        for name in ("ca", "cert", "key"):
            (self.directory / name).touch()
            self.files += [f"--p2p-{name}", str(self.directory / name)]

    def parse(self, kind: type[Options], *arguments: str) -> Options:
        """The options for these arguments, besides those for the files that all need."""
        options = kind()
        options.parseOptions([*self.files, *arguments])
        return options

    def assert_usage_error(self, expected: str, kind: type[RoleOptions], *arguments: str) -> None:
        """The command line is refused with this message."""
        error = self.assertRaises(usage.UsageError, self.parse, kind, *arguments)
        self.assertEqual(expected, str(error).replace(str(self.directory), "DIR"))


class SettingTests(OptionsTestCase):
    """How options become a config."""

    def test_every_setting_has_an_option_with_help(self) -> None:
        """Those of a service too; the help text shows what is the default."""
        for role in ROLES:
            text = role().getUsage(width=10_000)
            for setting in declared_settings(role.kind).values():
                self.assertRegex(text, rf"--{setting.option}= +{setting.help[:20]}")
        self.assertIn("[default: 0.0.0.0:4433]", intermediate_tap.Options().getUsage(width=10_000))
        self.assertIn("--allow=", connector_tap.Options().getUsage())

    def test_an_intermediate_without_a_file(self) -> None:
        """Text becomes the type of the setting."""
        arguments = ("--listen", "[::]:4433", "--max-sessions", "5", "--drain-seconds=0.5")
        config = self.parse(intermediate_tap.Options, *arguments).config
        self.assertEqual("[::]:4433", config.listen)
        self.assertEqual((5, 0.5), (config.max_sessions, config.drain_seconds))
        self.assertEqual(self.directory / "ca", config.ca)

    def test_workers_are_a_number_or_a_word(self) -> None:
        """One process unless others are asked for."""
        for arguments, expected in (
            ((), 1),
            (("--workers=3",), 3),
            (("--workers", "auto"), "auto"),
        ):
            self.assertEqual(
                expected, self.parse(intermediate_tap.Options, *arguments).config.workers
            )

    def test_a_connector_without_a_file(self) -> None:
        """Options that may be repeated gather their values."""
        config = self.parse(
            connector_tap.Options,
            *("--intermediate", "relay1:4433", "--intermediate", "relay2:4433"),
            *("--service", "web=tcp:host=a:port=80", "--service=dns=udp:127.0.0.1:53"),
            *("--allow=web=alice,bob", "--allow", "web=carol"),
        ).config
        self.assertEqual(("relay1:4433", "relay2:4433"), config.intermediates)
        allow = ("alice", "bob", "carol")
        where = "--service"
        web = ServiceConfig(name="web", target="tcp:host=a:port=80", allow=allow, where=where)
        dns = ServiceConfig(name="dns", target="udp:127.0.0.1:53", allow=(), where=where)
        self.assertEqual((web, dns), config.services)

    def test_an_agent_without_a_file(self) -> None:
        """Forwards are written the way services are."""
        arguments = ("--intermediate=relay1:1", "--forward=web=tcp:8081", "--bind=[::1]:0")
        config = self.parse(agent_tap.Options, *arguments).config
        web = ForwardConfig(service="web", listen="tcp:8081", where="--forward")
        self.assertEqual((web,), config.forwards)
        self.assertEqual("[::1]:0", config.bind)

    def test_options_win_over_the_file(self) -> None:
        """What is not given comes from the file, which need not be complete."""
        file = self.directory / "agent.toml"
        file.write_text('[agent]\nintermediates = ["file:1"]\nbind = "0.0.0.0:1"\nca = "cert"\n')
        config = self.parse(agent_tap.Options, "--config", str(file), "--bind", "").config
        self.assertEqual((("file:1",), ""), (config.intermediates, config.bind))
        self.assertEqual(self.directory / "ca", config.ca)

    def test_two_parsers_do_not_share_lists(self) -> None:
        """The options of a process are not those of the next in a test."""
        for name in ("a", "b"):
            config = self.parse(agent_tap.Options, f"--intermediate={name}:1").config
            self.assertEqual((f"{name}:1",), config.intermediates)


class MistakeTests(OptionsTestCase):
    """What twistd prints after the help text."""

    def test_a_config_error_is_a_usage_error(self) -> None:
        """With the same text."""
        self.assert_usage_error(
            "--intermediate: missing; write --intermediate=192.0.2.1:4433, or --config FILE",
            agent_tap.Options,
        )
        self.assert_usage_error(
            "DIR/x.toml: No such file or directory",
            agent_tap.Options,
            f"--config={self.directory}/x.toml",
        )

    def test_a_pair_that_is_none(self) -> None:
        """The message shows the form."""
        self.assert_usage_error(
            "--service: 'tcp:127.0.0.1:80' is not NAME=TARGET",
            connector_tap.Options,
            "--service=tcp:127.0.0.1:80",
        )
        self.assert_usage_error(
            "--forward: 'web=' is not SERVICE=LISTEN", agent_tap.Options, "--forward=web="
        )
        self.assert_usage_error(
            "--allow: 'alice' is not SERVICE=AGENT[,AGENT...]",
            connector_tap.Options,
            "--allow=alice",
        )

    def test_further_arguments_are_refused(self) -> None:
        """A forgotten --config would go unnoticed otherwise."""
        self.assert_usage_error("Wrong number of arguments.", agent_tap.Options, "agent.toml")


class TwistdTests(OptionsTestCase):
    """The options below twistd's own."""

    def parse_twistd(self, *arguments: str) -> TwistdOptions:
        """twistd's options for these arguments and an Intermediate."""
        options = TwistdOptions()
        options.parseOptions([*arguments, "intermediate", *self.files])
        return options

    def test_each_role_has_files_of_its_own(self) -> None:
        """The three run in one directory, where twistd has one pidfile and one log."""
        options = self.parse_twistd()
        self.assertEqual("p2p-intermediate.pid", options["pidfile"])
        self.assertEqual("p2p-intermediate.log", options["logfile"])

    def test_files_the_user_names_are_used(self) -> None:
        """Also no log file in the foreground, and no pidfile at all."""
        options = self.parse_twistd("--pidfile=x.pid", "--logfile=x.log")
        self.assertEqual(("x.pid", "x.log"), (options["pidfile"], options["logfile"]))
        options = self.parse_twistd("-n", "--pidfile=")
        self.assertEqual(("", None), (options["pidfile"], options["logfile"]))

    def test_the_modules_of_the_plugins_have_the_right_options(self) -> None:
        """What the three plugins load."""
        modules = (intermediate_tap, connector_tap, agent_tap)
        self.assertEqual(ROLES, tuple(module.Options for module in modules))

    def test_files_of_the_wrong_kind_end_the_process_with_one_line(self) -> None:
        """Empty files are no certificates: twistd prints this, and no traceback."""
        options = self.parse_twistd().subOptions
        ended = self.assertRaises(SystemExit, intermediate_tap.makeService, options)
        self.assertRegex(str(ended), f"^p2p-intermediate: .*{self.directory}")
