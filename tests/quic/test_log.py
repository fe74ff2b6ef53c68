"""The log lines of aioquic."""

import logging

from twisted.trial.unittest import SynchronousTestCase

from p2pnet.quic import engine  # noqa: F401  (importing it makes the lines printable)


class Lines(logging.Handler):
    """Keeps the lines that a program would write."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.lines.append(record.getMessage())


class LogTests(SynchronousTestCase):
    """What reaches a program that asks for the lines of aioquic."""

    def test_a_reason_phrase_is_printable(self) -> None:
        """aioquic quotes the phrases of peers."""
        logger, handler = logging.getLogger("quic"), Lines()
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        self.addCleanup(logger.setLevel, logger.level)
        logger.setLevel(logging.INFO)
        logger.info("closed (code 0x%X, reason %s)", 1, "\x1b]0;owned\x07\n")
        self.assertEqual([r"closed (code 0x1, reason \x1b]0;owned\x07\n)"], handler.lines)
