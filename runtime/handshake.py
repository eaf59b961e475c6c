"""Why a connection is refused: a handshake with Python's own TLS, which tells what Zenoh keeps to its log.

The peer judges our certificate after its own part of the handshake is done (TLS 1.3), so the first bytes it
sends afterwards decide: an alert, or the session tickets that a satisfied server hands out.
"""

from __future__ import annotations

import socket
import ssl
import time

from planner.errors import TransportError
from planner.fleet import check_address
from runtime.credentials import AUTHORITY, CERTIFICATE, KEY, Credentials

HANDSHAKE_TIMEOUT_S = 5.0
VERDICT_TIMEOUT_S = 1.0
_EXPIRED, _TOO_EARLY, _NAME, _ADDRESS = 10, 9, 62, 64  # X509_V_ERR_... of OpenSSL
_READ_BYTES = 1 << 14

# What the peer's alerts say of our certificate.
_ALERTS = {
    "UNKNOWN_CA": "it believes another authority than the one that issued these keys",
    "DECRYPT_ERROR": "it believes another authority than the one that issued these keys",
    "CERTIFICATE_EXPIRED": "by its clock these keys are expired or not yet valid",
    "CERTIFICATE_REQUIRED": "it takes no connection without keys",
    "BAD_CERTIFICATE": "it does not accept the certificate of these keys",
    "CERTIFICATE_UNKNOWN": "it does not accept the certificate of these keys",
}


def check_peer(credentials: Credentials, address: str, expected: str) -> None:
    """Connect to ``tls/HOST:PORT`` and hang up. Raises ``TransportError`` with the reason of a refusal.

    ``expected``: the common name that the peer's certificate must have. Nobody there is no refusal: a peer
    may still be starting.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(credentials.file(AUTHORITY))
    context.load_cert_chain(credentials.file(CERTIFICATE), credentials.file(KEY))
    try:
        subject = _handshake(context, address)
    except ssl.SSLCertVerificationError as error:
        raise TransportError(*_theirs(error, address, expected)) from None
    except ssl.SSLError as error:
        raise TransportError(*_ours(error, address, credentials)) from None
    except TimeoutError:
        problem = f"{address} takes connections, but does not finish a TLS handshake"
        raise TransportError(
            problem, "see whether that agent listens at tls/, and whether it hangs"
        ) from None
    except OSError:
        return
    if subject != expected:
        raise TransportError(
            f"{address} has the keys of {subject or 'nobody'}, not of {expected}",
            "correct the address in the fleet file, or the keys of that agent",
        )


def takes_keys(address: str) -> bool:
    """Whether whoever answers at the address takes only connections with keys."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _handshake(context, address)
    except ssl.SSLError as error:
        return "CERTIFICATE_REQUIRED" in str(error.reason)
    except OSError:
        pass
    return False


def _handshake(context: ssl.SSLContext, address: str) -> str:
    """The common name of the peer, once it has accepted us; empty where it was not asked for."""
    host, port = check_address(address), int(address.rpartition(":")[2])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=host)
    with socket.create_connection((host, port), HANDSHAKE_TIMEOUT_S) as connection:
        deadline = time.monotonic() + HANDSHAKE_TIMEOUT_S
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                _take(connection, incoming)
            except ssl.SSLError:
                connection.sendall(outgoing.read())  # our alert tells the peer why
                raise
        connection.sendall(outgoing.read())
        connection.settimeout(VERDICT_TIMEOUT_S)
        try:
            _take(connection, incoming)
            tls.read(1)
        except (TimeoutError, ssl.SSLWantReadError):
            pass  # tickets, or nothing against us
        certificate = tls.getpeercert() or {}
    names = dict(part[0] for part in certificate.get("subject", ()))  # type: ignore[misc]
    return str(names.get("commonName", ""))


def _take(connection: socket.socket, incoming: ssl.MemoryBIO) -> None:
    data = connection.recv(_READ_BYTES)
    if data:
        incoming.write(data)
    else:
        incoming.write_eof()


def _theirs(error: ssl.SSLCertVerificationError, address: str, expected: str) -> tuple[str, str]:
    """What is wrong with the peer's certificate, and what to do."""
    again = f"edgecut keys issue {expected}"
    host = check_address(address)
    if error.verify_code in (_NAME, _ADDRESS):
        problem = f"{address}: the certificate there is for other addresses than {host}"
        return problem, f"{again} --address {host}; or use an address that it is for"
    if error.verify_code == _EXPIRED:
        return (
            f"{address}: the certificate there is expired, by this machine's clock",
            f"{again}, or set the clock",
        )
    if error.verify_code == _TOO_EARLY:
        return f"{address}: the certificate there is not yet valid, by this machine's clock", "set the clock"
    return (
        f"{address}: the certificate there was issued by another authority ({error.verify_message})",
        f"give both machines keys of one authority: {again}",
    )


def _ours(error: ssl.SSLError, address: str, credentials: Credentials) -> tuple[str, str]:
    """Why the peer refused this machine, and what to do."""
    reason = str(error.reason or "")
    for name, meaning in _ALERTS.items():
        if reason.endswith(name):
            remedy = "give both machines keys of one authority (edgecut keys issue), and set their clocks"
            return f"{address} refuses the keys in {credentials.folder}: {meaning}", remedy
    problem = f"{address} does not answer in TLS ({reason or error})"
    return problem, "see whether that agent listens at tls/, and with keys"
