"""The event log: one JSON object a line for each report."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec
from twisted.logger import Logger

from p2pnet.events import Report

_encoder = msgspec.json.Encoder()


class EventLog:
    """Writes reports to the log of the process and, if there is a `path`, to that file.

    A line is ``{"time": <seconds since 1970>, "event": <name>, ...fields}``. The file is opened
    for appending when the node starts; a write that fails is logged, and the node goes on.
    """

    log = Logger(namespace="p2pnet")

    def __init__(self, path: Path | None, utcnow: Callable[[], datetime.datetime]) -> None:
        self._path = path
        self._utcnow = utcnow
        self._file: IO[bytes] | None = None

    def open(self) -> None:
        """Open the file. Raises OSError."""
        if self._path is not None:
            self._file = self._path.open("ab", buffering=0)

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def write(self, report: Report) -> None:
        """Log one report."""
        fields = report.fields()
        self.log.info("{event}: {fields}", event=report.name, fields=_for_people(fields))
        if self._file is None:
            return
        record = {"time": self._utcnow().timestamp(), "event": report.name, **fields}
        try:
            self._file.write(_encoder.encode(record) + b"\n")
        except OSError:
            self.log.failure("while writing {path}", path=str(self._path))


def _for_people(fields: dict[str, object]) -> str:
    return ", ".join(
        f"{name}={value:.4f}" if isinstance(value, float) else f"{name}={value}"
        for name, value in fields.items()
    )
