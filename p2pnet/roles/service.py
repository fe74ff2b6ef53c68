"""What the three role services share: start-up errors in plain words, reload on SIGHUP."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from p2pnet import reports
from p2pnet.config.cores import load_credentials
from p2pnet.config.roles import RoleConfig
from p2pnet.config.setting import ConfigError
from p2pnet.errors import cannot_listen
from p2pnet.identity import CredentialsError
from p2pnet.net.clock import use_elapsed_time
from p2pnet.node.base import Node


class StartError(SystemExit, Exception):
    """The process cannot do its work.

    As a SystemExit it ends the process with its text instead of a traceback. Of an Exception only
    does twistd tell the process that started it as a daemon, which waits for ever otherwise.
    """


def endpoint_problem(where: str, text: str, error: object) -> str:
    """What is wrong with the endpoint `text` that is written at `where`, both named."""
    reason = cannot_listen(error) if type(error) is CannotListenError else str(error)
    return f"{where}: {reason}" if text in reason else f"{where}: {text!r}: {reason}"


@contextmanager
def endpoint_errors(where: str, text: str) -> Iterator[None]:
    """Parse the endpoint `text` that is written at `where` inside. Raises ConfigError."""
    try:
        yield
    except (TypeError, ValueError, OSError, CredentialsError) as error:
        raise ConfigError(endpoint_problem(where, text, error)) from None


class RoleService(MultiService):
    """A role as twistd runs it: a node, and what a subclass sets around it."""

    log = Logger()

    def __init__(self, reactor: Any, config: RoleConfig, node: Node) -> None:
        super().__init__()
        self.reactor = reactor
        self.config = config
        self.node = node
        node.setServiceParent(self)
        self._previous_handler: Any = None
        self._is_started = False

    def privilegedStartService(self) -> None:
        """Nothing: what listens starts after the node, whose event log then has its report."""

    def startService(self) -> None:
        """Start, or end the process with one line that says why not."""
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
                pass  # not in the main thread: whoever runs us there reloads by calling reload()

    def fail(self, problem: str) -> None:
        """End the process, which cannot do its work: log one line and stop the reactor.

        Before the start is over raises StartError instead.
        """
        line = f"p2p-{self.config.table}: {problem}"
        if not self._is_started:
            raise StartError(line)
        self.log.critical("{line}", line=line)
        self.reactor.callWhenRunning(self.reactor.stop)

    def stopService(self) -> Any:
        """Stop everything."""
        if self._previous_handler is not None:
            signal.signal(signal.SIGHUP, self._previous_handler)
            self._previous_handler = None
        return super().stopService()

    def _on_hangup(self, _signal: int, _frame: Any) -> None:
        self.reactor.callFromThread(self.reload)

    def reload(self) -> None:
        """Read certificate, key and CA again; if they are bad, the old ones stay in use."""
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
