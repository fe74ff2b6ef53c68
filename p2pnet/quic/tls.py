"""The TLS handshake of QUIC, made to demand a certificate and to judge it."""

from collections.abc import Callable

from aioquic import tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from cryptography import x509

from p2pnet.identity import Identity, IdentityError, Problem

Verify = Callable[[x509.Certificate, list[x509.Certificate]], Identity]


class AlertCertificateRequired(tls.Alert):
    """The client sent no certificate (RFC 8446 section 6.2)."""

    description = tls.AlertDescription.certificate_required


class StrictContext(tls.Context):
    """A TLS context that takes nobody's word: possession and identity are both checked."""

    verify: Verify
    peer: Identity | None = None

    def _set_peer_certificate(self, certificate: tls.Certificate) -> None:
        # aioquic expects ValueError alone, but a certificate can also fail to parse otherwise.
        try:
            super()._set_peer_certificate(certificate)
        except tls.Alert:
            raise
        except Exception as error:
            raise tls.AlertBadCertificate("certificate cannot be parsed") from error

    def _server_handle_certificate(self, input_buf: Buffer) -> None:
        super()._server_handle_certificate(input_buf)
        if self._peer_certificate is None:
            raise AlertCertificateRequired("this realm demands a client certificate")

    def _server_handle_certificate_verify(self, input_buf: Buffer) -> None:
        super()._server_handle_certificate_verify(input_buf)
        self._judge_peer()

    def _client_handle_certificate_verify(self, input_buf: Buffer) -> None:
        super()._client_handle_certificate_verify(input_buf)
        self._judge_peer()

    def _judge_peer(self) -> None:
        assert self._peer_certificate is not None
        try:
            self.peer = self.verify(self._peer_certificate, self._peer_certificate_chain)
        except IdentityError as error:
            if error.problem in (Problem.EXPIRED, Problem.NOT_YET_VALID):
                raise tls.AlertCertificateExpired(str(error)) from None
            raise tls.AlertBadCertificate(str(error)) from None
