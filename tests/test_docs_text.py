"""README and docs/ without running them: command lines parse, links lead somewhere, names are of this version."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

import click
import pytest
from pages import PAGES, ROOT, anchors, blocks, links, script, spoken, transcripts

import planner
from runtime.cli import cli

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def find(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that a line calls, and its arguments. Raises ``KeyError``."""
    command: click.Command = cli
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def options(command: click.Command) -> set[str]:
    known = {"--help", "-h", "--version"}
    return known.union(*((*each.opts, *each.secondary_opts) for each in command.params))


@functools.cache
def every_option() -> set[str]:
    def below(command: click.Command) -> Iterable[click.Command]:
        yield command
        for each in command.commands.values() if isinstance(command, click.Group) else ():
            yield from below(each)

    return set().union(*map(options, below(cli)))


def problem(words: list[str], whole: bool) -> str | None:
    """What is wrong with a command line; of one that is not ``whole`` only names of commands and options count."""
    try:
        command, rest = find(words)
    except KeyError as unknown:
        return f"no command {unknown}"
    strange = [
        word for word in rest if word.startswith("--") and word.partition("=")[0] not in options(command)
    ]
    if strange:
        return f"no option {', '.join(strange)}"
    if whole:
        try:
            with command.make_context(command.name, list(rest)):
                pass
        except click.ClickException as error:
            return error.format_message()
    return None


def whole(words: list[str]) -> bool:
    """Whether a line is a command as one would type it, not with something left out."""
    return not any("..." in word or "…" in word for word in words)


@pytest.mark.parametrize("name", NAMES)
def test_command_lines_parse(name: str) -> None:
    page = ROOT / name
    faults = []

    def check(words: list[str], complete: bool) -> None:
        fault = problem([word for word in words if word != "..."], complete)
        if fault:
            faults.append(f"{' '.join(words)}: {fault}")

    for block in blocks(page):
        if block.language == "sh":
            for words in script(block):
                if words[0] == "edgecut":
                    check(words, whole(words))
    for words in transcripts(page):
        check(words, whole(words))
    for words in spoken(page):
        if words[0] == "edgecut":
            check(words, False)
        elif words[0].partition("=")[0] not in every_option() | OTHERS:
            faults.append(f"{words[0]}: no command has this option")
    assert not faults


# Options of other programs that the pages name.
OTHERS = {"--network", "--size"}


@pytest.mark.parametrize("name", NAMES)
def test_other_commands_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    for file in re.findall(r"python ((?:benchmarks|tests)/[\w/]+\.py)", text):
        assert (ROOT / file).exists(), file
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for target in re.findall(r"(?:`|^|\$ )make ([a-z]+)", text, flags=re.MULTILINE):
        assert target in targets, target
    extras = re.findall(r"^(\S+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    for listed in re.findall(r"edgecut\[([\w,-]+)\]|-e '?\.\[([\w,-]+)\]", text):
        assert set("".join(listed).split(",")) <= set(extras), listed
    for path in re.findall(r"`((?:planner|profiler|runtime|tests|benchmarks|samples)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in links(page):
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), target


@pytest.mark.parametrize("name", NAMES)
def test_fleets_load(name: str) -> None:
    for block in blocks(ROOT / name):
        if block.language == "toml" and "edgecut.fleet/" in block.text:
            assert planner.parse_fleet(block.text).devices


@functools.cache
def schemas() -> set[str]:
    sources = [
        file for package in ("planner", "profiler", "runtime") for file in (ROOT / package).rglob("*.py")
    ]
    return {tag for file in sources for tag in re.findall(r'"(edgecut\.\w+/\d+)"', file.read_text())}


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_of_this_version(name: str) -> None:
    assert set(re.findall(r"\bedgecut\.\w+/\d+", (ROOT / name).read_text())) <= schemas()


def test_every_page_is_in_the_index() -> None:
    listed = {target.partition("#")[0] for target in links(ROOT / "docs" / "README.md")}
    assert {page.name for page in PAGES if page.parent.name == "docs"} - {"README.md"} <= listed


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("edgecut solv --fleet f.toml", "no command 'solv'"),
        ("edgecut solve --flet f.toml", "no option --flet"),
        ("edgecut energy merge --tabel x.csv", "no option --tabel"),
        ("edgecut solve --fleet f.toml", "Missing option '--profiles'"),
        ("edgecut solve --fleet f.toml --profiles t.csv --objective speed", "speed"),
    ],
)
def test_a_stale_command_is_found(broken: str, says: str) -> None:
    found = problem(broken.split(), whole=True)
    assert found is not None
    assert says in found
