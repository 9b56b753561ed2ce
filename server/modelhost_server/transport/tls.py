"""Who the server is to its callers, and whom it trusts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the server's certificate chain, its key, and the authorities whose clients are let in (None: all)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.certificate, self.key, *([self.client_ca] if self.client_ca is not None else []))

    def context(self) -> ssl.SSLContext:
        """What they say, for OpenSSL. Other libraries would find out at the first handshake, if at all, what is wrong.

        Raises:
            OSError: a file cannot be read or is not what it should be, or the key is not the certificate's.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # An encrypted key must not ask for its password at a terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except OSError as error:
            raise OSError(f"TLS: {self.certificate} with {self.key}: {_reason(error)}") from None
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except OSError as error:
                raise OSError(f"TLS: {self.client_ca}: {_reason(error)}") from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _reason(error: OSError) -> str:
    # OpenSSL has no words for a file that holds no PEM.
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").replace("_", " ").lower()
    return error.strerror or str(error)
