"""A progress bar that can be switched off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, steps: float, note: str = "", /) -> None:
        """By so many steps, with a note behind the bar."""


@contextmanager
def progress_bar(title: str, total: int, shown: bool = True, stays: bool = True) -> Iterator[Advance]:
    """Yield a function that advances the bar; the bar goes to stderr, with an estimate of what is left.

    At its end it goes away unless it `stays`.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=not stays) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(steps: float, note: str = "", /) -> None:
            bar.update(task, advance=steps, note=note)

        yield advance
