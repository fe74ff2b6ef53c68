"""The base of the three role services: start-up errors in one line, reload on SIGHUP."""

import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from p2pnet import reports
from p2pnet.config.cores import load_credentials
from p2pnet.config.roles import RoleConfig
from p2pnet.config.setting import ConfigError
from p2pnet.errors import cannot_listen
from p2pnet.identity import CredentialsError
from p2pnet.net.clock import use_elapsed_time
from p2pnet.net.descriptors import raise_limit
from p2pnet.node.base import Node


class StartError(SystemExit, Exception):
    """The process cannot start; the text says why.

    A SystemExit ends the process with its text instead of a traceback. Only of an Exception does a
    daemonized twistd inform the process that started it and that would wait for ever otherwise.
    """


def endpoint_problem(where: str, text: str, error: object) -> str:
    """A line about an error of the endpoint `text`, which stands at `where` (file, line, key)."""
    reason = cannot_listen(error) if type(error) is CannotListenError else str(error)
    return f"{where}: {reason}" if text in reason else f"{where}: {text!r}: {reason}"


@contextmanager
def endpoint_errors(where: str, text: str) -> Iterator[None]:
    """Raise ConfigError for an error of the endpoint `text`, which stands at `where`."""
    try:
        yield
    except (TypeError, ValueError, OSError, CredentialsError) as error:
        raise ConfigError(endpoint_problem(where, text, error)) from None


class RoleService(MultiService):
    """A role as a service of twistd: a node, and the services that a subclass adds.

    :ivar descriptors: file descriptors that this process may have open.
    """

    log = Logger()

    def __init__(self, reactor: Any, config: RoleConfig, node: Node) -> None:
        super().__init__()
        self.reactor = reactor
        self.config = config
        self.node = node
        self.descriptors = raise_limit()
        node.setServiceParent(self)
        self._previous_handler: Any = None
        self._is_started = False

    def privilegedStartService(self) -> None:
        """Do nothing: listeners start after the node, whose event log then has their reports."""

    def startService(self) -> None:
        """Start the node and the other services. Raises StartError if one of them cannot start."""
        use_elapsed_time(self.reactor)
        try:
            super().startService()
        except CannotListenError as error:
            self.fail(cannot_listen(error))
        except OSError as error:
            self.fail(str(error))
        self._is_started = True
        if hasattr(signal, "SIGHUP"):
            try:
                self._previous_handler = signal.signal(signal.SIGHUP, self._on_hangup)
            except ValueError:
                pass  # not in the main thread, where a program calls reload() itself

    def fail(self, problem: str) -> None:
        """End the process, which cannot do its work: log one line and stop the reactor.

        Raises StartError instead while the service starts.
        """
        line = f"p2p-{self.config.table}: {problem}"
        if not self._is_started:
            raise StartError(line)
        self.log.critical("{line}", line=line)
        self.reactor.callWhenRunning(self.reactor.stop)

    @inlineCallbacks
    def stopService(self) -> Generator[Any, Any, None]:
        """Stop the node and the other services, and restore the handler of SIGHUP.

        Fires once all of them are stopped and the connections of their streams are reset.
        """
        if self._previous_handler is not None:
            signal.signal(signal.SIGHUP, self._previous_handler)
            self._previous_handler = None
        yield super().stopService()
        # A connection is reset in the turn after abortConnection(). The end of the reactor would
        # close it properly, and its host would take a part for the whole.
        yield deferLater(self.reactor, 0.0)

    def _on_hangup(self, _signal: int, _frame: Any) -> None:
        self.reactor.callFromThread(self.reload)

    def reload(self) -> None:
        """Load certificate, key and CA again, or keep the old ones if the files are unusable.

        Both outcomes are reported.
        """
        try:
            credentials = load_credentials(self.config)
        except CredentialsError as error:
            self.node.report(reports.CertificateReloadFailed(str(error)))
            return
        self.node.use_credentials(credentials)
        identity = credentials.identity
        self.node.report(
            reports.CertificateReloaded(str(identity), identity.not_valid_after.isoformat())
        )
