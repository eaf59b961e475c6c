"""The README and the pages of docs/ as tests read them: blocks, what is said above them, commands, links.

An HTML comment on the line above a block says what becomes of it:

    <!-- not run: WHY -->        a sh or python block that tests only parse; all others are run, page by page
    <!-- file: NAME -->          the block is written to NAME, for the blocks after it
    <!-- output -->              what the block before it prints, to the letter
    <!-- output: measured -->    the same, but numbers, rules and spaces may differ

Blocks of language diff change the sources; a page that has them is run in a copy.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^([ ]*)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (not run|file|output)(?:: (.*?))? -->\n[ ]*$")
_PROMPT = re.compile(r"^[ ]*(?:\w+)?\$[ ]+((?:.*\\\n)*.*)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """``mark``: "not run", "file", "output" or ""; ``note`` what the mark says. ``line``: of the page, from 1."""

    language: str
    text: str
    line: int
    mark: str = ""
    note: str = ""


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for fence in _FENCE.finditer(text):
        mark = _MARK.search(text[: fence.start()])
        kind, note = (mark[1], mark[2] or "") if mark else ("", "")
        indent, language, body = fence.groups()
        body = re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
        found.append(Block(language, body, text.count("\n", 0, fence.start()) + 1, kind, note))
    return found


def script(block: Block) -> list[list[str]]:
    """The commands of a sh block, comments left out."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            found.append(words[:end])
            words = words[end + 1 :]
    return found


def patched(text: str, diff: str) -> str:
    """A source with the lines of a diff, which has no line numbers, in the place of those that it names."""
    lines = diff.splitlines(keepends=True)[1:]
    before = "".join(line[1:] for line in lines if line[0] != "+")
    after = "".join(line[1:] for line in lines if line[0] != "-")
    assert text.count(before) == 1, f"{text.count(before)} places are\n{before}"
    return text.replace(before, after)


def transcripts(page: Path) -> Iterator[list[str]]:
    """Commands of edgecut behind a prompt, wherever they stand."""
    for match in _PROMPT.finditer(page.read_text()):
        line = match[1].replace("\\\n", " ").rstrip(" &")
        if line.startswith("edgecut "):
            yield shlex.split(line, comments=True)


def spoken(page: Path) -> Iterator[list[str]]:
    """What stands in the text between backticks: commands of edgecut, and options alone."""
    text = _FENCE.sub("", page.read_text())
    for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text):
        if re.match(r"(edgecut |--[a-z])", code):
            yield code.replace("\\|", "|").split()


def links(page: Path) -> Iterator[str]:
    """The targets of links and pictures that lead to files."""
    text = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """The headings of a page as a browser addresses them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def alike(said: str, shown: str, *, measured: bool) -> bool:
    """Whether a command or block said what its page shows."""
    return _normal(said, measured) == _normal(shown, measured)


def _normal(text: str, measured: bool) -> str:
    if not measured:
        return "\n".join(line.rstrip() for line in text.strip().splitlines())
    text = re.sub(r"\b[0-9a-f]{64}\b", "#", text)  # digests of random weights
    text = re.sub(r"[+\-−]?\d[\d,]*(\.\d+)?(e[+\-]?\d+)?", "#", text)
    return " ".join(re.sub(r"[─\s]+", " ", text).split())
