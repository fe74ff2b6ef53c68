"""The log lines of aioquic, which quote reason phrases of peers as they came."""

import logging

from p2pnet.wire.text import printable


class _PrintableLines(logging.Filter):
    """Makes every line printable before a handler of the program gets it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = printable(record.getMessage()), None
        return True


def protect() -> None:
    """Make the lines printable, and let none reach standard error unless the program asks."""
    logger = logging.getLogger("quic")
    logger.addFilter(_PrintableLines())
    # Without any handler Python prints warnings.
    logger.addHandler(logging.NullHandler())
