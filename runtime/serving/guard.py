"""Who may call: a token, and where there is none, nobody but this machine; checked before anything is read."""

from __future__ import annotations

import hmac
import ipaddress
import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import DocumentError, InputError
from planner.fleet import check_address, is_loopback
from runtime.credentials import CERTIFICATE, KEY
from runtime.security import Security

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_OPEN = {"/v2/health/live", "/v2/health/ready"}  # a probe holds no token
_LEAST_TOKEN = 16
_MAX_TOKEN_BYTES = 4096


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens, and who may call.

    ``loopback``: only this machine reaches it. ``certificate`` and ``key``: PEM files, None for plain HTTP.
    """

    host: str
    port: int
    loopback: bool = True
    certificate: Path | None = None
    key: Path | None = None
    token: bytes | None = None

    @classmethod
    def of(
        cls,
        address: str,
        certificate: Path | None = None,
        key: Path | None = None,
        token_file: Path | None = None,
        security: Security = Security(),
    ) -> Endpoint:
        """At HOST:PORT. Where other machines reach it, the fleet's keys stand in for a certificate.

        Raises ``InputError`` for an address that is none, files that cannot be used, and an address that other
        machines reach without both encryption and a token, unless ``security`` allows it.
        """
        try:
            host, port = check_address(f"tcp/{address}"), int(address.rpartition(":")[2])
        except ValueError:
            raise InputError(
                f"{address!r} is no address", "write HOST:PORT, such as 127.0.0.1:8000"
            ) from None
        inside, keys = is_loopback(f"tcp/{address}"), security.credentials
        if certificate is None and key is None and keys and not inside:
            certificate, key = Path(keys.file(CERTIFICATE)), Path(keys.file(KEY))
        if (certificate is None) != (key is None):
            raise InputError("a certificate and its key belong together", "pass --tls-cert and --tls-key")
        if certificate and key:
            _check_pair(certificate, key)
        token = read_token(token_file) if token_file else None
        if not inside and not security.insecure and (certificate is None or token is None):
            raise InputError(
                f"{address} can be reached by other machines, without {_lacking(certificate, token)}",
                "pass --tls-cert, --tls-key (or --keys) and --token-file; or reach 127.0.0.1 by "
                f"ssh -L {port}:127.0.0.1:{port}; or, on a network you trust, add --insecure",
            )
        return cls(host, port, inside, certificate, key, token)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.certificate else ''}://{host}:{self.port}"


def read_token(file: Path) -> bytes:
    """The token in a file that its owner alone can read. Raises ``InputError``."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        with file.open("rb") as stream:
            token = stream.read(_MAX_TOKEN_BYTES).strip()
    except OSError as error:
        raise DocumentError(file, "", f"cannot be read: {error.strerror or error}") from None
    if os.name == "posix" and mode & 0o077:
        raise DocumentError(file, "", f"can be read by others (mode {mode:04o})", f"chmod 600 {file}")
    if len(token) < _LEAST_TOKEN or not all(0x21 <= byte <= 0x7E for byte in token):
        problem = f"holds no token of at least {_LEAST_TOKEN} printable characters without spaces"
        raise DocumentError(file, "", problem, f"openssl rand -hex 32 > {file}")
    return token


class Guard:
    """ASGI middleware: who may call ``app``.

    With a ``token``, who sends it as a bearer; a probe of health needs none. Without, and on ``loopback``, who
    calls this machine by a name of its own: a page in a browser that was led here by another name does not.
    """

    def __init__(self, app: ASGIApp, token: bytes | None, loopback: bool) -> None:
        self._app, self._token, self._loopback = app, token, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import JSONResponse

        refusal = None
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if self._token is not None:
                if scope["path"] not in _OPEN and not self._known(headers.get(b"authorization", b"")):
                    challenge = {"WWW-Authenticate": "Bearer"}
                    refusal = JSONResponse({"error": "a bearer token is needed"}, 401, challenge)
            elif self._loopback and not _own(headers.get(b"host", b"localhost").decode("latin-1")):
                refusal = JSONResponse({"error": "this server answers to this machine's own name alone"}, 421)
        await (refusal or self._app)(scope, receive, send)

    def _known(self, given: bytes) -> bool:
        scheme, _, token = given.partition(b" ")
        assert self._token is not None
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


def _own(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _check_pair(certificate: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:  # of which ssl's errors are
        raise InputError(
            f"{certificate} and {key} are no certificate and its key: {error}",
            "both are PEM files, the key unencrypted",
        ) from None


def _lacking(certificate: Path | None, token: bytes | None) -> str:
    return " or ".join(name for name, have in (("encryption", certificate), ("token", token)) if not have)
