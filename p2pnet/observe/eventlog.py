"""The event log: one JSON object a line for each report."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from p2pnet.files import open_log
from p2pnet.observe.limit import ReportLimit
from p2pnet.reports import Report

WRITE_DELAY = 0.05  # seconds from a report until its line is written, with those of others
MAX_WAITING = 64  # reports; the last of them has all written without a delay
SUMMARY_INTERVAL = 60.0  # seconds until a line counts the reports that were left out

_encoder = msgspec.json.Encoder()


class EventLog:
    """Writes reports to the log of the process and, if there is a `path`, to that file.

    A line is ``{"time": <seconds since 1970>, "event": <name>, ...fields}``. The file is opened
    for appending when the node starts; a write that fails is logged, and the node goes on. Reports
    over the limit of their kind and peer (p2pnet.observe.limit) are left out of both logs; a
    MoreReports counts them once a minute.

    Between open() and close() lines are written 50 ms later, several at once: two of them cost as
    much as a packet, and would delay the answer that caused them.

    :param utcnow: the wall clock, for the time of a report.
    """

    log = Logger(namespace="p2pnet")

    def __init__(
        self, path: Path | None, utcnow: Callable[[], datetime.datetime], clock: IReactorTime
    ) -> None:
        self._path = path
        self._utcnow = utcnow
        self._clock = clock
        self._is_open = False
        self._file: IO[bytes] | None = None
        self._limit = ReportLimit()
        self._waiting: list[tuple[float, Report]] = []  # with seconds since 1970
        self._call: IDelayedCall | None = None
        self._summary: IDelayedCall | None = None

    def open(self) -> None:
        """Open the file for appending, if there is a path. Raises OSError."""
        if self._path is not None:
            self._file = open_log(self._path)
        self._is_open = True

    def close(self) -> None:
        """Write the waiting reports and close the file."""
        self._is_open = False
        self._write()
        self._summarize()
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def write(self, report: Report) -> None:
        """Log a report, at once or within WRITE_DELAY seconds. A failed write is only logged."""
        self._waiting.append((self._utcnow().timestamp(), report))
        if not self._is_open or len(self._waiting) >= MAX_WAITING:
            self._write()
        elif self._call is None:
            self._call = self._clock.callLater(WRITE_DELAY, self._write)

    def _write(self) -> None:
        call, self._call = self._call, None
        _cancel(call)
        waiting, self._waiting = self._waiting, []
        now = self._clock.seconds()
        lines = bytearray()
        for at, report in waiting:
            name, fields = report.name, report.fields()
            line = _line(at, name, fields)
            if self._limit.admits(name, fields, len(line), now):
                self._log(at, name, fields)
                lines += line
            elif self._summary is None and self._is_open:
                self._summary = self._clock.callLater(SUMMARY_INTERVAL, self._summarize)
        self._append(lines)

    def _summarize(self) -> None:
        summary, self._summary = self._summary, None
        _cancel(summary)
        at = self._utcnow().timestamp()
        lines = bytearray()
        for report in self._limit.take_omitted():
            name, fields = report.name, report.fields()
            self._log(at, name, fields)
            lines += _line(at, name, fields)
        self._append(lines)

    def _log(self, at: float, name: str, fields: dict[str, object]) -> None:
        text = _for_people(fields)
        self.log.info("{event}: {fields}", event=name, fields=text, log_time=at)

    def _append(self, lines: bytearray) -> None:
        if self._file is not None and lines:
            try:
                self._file.write(lines)
            except OSError:
                self.log.failure("while writing {path}", path=str(self._path))


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()


def _line(at: float, name: str, fields: dict[str, object]) -> bytes:
    return _encoder.encode({"time": at, "event": name, **fields}) + b"\n"


def _for_people(fields: dict[str, object]) -> str:
    return ", ".join(
        f"{name}={value:.4f}" if isinstance(value, float) else f"{name}={value}"
        for name, value in fields.items()
    )
