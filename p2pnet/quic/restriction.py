"""Datagrams of a connection with the frames of one stream only."""

import collections
import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def restricted(connection: Any, stream_id: int) -> Iterator[None]:
    """Let a QuicConnection make datagrams without frames of other streams and DATAGRAM frames.

    Bytes and frames that wait, also those that were lost, wait until after the context.
    """
    queue, datagrams = connection._streams_queue, connection._datagrams_pending
    connection._streams_queue = [stream for stream in queue if stream.stream_id == stream_id]
    connection._datagrams_pending = collections.deque()
    try:
        yield
    finally:
        connection._streams_queue += [each for each in queue if each.stream_id != stream_id]
        connection._datagrams_pending = datagrams
