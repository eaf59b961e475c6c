"""A fleet's keys: what is made, what is refused before anything is opened, and the commands."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from conftest import Edgecut
from hypothesis import given
from hypothesis import strategies as st

from planner import Device, Emulation
from planner.errors import EdgecutError, InputError
from planner.fleet import check_address
from runtime.access import access_control
from runtime.authority import AUTHORITY_KEY, issue, make_authority
from runtime.credentials import AUTHORITY, CERTIFICATE, KEY, WORKSTATION, Credentials, read_certificate
from runtime.security import Security

NOW = datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, lab and other, each with the keys of nano; lab also those of a workstation."""
    folder = tmp_path_factory.mktemp("keys")
    for fleet in ("lab", "other"):
        make_authority(folder / fleet, fleet)
        issue(folder / fleet, "nano", folder / fleet, addresses=["192.168.1.5", "nano.local"])
    issue(folder / "lab", "laptop", folder / "lab", workstation=True)
    return folder


@pytest.fixture
def nano(made: Path, tmp_path: Path) -> Path:
    """A copy of the keys of nano that a test may spoil."""
    return Path(shutil.copytree(made / "lab" / "nano", tmp_path / "nano"))


def test_what_is_issued_is_what_a_machine_needs(made: Path) -> None:
    found = Credentials.load(made / "lab" / "nano")
    assert (found.common_name, found.fleet, found.orders) == ("nano", "lab", False)
    assert timedelta(days=364) < found.valid_until - NOW < timedelta(days=366)
    assert Credentials.load(made / "lab" / "laptop").orders
    found.check_device("nano")
    Credentials.load(made / "lab" / "laptop").check_orders()


def test_private_keys_are_their_owners_alone(made: Path) -> None:
    keys = [made / "lab" / AUTHORITY_KEY, *made.glob(f"*/*/{KEY}")]
    assert len(keys) == 4
    assert {file.stat().st_mode & 0o777 for file in keys} == {0o600}


def test_a_device_cannot_issue_keys(made: Path, tmp_path: Path) -> None:
    """What it holds is no authority: a certificate signed with its key is not believed."""
    fake = tmp_path / "fake"
    fake.mkdir()
    for name, copy in ((CERTIFICATE, AUTHORITY), (KEY, AUTHORITY_KEY)):
        shutil.copy(made / "lab" / "nano" / name, fake / copy)
    issue(fake, "evil", fake, workstation=True)
    with pytest.raises(InputError, match="is no authority's certificate"):
        Credentials.load(fake / "evil")
    shutil.copy(made / "lab" / AUTHORITY, fake / "evil" / AUTHORITY)
    with pytest.raises(InputError, match="was not issued by the authority"):
        Credentials.load(fake / "evil")


def test_nothing_is_overwritten(made: Path) -> None:
    before = {file: file.read_bytes() for file in made.rglob("*.pem")}
    with pytest.raises(InputError, match="nothing is overwritten"):
        make_authority(made / "lab", "lab")
    with pytest.raises(InputError, match="nothing is overwritten"):
        issue(made / "lab", "nano", made / "lab")
    assert {file: file.read_bytes() for file in made.rglob("*.pem")} == before


def test_keys_end_with_their_authority(tmp_path: Path) -> None:
    end = make_authority(tmp_path, "lab", days=3)
    assert issue(tmp_path, "nano", tmp_path, days=30) == end
    with pytest.raises(InputError, match="expired on"):
        issue(tmp_path, "late", tmp_path, now=NOW + timedelta(days=4))


def test_a_clock_that_is_somewhat_behind_is_no_fault(nano: Path) -> None:
    Credentials.load(nano, NOW - timedelta(minutes=50))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder, made: (folder / KEY).unlink(), "no such file"),
        (lambda folder, made: (folder / CERTIFICATE).write_text("x"), "no certificate in PEM form"),
        (lambda folder, made: (folder / KEY).write_text("x"), "no unencrypted private key"),
        (lambda folder, made: (folder / KEY).chmod(0o640), r"read by others \(mode 0640\)"),
        (
            lambda folder, made: shutil.copy(made / "other" / AUTHORITY, folder / AUTHORITY),
            "was not issued by the authority",
        ),
        (lambda folder, made: shutil.copy(made / "other" / "nano" / KEY, folder / KEY), "does not belong to"),
        (
            lambda folder, made: shutil.copy(made / "lab" / "nano" / CERTIFICATE, folder / AUTHORITY),
            "is no authority's",
        ),
    ],
)
def test_keys_that_do_not_fit_are_refused(
    nano: Path, made: Path, spoil: Callable[[Path, Path], object], said: str
) -> None:
    spoil(nano, made)
    with pytest.raises(InputError, match=said) as found:
        Credentials.load(nano)
    assert found.value.remedy


@pytest.mark.parametrize(
    ("days", "said"), [(366, "expired on .* clock says"), (-1, "not valid before .* clock says")]
)
def test_dates_are_checked(nano: Path, days: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Credentials.load(nano, NOW + timedelta(days=days))


@given(st.binary(max_size=300), st.sampled_from([CERTIFICATE, KEY, AUTHORITY]))
def test_any_bytes_are_refused_by_name(made: Path, data: bytes, name: str) -> None:
    folder = made / "spoilt"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made / "lab" / "nano", folder)
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        Credentials.load(folder)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "näno", "n" * 65, WORKSTATION])
def test_names_that_cannot_be_used(made: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        issue(made / "lab", name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["", "a b", "tcp/10.0.0.1:7447", "10.0.0.1:7447", "-a", "a..b", "é.de"])
def test_addresses_that_cannot_be_used(made: Path, tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match="neither an IP address nor a host name"):
        issue(made / "lab", "nano", tmp_path, addresses=[address])


# --- what may be reached and by whom


def test_addresses_without_protection_are_refused(made: Path) -> None:
    keys = Security.of(made / "lab" / "laptop")
    Security().check("tcp/127.0.0.1:1")
    Security(insecure=True).check("tcp/10.0.0.1:1")
    keys.check("tls/10.0.0.1:1")
    assert check_address("tls/[fe80::1]:7447") == "fe80::1"
    for security, address, said in (
        (Security(), "tcp/10.0.0.1:1", "without encryption"),
        (Security(), "tls/10.0.0.1:1", "which takes keys"),
        (Security(insecure=True), "tls/10.0.0.1:1", "which takes keys"),
        (keys, "tcp/10.0.0.1:1", "unencrypted, and keys are given"),
        (keys, "tcp/127.0.0.1:1", "unencrypted, and keys are given"),
    ):
        with pytest.raises(InputError, match=said):
            security.check(address)


def test_who_may_reach_a_fleet(made: Path) -> None:
    far, here = Device("nano", address="tls/127.0.0.1:1"), Device("edge", emulate=Emulation(1))
    own = Security.of(made / "lab" / "laptop")
    assert own.for_devices([here]).credentials is None
    found = own.for_devices([far, here]).credentials
    assert found
    assert found.devices == {"nano", "edge"}
    with pytest.raises(InputError, match="which gives no orders"):
        Security.of(made / "lab" / "nano").for_devices([far])
    with pytest.raises(InputError, match="those of device nano, not of device edge"):
        Credentials.load(made / "lab" / "nano").check_device("edge")


NAMES = ["nano", "edge", "server", WORKSTATION]


@pytest.mark.parametrize("message", ["put", "declare_subscriber"])
@pytest.mark.parametrize("one", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_both_ends_of_a_connection_have_the_same_rules(one: str, other: str, message: str) -> None:
    out = _allowed(one, other, {*NAMES}, "egress", message)
    assert out == _allowed(other, one, {*NAMES}, "ingress", message)


def test_a_device_can_neither_order_nor_pass_for_another() -> None:
    for peer in ("nano", "edge"):
        for own in (WORKSTATION, "nano", "edge"):
            allowed = _allowed(own, peer, {"nano", "edge"}, "ingress", "put")
            assert not any("agent/" in key for key in allowed)
    assert _allowed(WORKSTATION, "nano", {"nano"}, "ingress", "liveliness_token") == {
        "edgecut/alive/agent/nano/**"
    }
    assert not _allowed(WORKSTATION, "stranger", {"nano"}, "ingress", "put")


def _allowed(own: str, peer: str, devices: set[str] | None, flow: str, message: str) -> set[str]:
    """What ``own`` lets pass of ``peer``, read from the settings as Zenoh does."""
    given = access_control(own, devices)
    subjects = {each["id"] for each in given["subjects"] if peer in each.get("cert_common_names", [peer])}
    wanted = {name for each in given["policies"] if subjects & {*each["subjects"]} for name in each["rules"]}
    return {
        key
        for rule in given["rules"]
        if rule["id"] in wanted and flow in rule["flows"] and message in rule["messages"]
        for key in rule["key_exprs"]
    }


# --- the commands


def test_the_commands_make_keys(edgecut: Edgecut, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    code, said = edgecut("keys", "init", keys, "--name", "lab")
    assert (code, "authority of lab" in said) == (0, True)
    code, said = edgecut(
        "keys", "issue", "nano", "--keys", keys, "--address", "10.0.0.7", "-o", tmp_path, "--days", 7
    )
    assert (code, "device nano" in said) == (0, True)
    found = Credentials.load(tmp_path / "nano")
    assert found.valid_until - NOW < timedelta(days=8)
    from cryptography.x509 import SubjectAlternativeName

    certificate = read_certificate(tmp_path / "nano" / CERTIFICATE)
    addresses = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    assert "10.0.0.7" in str(addresses)
    assert edgecut("keys", "issue", "laptop", "--keys", keys, "--workstation")[0] == 0
    code, said = edgecut("keys", "init", keys)
    assert (code, "nothing is overwritten" in said) == (2, True)
    code, said = edgecut("keys", "issue", "edge", "--keys", tmp_path / "nowhere")
    assert (code, "no such file" in said) == (2, True)


def test_the_commands_refuse(
    edgecut: Edgecut, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(
        'schema = "edgecut.fleet/1"\nsource = "edge"\n[device.edge]\naddress = "tcp/10.0.0.1:7447"\n'
        '[device.nano]\naddress = "tls/10.0.0.2:7447"\n'
        '[[link]]\nsource = "edge"\ntarget = "nano"\nbandwidth_bytes_per_s = 1e6\n'
    )
    nano, laptop = made / "lab" / "nano", made / "lab" / "laptop"
    for arguments, said in (
        (("agent", "--name", "nano", "--listen", "tcp/0.0.0.0:7447"), "--insecure"),
        (("agent", "--name", "nano", "--listen", "tls/0.0.0.0:7447"), "pass --keys FOLDER"),
        (("agent", "--name", "edge", "--keys", nano), "not of device edge"),
        (("agent", "--name", "nano", "--keys", laptop), "those of a workstation"),
        (("agent", "--name", "nano", "--keys", nano, "--listen", "tcp/127.0.0.1:0"), "keys are given"),
        (("agent", "--name", "nano", "--keys", tmp_path), "no such file"),
        (("links", "--fleet", fleet), "device edge: tcp/10.0.0.1:7447 is on the network"),
        (("links", "--fleet", fleet, "--insecure"), "device nano: tls/10.0.0.2:7447 is encrypted"),
        (("links", "--fleet", fleet, "--keys", laptop), "device edge: tcp/10.0.0.1:7447 is unencrypted"),
        (("profile", "alexnet", "--device", "edge", "--insecure"), "--device measures on this machine"),
    ):
        code, out = edgecut(*arguments)
        assert code == 2
        assert said in " ".join(out.replace("│", " ").split())


def test_an_error_of_the_disk_is_named(made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgecutError, match="cannot write"):
        issue(made / "lab", "nano", tmp_path / "file" / "deeper")
