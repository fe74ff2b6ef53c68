"""The texts of peers: reasons for people, which end in logs, terminals and error messages."""

import re

MAX_TEXT = 200  # characters; a CONNECTION_CLOSE frame with as many fits a packet of 1200 bytes

_NOT_PRINTABLE = re.compile(r"[^ -~]")


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """`text` as printable ASCII of at most `limit` characters; idempotent.

    All else is escaped as in a Python literal: control characters, which a terminal obeys, and any
    character that ends a line, changes the direction of writing or resembles another one.
    """
    # A character never becomes shorter, so the rest of a long text need not be escaped.
    beginning = text[: limit + 1]
    escaped = _NOT_PRINTABLE.sub(
        lambda match: match[0].encode("unicode_escape").decode("ascii"), beginning
    )
    return escaped if len(escaped) <= limit else escaped[: limit - 3] + "..."
