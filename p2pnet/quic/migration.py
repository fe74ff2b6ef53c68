"""Connection migration (RFC 9000 section 9): a server follows a client once the path is validated.

aioquic sends to the source address of the newest packet at once, and validates the path meanwhile.
Here the validated path stays in use, and any other address gets PATH_CHALLENGE and PATH_RESPONSE
frames alone, with three times the bytes that came from there at most (RFC 9000 section 8.1).
"""

import math
from collections.abc import Hashable
from typing import Any

from aioquic.quic.connection import QuicNetworkPath

from p2pnet.quic.recovery import PathAwareRecovery
from p2pnet.quic.strict import StrictConnection

CHALLENGE_INTERVAL = 0.2  # seconds between the challenges of a connection, and so between its moves


class MigratingConnection(StrictConnection):
    """A connection that sends to validated addresses only, once the handshake is over.

    The first of aioquic's paths is the path in use. There are others only while the newest packets
    come from another address.
    """

    _loss: PathAwareRecovery

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._migrating: QuicNetworkPath | None = None  # where the newest packet came from
        self._challenge_at = -math.inf  # when the next challenge may be sent

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Take a datagram from the network, at `now` seconds of the caller's clock."""
        if self._is_client or not self._network_paths:
            super().receive_datagram(data, addr, now)
            return
        used = self._network_paths[0]
        if used.addr == addr:
            # A client that moved sends nothing from its old address any more: what came from others
            # were copies that overtook the client's packets (RFC 9000 section 9.3.3).
            self._forget_others()
            super().receive_datagram(data, addr, now)
        elif self._handshake_confirmed:  # a client stays until then (RFC 9000 section 9)
            super().receive_datagram(data, addr, now)
            self._stay_on(used, now)

    def _forget_others(self) -> None:
        del self._network_paths[1:]
        self._migrating = None

    def _stay_on(self, used: QuicNetworkPath, now: float) -> None:
        """Undo aioquic's move to another path, unless that path is validated."""
        paths = self._network_paths
        if paths[0] is not used:
            self._migrating = paths[0]
            paths.remove(used)
            paths.insert(0, used)
        migrating = self._migrating
        if migrating is not None and migrating.is_validated:
            paths.remove(migrating)
            paths.insert(0, migrating)
            self._forget_others()
            self.path_changed(now, lost=True)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """Datagrams with their addresses, at `now` seconds of the caller's clock."""
        paths = self._network_paths[:]
        if not (paths[1:] or self._is_challenged()):
            return super().datagrams_to_send(now)
        # The network moved the client, so the connection id may go along (RFC 9000 section 9.5).
        # aioquic would use up another connection id for each address.
        for path in paths:
            path.peer_cid = self._peer_cid
        self._limit_challenges(paths[1:], now)
        datagrams = self._send_probing_frames(paths[0], now) if self._is_challenged() else []
        datagrams += super().datagrams_to_send(now)
        for path in paths:
            path.peer_cid = None
        return datagrams

    def _limit_challenges(self, others: list[QuicNetworkPath], now: float) -> None:
        """Let aioquic challenge one of the addresses, if it is time; each newer packet that came
        from there has it challenged again."""
        for path in others:
            if not (path.is_validated or path.local_challenge_sent):
                path.local_challenge_sent = now < self._challenge_at
                if not path.local_challenge_sent:
                    self._challenge_at = now + CHALLENGE_INTERVAL

    def _is_challenged(self) -> bool:
        """Whether to answer a PATH_CHALLENGE on the path in use, whatever the congestion window.

        A moved client gets no acknowledgements, which would open its window, until it answers.
        """
        return bool(
            self._handshake_confirmed
            and self._network_paths
            and self._network_paths[0].remote_challenges
        )

    def name_path(self, path: Hashable) -> None:
        """Say which path packets take, before any path_changed()."""
        self._loss.name_path(path)

    def path_changed(self, now: float, *, path: Hashable = None, lost: bool = False) -> None:
        """Forget what was learnt about the old path: this side sends on another one from now on.

        Congestion window, RTT and PTO start afresh (RFC 9000 section 9.4) and a probe goes out at
        once. Not for a planned move to a path that is known to be alive and slower.

        :param path: a name for the new path. BBR starts with what it knew of it, if it did.
        :param lost: the old path was silent: what was sent on it and is not acknowledged goes out
            again at once, rather than a round trip later when the probe is acknowledged.
        """
        self._loss.change_path(now, path=path, lost=lost)
        self._probe_pending = True
