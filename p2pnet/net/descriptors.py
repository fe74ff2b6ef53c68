"""How many file descriptors this process may have open (RLIMIT_NOFILE)."""

import sys

if sys.platform != "win32":
    import resource

RESERVED = 256  # for the UDP socket, listeners, logs, pipes to workers and what Python opens
LARGEST = 65536  # more than one process can serve; the hard limit may be far above
SELECT = 512  # where the limit is unknown: select() of Windows takes so many sockets


def raise_limit() -> int:
    """Raise the soft limit as far as the hard one allows. Returns the soft limit, at most LARGEST.

    The limit stays on macOS, where Twisted waits with select(): it takes no descriptor above 1023.
    """
    if sys.platform == "win32":
        return SELECT
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (LARGEST if x == resource.RLIM_INFINITY else min(x, LARGEST) for x in limits)
    if soft < hard and sys.platform != "darwin":
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, limits[1]))
        except (OSError, ValueError):
            return soft  # a sandbox forbids it
        return hard
    return soft
