"""Loading of a configuration from TOML file and command line, with errors that name the place."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from p2pnet.config.roles import RoleConfig, ServiceConfig
from p2pnet.config.setting import (
    ConfigError,
    check_agent,
    declared_settings,
    is_any_port,
    reason_of,
    right_spelling,
)

C = TypeVar("C", bound=RoleConfig)


def load_config(kind: type[C], path: Path | None, overrides: Mapping[str, object]) -> C:
    """Load the config of a role from a TOML file and the command line.

    Relative paths in the file start at the file's directory, those in `overrides` at the current
    one. Raises ConfigError, which names file and line, or the option.

    :param kind: the role's config struct.
    :param path: the TOML file, None for none.
    :param overrides: values by field name, which win over the file; a value is as in the file, or
        the text of an option. The further key ``allow`` maps a service to its agents.
    """
    return _Loader(kind, path, overrides).load()


class _Loader(Generic[C]):
    """One run of `load_config`."""

    def __init__(self, kind: type[C], path: Path | None, overrides: Mapping[str, Any]) -> None:
        self._kind = kind
        self._path = path
        self._text = ""
        self._overrides = overrides
        self._settings = declared_settings(kind)

    def load(self) -> C:
        """Read, convert and check all settings, and return the config. Raises ConfigError."""
        values = {} if self._path is None else self._read(self._path)
        values |= {
            name: self._overrides[name] for name in self._settings if name in self._overrides
        }
        for field in msgspec.structs.fields(self._kind):
            if field.name in values:
                values[field.name] = self._convert(field.name, values[field.name], field.type)
                self._check(field.name, values[field.name])
                values[field.name] = self._locate(field.name, values[field.name])
            elif field.required:
                instead = "" if self._path else ", or --config FILE"
                self._fail(field.name, f"missing; write {self._example(field.name)}{instead}")
        if allow := self._overrides.get("allow"):
            values["services"] = _allow(values.get("services", ()), allow)
        return self._kind(**values)

    def _read(self, path: Path) -> dict[str, Any]:
        """The values in the file by field name, not yet converted."""
        try:
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {reason_of(error)}") from None
        try:
            self._text = data.decode()
            document = tomllib.loads(self._text)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{path}:{line}: not UTF-8, as TOML must be") from None
        except (ValueError, RecursionError) as error:
            # The message of tomllib has the line, except for huge numbers and deep nesting.
            found = re.search(r"at line (\d+)", str(error))
            line = int(found[1]) if found else self._text.count("\n") + 1
            raise ConfigError(f"{path}:{line}: not valid TOML: {error}") from None
        arrays = {s.option: name for name, s in self._settings.items() if s.element}
        self._known("", 0, document, [self._kind.table, *arrays])
        values = document.get(self._kind.table, {})
        if not isinstance(values, dict):
            place = self._where_at("", 0, self._kind.table)
            raise ConfigError(f"{place}: must be a table: [{self._kind.table}]")
        self._known(self._kind.table, 0, values, self._settings.keys() - arrays.values())
        return values | {arrays[key]: document[key] for key in arrays if key in document}

    def _known(self, table: str, index: int, found: Iterable[str], known: Collection[str]) -> None:
        """Raise ConfigError for a key in `found` that is none of the `known` keys of a table."""
        for key in found:
            if key not in known:
                hint = right_spelling(key, known)
                if not table and key in self._settings and not self._settings[key].element:
                    hint = f"it belongs under [{self._kind.table}]"
                raise ConfigError(f"{self._where_at(table, index, key)}: unknown; {hint}")

    def _convert(self, name: str, value: Any, kind: Any) -> Any:
        """The value of a setting in the type of its field."""
        given = name in self._overrides
        element = self._settings[name].element
        if element and isinstance(value, list):
            for index, row in enumerate(value):
                self._check_row(name, index, row, element)
        base = Path.cwd() if given or not self._path else self._path.parent.absolute()

        def resolve(_: type, text: object) -> Path:
            return base / msgspec.convert(text, str)

        try:
            return msgspec.convert(value, kind, strict=not given, dec_hook=resolve)
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at ")
            problem = re.sub(r"`(\w+)`", lambda m: _TOML_TYPES.get(m[1], m[1]), problem)
            place = re.search(r"\[(\d+)\](?:\.(\w+))?", where)
            index, key = (int(place[1]), place[2] or "") if place else (0, "")
            problem = problem[:1].lower() + problem[1:]
            if given and isinstance(value, str):
                problem = f"{value!r}: {problem.partition(', got')[0]}"
            self._fail(name, f"{problem}; write {self._example(name, key)}", index, key)

    def _check_row(self, name: str, index: int, row: object, element: type[Struct]) -> None:
        """Raise ConfigError for unknown and missing keys of a table in an array of tables."""
        if isinstance(row, dict):
            self._known(self._settings[name].option, index, row, declared_settings(element))
            for field in msgspec.structs.fields(element):
                if field.required and field.name not in row:
                    problem = f"missing; write {self._example(name, field.name)}"
                    self._fail(name, problem, index, field.name)

    def _check(self, name: str, value: Any) -> None:
        """Run the checks declared with a setting, and with the columns of an array of tables."""
        setting = self._settings[name]
        cells = [(0, name, setting, value)]
        if setting.element:
            columns = declared_settings(setting.element).items()
            cells = [(i, k, s, getattr(row, k)) for i, row in enumerate(value) for k, s in columns]
        seen = set()
        for index, key, rules, cell in cells:
            for item in cell if isinstance(cell, tuple) else (cell,):
                try:
                    if rules.check:
                        rules.check(item)
                except ValueError as error:
                    self._fail(name, str(error), index, key)
                if rules.unique and (key, item) in seen and not is_any_port(item):
                    self._fail(name, f"{item!r} is there twice; once is right", index, key)
                seen.add((key, item))

    def _example(self, name: str, key: str = "") -> str:
        """A correct line or option for a setting, or for a key of its tables."""
        setting = self._settings[name]
        if setting.element and key:
            value = declared_settings(setting.element)[key].example
        elif self._on_command_line(name):
            value = setting.example
            return f"--{setting.option}={value[0] if isinstance(value, list) else value}"
        elif setting.element:
            return f"[[{setting.option}]]"
        else:
            key, value = name, setting.example
        return f"{key} = {json.dumps(value)}"

    def _on_command_line(self, name: str) -> bool:
        """Whether a value comes from the command line, or would have to without a file."""
        return name in self._overrides or self._path is None

    def _locate(self, name: str, value: Any) -> Any:
        """The value of a setting, with the place of its endpoint in each table of an array."""
        element = self._settings[name].element
        if element is None:
            return value
        return tuple(
            msgspec.structs.replace(row, where=self._where(name, index, row.endpoint))
            for index, row in enumerate(value)
        )

    def _where(self, name: str, index: int = 0, key: str = "") -> str:
        """The place of a setting, or of `key` of the `index`-th of its tables, for errors."""
        setting = self._settings[name]
        if self._on_command_line(name):
            return f"--{setting.option}"
        if setting.element:
            return self._where_at(setting.option, index, key)
        return self._where_at(self._kind.table, 0, name)

    def _where_at(self, table: str, index: int, key: str) -> str:
        """The place of `key` of the `index`-th `table` of the file."""
        line = _find_line(self._text, table, index, key)
        where = f"[[{table}]] {index + 1}" if table != self._kind.table else f"[{table}]"
        what = " in ".join(filter(None, (key, table and where)))
        return f"{self._path}:{line}: {what}"

    def _fail(self, name: str, problem: str, index: int = 0, key: str = "") -> NoReturn:
        """Raise ConfigError about a setting, or about `key` of the `index`-th of its tables."""
        raise ConfigError(f"{self._where(name, index, key)}: {problem}")


_HEADER = re.compile(r"\s*\[\[?\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*[.=]")


def _find_line(text: str, table: str, index: int, key: str) -> int:
    """The line (from 1) of a key in the `index`-th `table` of a TOML text ("" = top level).

    Without such a line, the result is the line of the table's header, or 1. The result is only for
    messages: a line within a multi-line string may count as a key.
    """
    lines: dict[tuple[str, int, str], int] = {}
    headers: Counter[str] = Counter()
    current = ("", 0)
    for number, content in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(content):
            name = header[1]
            current = (name, headers[name])
            headers[name] += 1
            lines[(*current, "")] = number
            lines.setdefault(("", 0, name), number)
        elif assignment := _KEY.match(content):
            lines.setdefault((*current, assignment[1]), number)
    candidates = ((table, index, key), (table, index, ""), ("", 0, table))
    return next((lines[place] for place in candidates if place in lines), 1)


_TOML_TYPES = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
"""Plain names of the types in messages of msgspec."""


def _allow(
    services: tuple[ServiceConfig, ...], allow: Mapping[str, Sequence[str]]
) -> tuple[ServiceConfig, ...]:
    """The services, with the agents that the command line allows to use them."""
    try:
        for agent in chain(*allow.values()):
            check_agent(agent)
    except ValueError as error:
        raise ConfigError(f"--allow: {error}") from None
    names = [service.name for service in services]
    for name in allow:
        if name not in names:
            known = ", ".join(names) or "none"
            raise ConfigError(f"--allow: {name!r} is not a service here; configured: {known}")
    return tuple(
        msgspec.structs.replace(service, allow=tuple(allow.get(service.name, service.allow)))
        for service in services
    )
