"""A fleet's certificate authority, and the keys it issues.

::

    FOLDER/authority.pem  authority-key.pem         made once; the key stays where it is
    FOLDER/NAME/key.pem  cert.pem  authority.pem    what a machine gets: copy the folder there

All keys are ECDSA on P-256, signatures ECDSA with SHA-256. A certificate's common name is the device's
name, or ``workstation`` for machines that give orders; it serves both ends of a connection.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from planner.errors import DocumentError, InputError, StorageError
from planner.fleet import Device
from runtime.credentials import AUTHORITY, CERTIFICATE, KEY, WORKSTATION, read_certificate, read_key

AUTHORITY_KEY = "authority-key.pem"
AUTHORITY_DAYS, ISSUED_DAYS = 3650, 365
# Clocks of a fleet differ; a certificate made now must be valid on a machine that is behind.
_BACKDATED = timedelta(hours=1)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MAX_NAME = 64  # of an X.509 name


def make_authority(
    folder: Path, fleet: str, days: int = AUTHORITY_DAYS, now: datetime | None = None
) -> datetime:
    """Make the authority of ``fleet`` in ``folder`` as of ``now`` (None: the clock); until when it is valid.

    Raises ``InputError`` where there is one, ``StorageError`` where it cannot be written.
    """
    _check_name("fleet", fleet)
    for name in (AUTHORITY, AUTHORITY_KEY):
        if (folder / name).exists():
            raise InputError(f"{folder / name} exists, and nothing is overwritten", "choose another folder")
    key, now = ec.generate_private_key(ec.SECP256R1()), now or datetime.now(timezone.utc)
    subject = _subject(f"authority of {fleet}"[:_MAX_NAME], fleet)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(subject, key, now, now + timedelta(days=days))
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(own, critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())

    def write() -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder / AUTHORITY_KEY, _private(key), 0o600)
        _write(folder / AUTHORITY, _public(certificate), 0o644)

    _storing(folder, write)
    return certificate.not_valid_after_utc


def issue(
    folder: Path,
    name: str,
    output: Path,
    *,
    addresses: Sequence[str] = (),
    workstation: bool = False,
    days: int = ISSUED_DAYS,
    now: datetime | None = None,
) -> datetime:
    """Make the keys of a machine in ``output``/``name``, signed by the authority in ``folder``.

    ``addresses``: IP addresses and host names under which others connect to it. ``workstation``: it may
    give orders. Returns until when they are valid, which is no longer than the authority is. Raises
    ``InputError`` for a name, address or authority that cannot be used, and where such keys exist.
    """
    _check_name("device", name)
    if name == WORKSTATION and not workstation:
        raise InputError(f"the name {name} stands for machines that give orders", "add --workstation")
    target = output / name
    if target.exists():
        remedy = "move it away, or choose another folder with -o"
        raise InputError(f"{target} exists, and nothing is overwritten", remedy)
    authority = read_certificate(folder / AUTHORITY)
    signer = read_key(folder / AUTHORITY_KEY)
    if signer.public_key() != authority.public_key():
        problem = f"does not belong to {AUTHORITY} beside it"
        raise DocumentError(folder / AUTHORITY_KEY, "", problem, "restore both from one backup")
    now = now or datetime.now(timezone.utc)
    if authority.not_valid_after_utc <= now:
        problem = f"expired on {authority.not_valid_after_utc:%Y-%m-%d}"
        raise DocumentError(folder / AUTHORITY, "", problem, "make a new one: edgecut keys init")

    key = ec.generate_private_key(ec.SECP256R1())
    fleet = authority.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    common = WORKSTATION if workstation else name
    subject = _subject(common, str(fleet[0].value) if fleet else "", name)
    end = min(now + timedelta(days=days), authority.not_valid_after_utc)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    names = [_address(each) for each in dict.fromkeys((*_LOOPBACK, *addresses))]
    public = signer.public_key()
    certificate = (
        _builder(subject, key, now, end)
        .issuer_name(authority.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(signer, hashes.SHA256())
    )

    def write() -> None:
        output.mkdir(parents=True, exist_ok=True)
        # Whole or not at all; a folder of this kind is its owner's alone.
        making = Path(tempfile.mkdtemp(dir=output, prefix=f".{name}."))
        try:
            _write(making / KEY, _private(key), 0o600)
            _write(making / CERTIFICATE, _public(certificate), 0o644)
            _write(making / AUTHORITY, _public(authority), 0o644)
            making.rename(target)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise

    _storing(target, write)
    return end


def _check_name(kind: str, name: str) -> None:
    try:
        Device(name)
    except ValueError as error:
        raise InputError(str(error).replace("device", kind, 1)) from None
    if not name.isascii() or len(name) > _MAX_NAME or name.startswith("."):
        problem = f"{kind} name {name!r} cannot stand in a certificate"
        raise InputError(problem, f"use at most {_MAX_NAME} ASCII letters, digits, '-', '_' and '.'")


def _address(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    labels = text.split(".")
    plain = all(each and len(each) < 64 and each.strip("-") == each for each in labels)
    if not plain or not text.replace(".", "").replace("-", "").isalnum() or not text.isascii():
        raise InputError(
            f"--address {text!r} is neither an IP address nor a host name",
            "write what stands in tls/HOST:PORT, such as 192.168.1.5 or nano.local",
        )
    return x509.DNSName(text)


def _subject(common: str, fleet: str, name: str = "") -> x509.Name:
    parts = {
        NameOID.COMMON_NAME: common,
        NameOID.ORGANIZATION_NAME: fleet,
        NameOID.ORGANIZATIONAL_UNIT_NAME: name,
    }
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts.items() if text])


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(end)
    )


def _usage(**wanted: bool) -> x509.KeyUsage:
    kinds = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{kind: wanted.get(kind, False) for kind in kinds})


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(file: Path, data: bytes, mode: int) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)


def _storing(place: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except FileExistsError as error:
        raise InputError(f"{error.filename} exists, and nothing is overwritten") from None
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"cannot write {place}: {reason}", "free space or choose another path") from error
