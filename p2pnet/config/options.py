"""The command line of ``twistd p2p-intermediate``, ``p2p-connector`` and ``p2p-agent``.

Every option but ``--config`` and ``--allow`` comes from a setting of the role's config struct. An
option wins over the file.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from twisted.python import usage

from p2pnet import __version__
from p2pnet.config.loading import load_config
from p2pnet.config.roles import RoleConfig
from p2pnet.config.setting import ConfigError, Setting, declared_settings
from p2pnet.files import open_log
from p2pnet.identity import CredentialsError


def _parameters(kind: type[RoleConfig]) -> list[list[object]]:
    """The `optParameters` for the settings with one value.

    Their default is None, which marks an absent option; the help text has the real default.
    """
    parameters: list[list[object]] = []
    for field in msgspec.structs.fields(kind):
        setting = declared_settings(kind)[field.name]
        if not setting.repeatable:
            default = "" if field.required or field.default in (None, "") else field.default
            shown = f" [default: {default}]" if default != "" else ""
            parameters.append([setting.option, None, None, setting.help + shown])
    return parameters


def _repeatable(name: str, setting: Setting) -> Callable[["RoleOptions", str], None]:
    """An ``opt_`` method that collects the values of an option in `RoleOptions.lists`."""
    columns = _columns(setting)

    def option(self: "RoleOptions", value: str) -> None:
        if columns:
            first, equals, second = value.partition("=")
            if not (first and equals and second):
                form = "=".join(column.upper() for column in columns)
                raise usage.UsageError(f"--{setting.option}: {value!r} is not {form}")
            self.lists.setdefault(name, []).append(dict(zip(columns, (first, second), strict=True)))
        else:
            self.lists.setdefault(name, []).append(value)

    option.__doc__ = setting.help
    return option


def _columns(setting: Setting) -> list[str]:
    """The keys of a table that the option ``--option KEY=KEY`` sets: those without a default."""
    fields = msgspec.structs.fields(setting.element) if setting.element else ()
    return [field.name for field in fields if field.required]


class RoleOptions(usage.Options):
    """Base of the options of the three roles.

    :ivar kind: the config struct of the role, which a subclass names.
    :ivar config: the complete configuration, set by postOptions().
    :ivar lists: the values of each repeatable option, by field name.
    :ivar allowed: the agents of each service by ``--allow``, an option of the Connector alone.
    """

    kind: ClassVar[type[RoleConfig]]
    config: RoleConfig

    synopsis = "[options]"
    optParameters: ClassVar[list[list[object]]] = [
        ["config", "c", None, "Read the settings from this TOML file."]
    ]
    compData = usage.Completions(optActions={"config": usage.CompleteFiles("*.toml")})

    def __init_subclass__(cls) -> None:
        """Make the options of the role from the settings of its `kind`."""
        cls.optParameters = _parameters(cls.kind)
        for name, setting in declared_settings(cls.kind).items():
            if setting.repeatable:
                method = "opt_" + setting.option.replace("-", "_")
                setattr(cls, method, _repeatable(name, setting))

    def __init__(self) -> None:
        super().__init__()
        self.lists: dict[str, list[Any]] = {}
        self.allowed: dict[str, list[str]] = {}

    def opt_version(self) -> None:
        """Display the version of p2pnet and exit."""
        print("p2pnet", __version__)
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Load `config` after the command line is parsed.

        Raises UsageError, with the text of the ConfigError, for a wrong setting.
        """
        names = {setting.option: name for name, setting in declared_settings(self.kind).items()}
        given = {
            names[key]: value for key, value in self.items() if key in names and value is not None
        }
        path = Path(self["config"]) if self["config"] is not None else None
        overrides = given | self.lists | {"allow": self.allowed}
        try:
            self.config = load_config(self.kind, path, overrides)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None
        parent: Any = self.parent if self.parent is not None else {}
        self._name_twistd_files(parent)
        if parent.get("logfile") not in (None, "-") and not parent.get("syslog"):
            _protect_log(parent["logfile"])

    def _name_twistd_files(self, parent: Any) -> None:
        """Give each role its own pid and log file, so that all can run in one directory."""
        name = f"p2p-{self.kind.table}"
        if parent.get("pidfile") == "twistd.pid":
            parent["pidfile"] = f"{name}.pid"
        if "logfile" in parent and parent["logfile"] is None and not parent["nodaemon"]:
            parent["logfile"] = f"{name}.log"


def _protect_log(path: str) -> None:
    """Make the log that twistd opens next: twistd keeps the mode of an existing file.

    Raises UsageError for a log that open_log() refuses.
    """
    try:
        open_log(path).close()
    except OSError as error:
        raise usage.UsageError(f"--logfile: {path}: {error.strerror}") from None


@contextmanager
def plain_errors(options: RoleOptions) -> Iterator[None]:
    """Raise SystemExit, with one line and no traceback, for a ConfigError or CredentialsError."""
    try:
        yield
    except (ConfigError, CredentialsError) as error:
        raise SystemExit(f"p2p-{options.kind.table}: {error}") from None
