"""Members of a realm that attack their Intermediate and each other, all at once.

::

    python -m bench.attack.members CERTS 127.0.0.1:4433 SERVICE --duty 0.3

Eve keeps connections, and requests and ends sessions with an honest connector without end. Evil is
a connector that answers every offer and never shakes hands; mallory requests it without end. The
program prints "ready", attacks until SIGTERM, and then prints what it did as one JSON object.
"""

import argparse
import itertools
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from bench.attack.flood import is_on
from bench.crowd import AT_A_TIME, Crowd, load_credentials
from p2pnet.quic.connection import Connection
from p2pnet.wire import messages
from p2pnet.wire.address import Address, parse_host_port
from p2pnet.wire.encoding import Message

REQUESTS = 8  # of a turn and connection
MAX_UNSENT = 1 << 16  # bytes of a connection
EVE, MALLORY, EVIL = "eve", "mallory", "evil"


class Members:
    """Crowds of attackers at an Intermediate.

    :ivar sent: requests so far.
    """

    def __init__(self, certs: Path, address: Address, service: str) -> None:
        self.sent = 0
        self._service = service
        self._numbers = itertools.count()
        self._crowds = {
            name: Crowd(load_credentials(certs, name), address, self._take)
            for name in (EVE, MALLORY, EVIL)
        }

    def run(self, duty: float) -> dict[str, float]:
        """Attack until KeyboardInterrupt, in a part of the time; returns what was done."""
        began, used = time.monotonic(), time.process_time()
        with suppress(KeyboardInterrupt):
            self._attack(duty)
        elapsed, used = time.monotonic() - began, time.process_time() - used
        return {"seconds": elapsed, "cpu": used, "sent": self.sent}

    def _attack(self, duty: float) -> None:
        while True:
            for name, crowd in self._crowds.items():
                if not crowd.connections:
                    crowd.connect(AT_A_TIME if name == EVE else 1)
                    if name == EVIL and crowd.connections:
                        crowd.send(crowd.connections[0], messages.Register((self._service,)))
                crowd.turn()
            if is_on(duty, time.monotonic()):
                self._ask(EVE, "office")
                self._ask(MALLORY, EVIL)

    def _ask(self, name: str, connector: str) -> None:
        crowd = self._crowds[name]
        for connection in crowd.connections:
            if connection.unsent(messages.CONTROL_STREAM) > MAX_UNSENT:
                continue
            for number in itertools.islice(self._numbers, REQUESTS):
                session = os.urandom(16)
                request = messages.SessionRequest(number, session, self._service, connector)
                crowd.send(connection, request)
                if name == EVE:
                    crowd.send(connection, messages.SessionClosed(session, 0, "x" * 200))
                self.sent += 1

    def _take(self, connection: Connection, message: Message) -> None:
        if isinstance(message, messages.SessionOffer):
            self._crowds[EVIL].send(connection, messages.SessionAnswer(message.session))


def main() -> None:
    """Attack until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("certs", type=Path)
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("service")
    parser.add_argument("--duty", type=float, default=1.0, help="part of the time")
    options = parser.parse_args()
    members = Members(options.certs, parse_host_port(options.address), options.service)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("ready", os.getpid(), flush=True)
    print(json.dumps(members.run(options.duty)), flush=True)


if __name__ == "__main__":
    main()
