"""The store of artifacts: its limit, what it serves, what goes first, and what a killed process leaves."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from planner.errors import InputError, StorageError, TransportError
from runtime.artifact_store import ArtifactStore, Incoming

POOL = [bytes([k]) * size for k, size in enumerate((0, 1, 30, 30, 40, 50, 60, 99, 100, 101))]
LIMIT = 100


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def keep(store: ArtifactStore, content: bytes) -> Path:
    incoming = store.receive(digest(content), len(content))
    assert incoming
    with incoming:
        incoming.write(memoryview(content)[incoming.offset :])
        return incoming.finish()


def partials(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix == ".part"]


class Stores(RuleBasedStateMachine):
    """Two agents on one folder, whose processes and senders come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.stores = [ArtifactStore(self.folder, LIMIT) for _ in range(2)]
        self.incoming: list[tuple[bytes, Incoming]] = []
        self.held: list[tuple[bytes, ExitStack]] = []
        self.damaged: set[str] = set()

    def locked_bytes(self) -> int:
        kept = {content for content, _ in self.held}
        return sum(map(len, kept)) + sum(len(content) for content, _ in self.incoming)

    @rule(which=st.integers(0, 1), content=st.sampled_from(POOL))
    def receive(self, which: int, content: bytes) -> None:
        there = self.stores[which].has(digest(content))
        before = sorted(self.folder.iterdir())
        busy = there or content in [each for each, _ in self.incoming]
        if not busy and self.locked_bytes() + len(content) > LIMIT:
            with pytest.raises(StorageError, match="--cache-limit"):
                self.stores[which].receive(digest(content), len(content))
            assert sorted(self.folder.iterdir()) == before
            return
        incoming = self.stores[which].receive(digest(content), len(content))
        assert (incoming is None) == busy
        if incoming:
            self.incoming.append((content, incoming))

    @precondition(lambda self: self.incoming)
    @rule(data=st.data(), wrong=st.booleans())
    def write(self, data: st.DataObject, wrong: bool) -> None:
        content, incoming = data.draw(st.sampled_from(self.incoming))
        part = content[incoming.offset :][: data.draw(st.integers(0, 60))]
        incoming.write(memoryview(b"\xff" * len(part) if wrong else part))

    @precondition(lambda self: self.incoming)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.incoming))
        content, incoming = one
        self.incoming.remove(one)
        try:
            incoming.finish()
            self.damaged.discard(digest(content))
        except TransportError:
            assert not self.stores[0].has(digest(content))

    @precondition(lambda self: self.incoming)
    @rule(data=st.data())
    def break_off(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.incoming))
        self.incoming.remove(one)
        one[1].close()

    @rule(which=st.integers(0, 1), content=st.sampled_from(POOL))
    def bring(self, which: int, content: bytes) -> None:
        """All of it at once, so that there is something to hold and to make room."""
        before = len(self.incoming)
        self.receive(which, content)
        if len(self.incoming) > before:
            _, incoming = self.incoming.pop()
            with incoming:
                incoming.write(memoryview(content)[incoming.offset :])
                try:
                    incoming.finish()
                except TransportError:  # it began with what was written wrongly
                    return
            self.damaged.discard(digest(content))

    @rule(which=st.integers(0, 1), content=st.sampled_from(POOL))
    def hold(self, which: int, content: bytes) -> None:
        there = self.stores[which].has(digest(content))
        with ExitStack() as stack:
            try:
                path = stack.enter_context(self.stores[which].hold(digest(content)))
            except StorageError:
                assert not there or digest(content) in self.damaged
                return
            assert path.read_bytes() == content
            self.held.append((content, stack.pop_all()))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.held))
        self.held.remove(one)
        one[1].close()

    @rule(content=st.sampled_from(POOL[2:]))
    def damage(self, content: bytes) -> None:
        file = self.folder / digest(content)
        if file.exists() and content not in [each for each, _ in self.held]:
            file.chmod(0o600)
            file.write_bytes(b"\xfe" * len(content))
            self.damaged.add(file.name)

    @invariant()
    def never_over_the_limit(self) -> None:
        total = sum(file.stat().st_size for file in self.folder.iterdir())
        assert total <= LIMIT
        assert self.stores[0].nbytes == total

    @invariant()
    def what_is_held_is_there(self) -> None:
        for content, _ in self.held:
            assert (self.folder / digest(content)).read_bytes() == content

    @invariant()
    def nothing_is_seen_under_another_digest(self) -> None:
        for file in self.folder.iterdir():
            if not file.name.startswith(".") and file.name not in self.damaged:
                assert digest(file.read_bytes()) == file.name

    def teardown(self) -> None:
        for _, incoming in self.incoming:
            incoming.close()
        for _, stack in self.held:
            stack.close()
        self.stack.close()


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=80, stateful_step_count=40)


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, 100)
    first, second, third = (bytes([k]) * 30 for k in range(3))
    for content in (first, second, third):
        keep(store, content)
        time.sleep(0.002)
    with store.hold(digest(first)):  # a use
        pass
    keep(store, b"x" * 40)
    assert [store.has(digest(each)) for each in (first, second, third)] == [True, False, True]
    with store.hold(digest(first)):
        keep(store, b"y" * 70)
        assert [store.has(digest(each)) for each in (first, third)] == [True, False]
        with pytest.raises(
            StorageError, match=r"has 0.0 MB, the cache in .* takes 0.0 MB, of which"
        ) as found:
            store.receive(digest(b"z" * 71), 71)
        assert found.value.remedy == "start the agent with --cache-limit 1MB or more"
    keep(store, b"z" * 71)
    assert not store.has(digest(first))


def test_half_a_file_makes_room_like_a_whole_one(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, 100)
    incoming = store.receive(digest(b"a" * 90), 90)
    assert incoming
    incoming.write(memoryview(b"a" * 20))
    with pytest.raises(StorageError, match="in use"):  # its room is kept for it
        store.receive(digest(b"b" * 20), 20)
    incoming.close()
    keep(store, b"b" * 20)
    assert len(partials(tmp_path)) == 1
    keep(store, b"c" * 80)
    assert partials(tmp_path) == []


def test_a_smaller_limit_holds_at_once(tmp_path: Path) -> None:
    keep(ArtifactStore(tmp_path, 100), b"a" * 40)
    time.sleep(0.002)
    keep(ArtifactStore(tmp_path, 100), b"b" * 40)
    store = ArtifactStore(tmp_path, 50)
    assert [store.has(digest(each * 40)) for each in (b"a", b"b")] == [False, True]
    assert ArtifactStore(tmp_path).limit_bytes > 0


def test_a_damaged_file_is_noticed_and_removed(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, 100)
    file = keep(store, b"a" * 40)
    with store.hold(file.name):
        pass
    file.chmod(0o600)
    file.write_bytes(b"b" * 40)
    with pytest.raises(StorageError, match="damaged"), store.hold(file.name):
        pass
    assert not file.exists()
    with pytest.raises(StorageError, match="has no artifact"), store.hold(file.name):
        pass


@pytest.mark.parametrize("name", ["", "../etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n"])
def test_only_a_digest_names_a_file(tmp_path: Path, name: str) -> None:
    store = ArtifactStore(tmp_path / "store", 100)
    for use in (store.path, store.has, lambda name: store.receive(name, 1)):
        with pytest.raises(InputError, match="64 hexadecimal digits"):
            use(name)


def test_more_than_was_announced_is_refused(tmp_path: Path) -> None:
    incoming = ArtifactStore(tmp_path, 100).receive(digest(b"abc"), 3)
    assert incoming
    with incoming, pytest.raises(TransportError, match="4 bytes came of an artifact of 3"):
        incoming.write(memoryview(b"abcd"))


# --- full disks


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file above 64 KiB may be written by this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path: Path, small_files: None) -> None:
    store, content = ArtifactStore(tmp_path, 1 << 20), bytes(1 << 17)
    incoming = store.receive(digest(content), len(content))
    assert incoming
    with incoming, pytest.raises(StorageError, match=r"cannot keep artifacts in .*File too large") as found:
        incoming.write(memoryview(content))
    assert "free space" in found.value.remedy
    assert partials(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if done.returncode:
        pytest.skip(f"mounting a small disk is not permitted: {done.stderr.decode()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_what_does_not_fit_on_the_disk_is_refused_before_it_comes(small_disk: Path) -> None:
    store = ArtifactStore(small_disk, 1 << 30)
    keep(store, bytes(400_000))
    with pytest.raises(StorageError, match=r"has 2\.0 MB, of the disk of .* 1\.0 MB can be had") as found:
        store.receive("0" * 64, 2_000_000)
    assert found.value.remedy == "free 1.0 MB there"
    assert store.has(digest(bytes(400_000)))
    keep(store, bytes(900_000))  # what was there makes room
    assert not store.has(digest(bytes(400_000)))
    incoming = store.receive("0" * 64, 100_000)
    assert incoming
    (small_disk / "others").write_bytes(bytes(90_000))  # another process takes the space meanwhile
    with incoming, pytest.raises(StorageError, match="No space left"):
        incoming.write(memoryview(bytes(100_000)))
    assert partials(small_disk) == []


# --- processes that share a folder, and die

BRING = """
import sys, hashlib
from pathlib import Path
from runtime.artifact_store import ArtifactStore
store, seed, count = ArtifactStore(Path(sys.argv[1]), int(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])
print("begins", flush=True)
for k in range(count):
    content = bytes([seed, k]) * int(sys.argv[5])
    incoming = store.receive(hashlib.sha256(content).hexdigest(), len(content))
    if incoming is not None:
        with incoming:
            for at in range(incoming.offset, len(content), 1000):
                incoming.write(memoryview(content[at : at + 1000]))
            incoming.finish()
"""


def bring(folder: Path, limit: int, seed: int, count: int, half: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BRING, str(folder), *map(str, (limit, seed, count, half))]
    root = str(Path(__file__).parent.parent)
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": root}, stdout=subprocess.PIPE, text=True
    )


def test_processes_that_share_a_folder_keep_to_the_limit(tmp_path: Path) -> None:
    limit, seen = 130_000, list[int]()  # room for three that arrive at once
    done, store = threading.Event(), ArtifactStore(tmp_path, 130_000)

    def watch() -> None:
        while not done.is_set():
            seen.append(store.nbytes)

    watcher = threading.Thread(target=watch)
    watcher.start()
    processes = [bring(tmp_path, limit, seed, 40, 20_000) for seed in (1, 1, 2)]
    codes = [(process.communicate(timeout=60), process.returncode)[1] for process in processes]
    done.set()
    watcher.join()
    assert codes == [0, 0, 0]
    assert 80_000 < max(seen) <= limit
    for file in tmp_path.iterdir():
        assert file.name == ".lock" or digest(file.read_bytes()) == file.name


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8])
def test_what_a_killed_process_received_is_continued_at_its_last_byte(tmp_path: Path, share: float) -> None:
    half = 20_000_000
    content = bytes([7, 0]) * half
    with bring(tmp_path, 1 << 30, 7, 1, half) as process:
        assert process.stdout
        assert process.stdout.readline() == "begins\n"
        while not partials(tmp_path) or partials(tmp_path)[0].stat().st_size < share * len(content):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    (part,) = partials(tmp_path)
    size, told = part.stat().st_size, list[int]()
    incoming = ArtifactStore(tmp_path, 1 << 30).receive(digest(content), len(content), told.append)
    assert incoming
    with incoming:
        assert incoming.offset == size == told[-1] >= share * len(content)
        incoming.write(memoryview(content)[size:])
        assert incoming.finish().read_bytes() == content
    assert partials(tmp_path) == []
