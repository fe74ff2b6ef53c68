"""How many file descriptors this process may have open (RLIMIT_NOFILE)."""

import sys

if sys.platform != "win32":
    import resource

LARGEST = 65536  # more than one process can serve; the hard limit may be far above
SELECT = 512  # where Twisted waits with select(), which takes few: macOS and Windows
RESERVED = 256  # for the UDP socket, listeners, logs, pipes to workers and what Python opens


def raise_limit() -> int:
    """Raise the soft limit as far as the hard one, and Twisted's way to wait, allow.

    Returns the soft limit, LARGEST or SELECT at most.
    """
    if sys.platform == "win32":
        return SELECT
    most = SELECT if sys.platform == "darwin" else LARGEST
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (most if x == resource.RLIM_INFINITY else min(x, most) for x in limits)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, limits[1]))
        except (OSError, ValueError):
            return soft  # a sandbox forbids it
    return hard


def for_targets(limit: int) -> int:
    """The descriptors that connections to targets may take of a limit: all but RESERVED, or three
    quarters of a small limit."""
    return limit - min(RESERVED, limit // 4)
