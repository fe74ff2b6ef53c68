"""The errors of using a service, as the ConnectErrors that Twisted programs expect."""

import errno

from twisted.internet import error
from twisted.python.failure import Failure

from p2pnet.wire.codes import ErrorCode


class ServiceError(error.ConnectError):
    """Base of the errors of using a service. `str()` says for people why the service failed.

    :ivar code: the ErrorCode.
    :ivar reason: the text that came with the code, empty for none.
    """

    summary = "the service cannot be used"

    def __init__(self, code: ErrorCode, reason: str = "") -> None:
        super().__init__(string=reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.summary}: {self.reason}" if self.reason else self.summary


class UnknownService(ServiceError):
    """No connected Connector serves the service."""

    summary = "unknown service"


class NotAuthorized(ServiceError):
    """The Connector does not allow this agent to use the service."""

    summary = "not authorized"


class TargetRefused(ServiceError, error.ConnectionRefusedError):
    """The service's target refused the connection."""

    summary = "the service's target refused the connection"


class TargetUnreachable(ServiceError, error.NoRouteError):
    """The Connector cannot reach the service's target."""

    summary = "the service's target cannot be reached"


class OverLimit(ServiceError):
    """A limit of the Connector's or the Intermediate's configuration is reached."""

    summary = "over a limit"


class BadCertificate(ServiceError):
    """One end refused the other's certificate, or the certificate does not grant the service."""

    summary = "certificate refused"


class IntermediateUnreachable(ServiceError, error.TimeoutError):
    """The Agent could not reach any Intermediate in time."""

    summary = "no intermediate can be reached"


class SessionLost(ServiceError, error.ConnectionLost):
    """The end-to-end connection of the session is lost, or the node stops."""

    summary = "the session is lost"


class StreamBroken(ServiceError, error.ConnectionLost):
    """The other end reset the stream, as a TCP reset does."""

    summary = "the other end broke the stream off"


_BY_CODE: dict[ErrorCode, type[ServiceError]] = {
    ErrorCode.UNKNOWN_SERVICE: UnknownService,
    ErrorCode.NOT_AUTHORIZED: NotAuthorized,
    ErrorCode.TARGET_REFUSED: TargetRefused,
    ErrorCode.TARGET_UNREACHABLE: TargetUnreachable,
    ErrorCode.OVER_LIMIT: OverLimit,
    ErrorCode.NOT_GRANTED: BadCertificate,
    ErrorCode.WRONG_PEER: BadCertificate,
    ErrorCode.BAD_CERTIFICATE: BadCertificate,
    ErrorCode.UNREACHABLE: IntermediateUnreachable,
    ErrorCode.CANCELLED: StreamBroken,
    ErrorCode.PEER_LOST: SessionLost,
    ErrorCode.RESTARTED: SessionLost,
    ErrorCode.SHUTDOWN: SessionLost,
}


def cannot_listen(failed: error.CannotListenError) -> str:
    """A sentence for people about a port that cannot be opened: address, port, cause and remedy."""
    return (
        f"cannot listen on {failed.interface or 'any'} port {failed.port}: "
        f"{failed.socketError}; is another program using it?"
    )


class NodeCannotListen(error.CannotListenError):
    """The node of an endpoint string cannot open its UDP port.

    :ivar endpoint: the endpoint string.
    """

    def __init__(self, endpoint: str, cause: error.CannotListenError) -> None:
        super().__init__(cause.interface, cause.port, cause.socketError)
        self.endpoint = endpoint

    def __str__(self) -> str:
        return f"{self.endpoint}: {cannot_listen(self)}"


def error_for(code: int, reason: str = "") -> ServiceError:
    """The exception for the number of an ErrorCode; an unknown number is CANCELLED."""
    known = ErrorCode.of(code)
    return _BY_CODE.get(known, ServiceError)(known, reason)


OUT_OF_DESCRIPTORS = errno.EMFILE, errno.ENFILE


def code_for(failure: Failure) -> ErrorCode:
    """The ErrorCode for a failed connection to a target.

    OVER_LIMIT if this process or machine is out of file descriptors, else TARGET_REFUSED or
    TARGET_UNREACHABLE.
    """
    cause = getattr(failure.value, "socketError", failure.value)
    if getattr(cause, "errno", getattr(cause, "osError", None)) in OUT_OF_DESCRIPTORS:
        return ErrorCode.OVER_LIMIT
    if failure.check(error.ConnectionRefusedError) is not None:
        return ErrorCode.TARGET_REFUSED
    return ErrorCode.TARGET_UNREACHABLE
