"""The keys of one machine, read and checked before anything rests on them.

::

    NAME/key.pem         its private key, readable by its owner alone
    NAME/cert.pem        its certificate: common name, addresses, until when
    NAME/authority.pem   whose certificates it believes

``edgecut keys issue`` makes such a folder; see ``runtime.authority``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import DocumentError, InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

AUTHORITY, CERTIFICATE, KEY = "authority.pem", "cert.pem", "key.pem"
# The common name of every machine that gives orders, so that a rule can name it: Zenoh compares whole names.
WORKSTATION = "workstation"
_REMEDY = "edgecut keys issue makes such a folder; copy it here whole"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Credentials:
    """Checked keys. ``common_name``: the device's name, or ``WORKSTATION``.

    ``devices``: those that this process deals with, None where it cannot know; see ``runtime.access``.
    """

    folder: Path
    common_name: str
    fleet: str
    valid_until: datetime
    devices: frozenset[str] | None = None

    @classmethod
    def load(cls, folder: Path, now: datetime | None = None) -> Credentials:
        """The keys in ``folder``, checked as of ``now`` (None: this machine's clock).

        Raises ``InputError`` (``DocumentError``) for keys that lack a file, can be read by others, are
        expired or not yet valid, are of another authority, or do not belong together.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.x509 import BasicConstraints, ExtensionNotFound
        from cryptography.x509.oid import NameOID

        now = now or datetime.now(timezone.utc)
        certificate = read_certificate(folder / CERTIFICATE)
        authority = read_certificate(folder / AUTHORITY)
        key = read_key(folder / KEY)
        try:
            plain = not authority.extensions.get_extension_for_class(BasicConstraints).value.ca
        except (ExtensionNotFound, ValueError):
            plain = True
        if plain:
            raise DocumentError(folder / AUTHORITY, "", "is no authority's certificate", _REMEDY)
        try:
            certificate.verify_directly_issued_by(authority)
        except (InvalidSignature, ValueError, TypeError):
            problem = f"was not issued by the authority in {AUTHORITY} beside it"
            raise DocumentError(folder / CERTIFICATE, "", problem, _REMEDY) from None
        if key.public_key() != certificate.public_key():
            problem = f"does not belong to {CERTIFICATE} beside it"
            raise DocumentError(folder / KEY, "", problem, _REMEDY)
        for file, each in ((AUTHORITY, authority), (CERTIFICATE, certificate)):
            _check_dates(folder / file, each, now)

        def named(oid: object) -> str:
            found = certificate.subject.get_attributes_for_oid(oid)  # type: ignore[arg-type]
            return str(found[0].value) if found else ""

        common = named(NameOID.COMMON_NAME)
        if not common:
            raise DocumentError(folder / CERTIFICATE, "", "has no common name", _REMEDY)
        until = min(certificate.not_valid_after_utc, authority.not_valid_after_utc)
        return cls(folder, common, named(NameOID.ORGANIZATION_NAME), until)

    @property
    def orders(self) -> bool:
        """Whether they may give orders to agents."""
        return self.common_name == WORKSTATION

    def among(self, devices: Collection[str]) -> Credentials:
        """The same keys of a process that deals with these devices only."""
        return replace(self, devices=frozenset(devices))

    def check_device(self, name: str) -> None:
        """Refuse (``InputError``) keys that are not those of device ``name``."""
        if self.common_name != name:
            whose = "a workstation" if self.orders else f"device {self.common_name}"
            raise InputError(
                f"the keys in {self.folder} are those of {whose}, not of device {name}",
                f"edgecut keys issue {name} makes them",
            )

    def check_orders(self) -> None:
        """Refuse (``InputError``) keys that agents would not take orders from."""
        if not self.orders:
            raise InputError(
                f"the keys in {self.folder} are those of device {self.common_name}, which gives no orders",
                "edgecut keys issue NAME --workstation makes keys that do",
            )

    def file(self, name: str) -> str:
        """The path of one of its files, as Zenoh and ssl take it."""
        return str((self.folder / name).absolute())


def read_certificate(file: Path) -> Certificate:
    """The certificate in a PEM file. Raises ``DocumentError``."""
    from cryptography.x509 import load_pem_x509_certificate

    data = _read(file)
    try:
        return load_pem_x509_certificate(data)
    except ValueError:
        raise DocumentError(file, "", "is no certificate in PEM form", _REMEDY) from None


def read_key(file: Path) -> EllipticCurvePrivateKey:
    """The private key in a PEM file that its owner alone can read. Raises ``DocumentError``."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(file)
    mode = stat.S_IMODE(file.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise DocumentError(file, "", f"can be read by others (mode {mode:04o})", f"chmod 600 {file}")
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise DocumentError(file, "", "is no unencrypted private key in PEM form", _REMEDY) from None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise DocumentError(file, "", "is no key on an elliptic curve", _REMEDY)
    return key


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_MAX_BYTES)
    except FileNotFoundError:
        raise DocumentError(file, "", "no such file", _REMEDY) from None
    except OSError as error:
        raise DocumentError(file, "", f"cannot be read: {error.strerror or error}") from None


def _check_dates(file: Path, certificate: Certificate, now: datetime) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    clock = f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC"
    if now > end:
        remedy = "issue new ones: edgecut keys issue; or set the clock"
        raise DocumentError(file, "", f"expired on {end:%Y-%m-%d %H:%M} UTC; {clock}", remedy)
    if now < start:
        remedy = "set the clock of this machine, or of the one that issued it"
        raise DocumentError(file, "", f"is not valid before {start:%Y-%m-%d %H:%M} UTC; {clock}", remedy)
