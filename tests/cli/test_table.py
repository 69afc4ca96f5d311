"""The leaderboard on narrow terminals: whole numbers and words, fewer columns, a note of what is missing."""

from __future__ import annotations

import io

import folders
import pytest
from rich.console import Console

from lmms_topoprune.cli.table import KEPT, table
from lmms_topoprune.comparison.columns import columns
from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.sweep.run_folders import read_runs

TASKS = [f"topoprune_task{i}" for i in range(6)]


@pytest.fixture
def comparison(tmp_path):
    for name, scores, plan in (
        ("a", [1.0, 0.0] * 5, folders.plan((), "dense")),
        ("b", [1.0, 0.0, 0.0, 0.0, 1.0] * 2, folders.plan()),
    ):
        folders.write(tmp_path / name, {task: folders.exact(scores) for task in TASKS}, plan)
    return compare(read_runs([tmp_path]))


def printed(comparison, width: int | None) -> list[str]:
    console = Console(width=width or 200, file=io.StringIO())
    console.print(table(comparison, "Leaderboard", width))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_every_number_and_word_is_whole(comparison, width):
    lines = printed(comparison, width)
    assert max(map(len, lines)) <= width and not any("…" in line for line in lines)
    assert lines[1].endswith("┓"), "the right border is there"
    by_name = {column.name: column for column in columns(comparison)}
    for row in comparison.rows:
        assert all(any(by_name[name].text(row).split()[0] in line for line in lines) for name in KEPT)


def test_what_does_not_fit_goes_in_order_and_is_named(comparison):
    narrow, wide = " ".join(printed(comparison, 80)), " ".join(printed(comparison, None))
    assert "Too wide for this terminal: retention, task" in narrow.replace("  ", " ")
    assert "Too wide" not in wide and all(f"task{i}" in wide for i in range(6))
    assert "interval" in narrow, "tasks go before the interval"
