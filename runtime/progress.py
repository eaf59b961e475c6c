"""A progress bar with time left; plain silence where standard error is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from runtime.console import console


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    out = console(stderr=True)
    return Progress(*columns, console=out, transient=True, disable=not out.is_terminal)


@contextmanager
def progress_bar(what: str, total: float | None) -> Iterator[Callable[..., None]]:
    """Yields ``advance(amount=1, note="")``; ``total`` is None where nobody knows it."""
    with _progress() as progress:
        task = progress.add_task(what, total=total, note="")

        def advance(amount: float = 1, note: str = "") -> None:
            progress.update(task, advance=amount, note=note)

        yield advance


@contextmanager
def progress_lines(names: Sequence[str]) -> Iterator[Callable[[str, float, str], None]]:
    """A bar for each name. Yields ``show(name, share, note)``, which any thread may call."""
    with _progress() as progress:
        tasks = {name: progress.add_task(name, total=1.0, note="waiting") for name in names}
        yield lambda name, share, note: progress.update(tasks[name], completed=share, note=note)
