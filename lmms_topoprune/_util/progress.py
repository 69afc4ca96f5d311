"""A progress bar that can be switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(
    title: str, total: int, shown: bool = True, stays: bool = True
) -> Iterator[Callable[[int], None]]:
    """Yield a function that advances the bar; the bar goes to stderr, with an estimate of what is left.

    At its end it goes away unless it `stays`.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=not stays) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)
