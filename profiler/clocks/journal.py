"""What a session found, on disk before it changes anything, so that the next start can undo it.

A journal is void after a reboot, which restores every clock, and its owner's for as long as that lives.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from planner.documents import document, read_document, write_document
from planner.errors import DocumentError, EdgecutError, MismatchError, StorageError
from profiler.clocks.domain import Domain, GoneError, Setting
from profiler.clocks.nvml import NvmlDomain
from profiler.clocks.sysfs import SysfsDomain

try:
    import fcntl
except ImportError:  # not on Windows: two sessions at once are then noticed by the journal alone
    fcntl = None  # type: ignore[assignment]

SCHEMA = "edgecut.clock-journal/1"
_SUFFIX = ".clock.json"
# Finds this edgecut, and the journals of this user, as root.
RESTORE = 'sudo -E env PATH="$PATH" edgecut clocks restore'


@document()
class Record:
    """``root``: the file system the settings lie in. ``started``: clock ticks from boot to the process's start."""

    root: str
    boot_id: str
    pid: int
    started: int
    settings: tuple[Setting, ...]

    def __post_init__(self) -> None:
        for setting in self.settings:
            domain_of(setting.where, Path(self.root))

    @property
    def live(self) -> bool:
        """Whether the process that wrote it still runs."""
        return self.started > 0 and _started(self.pid) == self.started

    @property
    def void(self) -> bool:
        """Whether the machine was started anew since."""
        return self.boot_id != _boot_id(Path(self.root))


def state_folder() -> Path:
    """``$XDG_STATE_HOME/edgecut/clocks``."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "edgecut" / "clocks"


def domain_of(where: str, root: Path) -> Domain:
    """The domain of this name. ``ValueError`` for anything but a clock: a journal can name nothing else."""
    return NvmlDomain(where, root) if where.startswith("GPU-") else SysfsDomain(root, where)


def journal_file(folder: Path, domains: Sequence[Domain]) -> Path:
    """The journal of a session over these domains: another one with the same first domain is refused."""
    return folder / (domains[0].where.rpartition("/")[2] + _SUFFIX)


def write_record(file: Path, root: Path, settings: Sequence[Setting]) -> None:
    """On disk when this returns. Raises ``StorageError``."""
    record = Record(str(root), _boot_id(root), os.getpid(), _started(os.getpid()), tuple(settings))
    write_document(record, file, SCHEMA)


@contextlib.contextmanager
def locked(domains: Sequence[Domain], folder: Path) -> Iterator[None]:
    """Hold these domains for this process; ``MismatchError`` if another session does.

    The kernel lets go of the locks however the process ends.
    """
    with contextlib.ExitStack() as stack:
        for domain in domains:
            stack.enter_context(_lock(domain, folder))
        yield


@contextlib.contextmanager
def _lock(domain: Domain, folder: Path) -> Iterator[None]:
    file = domain.lock_file(folder)
    handle = -1
    if fcntl is not None:
        with contextlib.suppress(OSError):  # it vanished, or cannot be opened: the journal still tells
            handle = (
                os.open(file, os.O_RDONLY) if file.is_dir() else os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            )
    try:
        if handle >= 0:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                problem = f"another session holds the clock of {domain.where.rpartition('/')[2]}"
                raise MismatchError(problem, "wait for it to end") from None
            except OSError:  # a file system without locks
                pass
        yield
    finally:
        if handle >= 0:
            os.close(handle)


def leftovers(folder: Path, root: Path) -> Iterator[tuple[Path, Record | DocumentError]]:
    """Every journal about ``root``, or what is wrong with it."""
    for file in sorted(folder.glob("*" + _SUFFIX)):
        try:
            record = read_document(Record, file, SCHEMA)
        except DocumentError as error:
            yield file, error
            continue
        if record.root == str(root):
            yield file, record


def recover(folder: Path | None = None, root: Path = Path("/")) -> list[str]:
    """Restore what sessions left that were killed; what was done or could not be, in words.

    Raises nothing: sessions that live are named and left alone.
    """
    folder, said = folder or state_folder(), []
    for file, record in leftovers(folder, root):
        if isinstance(record, DocumentError):
            aside = file.with_name(file.name + ".damaged")
            with contextlib.suppress(OSError):
                file.replace(aside)
            said.append(
                f"a clock journal cannot be read, so a clock may still be set: {record.message} "
                f"(kept as {aside}; see `edgecut clocks`)"
            )
        elif record.void:
            with contextlib.suppress(OSError):
                file.unlink()
        elif record.live:
            said.append(f"process {record.pid} holds the clock of {_names(record.settings)}")
        else:
            said += _restore_left(file, record, folder)
    return said


def pending(folder: Path | None = None, root: Path = Path("/")) -> list[str]:
    """What ``recover`` would find, in words; changes nothing."""
    said = []
    for file, record in leftovers(folder or state_folder(), root):
        if isinstance(record, DocumentError):
            said.append(f"a clock journal cannot be read: {record.message}")
        elif record.live:
            said.append(f"process {record.pid} holds the clock of {_names(record.settings)}")
        elif not record.void:
            said.append(
                f"a killed session left {_names(record.settings)} set ({file}): edgecut clocks restore"
            )
    return said


def _restore_left(file: Path, record: Record, folder: Path) -> list[str]:
    root = Path(record.root)
    domains = [domain_of(setting.where, root) for setting in record.settings]
    try:
        with locked(domains, folder):
            if read_document(Record, file, SCHEMA) != record:
                return []  # another start was quicker
            left = restore(record.settings, root)
            settle(file, root, tuple(left))
    except MismatchError as error:
        return [error.message]
    except DocumentError:
        return []
    except StorageError as error:
        return [f"the clocks are restored, but not their journal: {error.message}"]
    done = [setting for setting in record.settings if setting not in left]
    said = [f"restored the clock of {_names(done)}, which a killed session had left set"] if done else []
    return said + [f"not restored: {problem}; try: {RESTORE}" for problem in left.values()]


def restore(settings: Sequence[Setting], root: Path) -> dict[Setting, str]:
    """Set every domain back; those that refused, with the reason. A domain that is gone needs nothing."""
    left = {}
    for setting in settings:
        domain = domain_of(setting.where, root)
        try:
            domain.restore(setting)
        except GoneError:
            if isinstance(domain, SysfsDomain) and domain.folder.exists():
                left[setting] = f"{setting.where} is offline and keeps its limits"
        except EdgecutError as error:
            left[setting] = error.message
    return left


def settle(file: Path, root: Path, left: Sequence[Setting]) -> None:
    """Keep of a journal what could not be restored, or remove it. Raises ``StorageError``."""
    if left:
        write_document(Record(str(root), _boot_id(root), 0, 0, tuple(left)), file, SCHEMA)
        return
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove {file}: {error.strerror}", f"rm {file}") from None


def _names(settings: Sequence[Setting]) -> str:
    return ", ".join(setting.where.rpartition("/")[2] for setting in settings)


def _boot_id(root: Path) -> str:
    try:
        return (root / "proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 where there is none or no /proc.

    A number that is used again belongs to a process with another start.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    fields = text[text.rindex(")") + 1 :].split()  # the name before it may hold anything
    return 0 if fields[0] in "ZX" else int(fields[19])
