"""What a full disk leaves of the results, of another package's model and of ours under plain lmms-eval."""

from __future__ import annotations

import builtins
import io
from pathlib import Path

import pytest
from lmms_eval.loggers import EvaluationTracker

from lmms_topoprune.errors import InputError
from lmms_topoprune.harness.plan_file import leave_plan, listening
from lmms_topoprune.plan import PruningPlan


class Full(io.StringIO):
    """A file on a full disk: what is written stays in the buffer, and closing fails."""

    def close(self) -> None:
        super().close()
        raise OSError(28, "No space left on device")


class Pruned:
    """As much of this package's model as is written down."""

    plan = PruningPlan("tiny", "f" * 16, 6, (2,), "given")

    def record(self) -> dict[str, str]:
        return {}


def save(folder: Path, model: Pruned | None = None) -> tuple[list[str], str | None]:
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.model_name_sanitized = "other"
    row = {"arguments": ["x"], "resps": [["a"]], "filtered_resps": ["a"], "target": "a", "doc": {}}
    samples = [{**row, "doc_id": number, "doc_hash": "h"} for number in range(3)]
    with listening() as saved:
        if model:
            leave_plan(model, tracker)
        tracker.save_results_aggregated({"config": {}}, {"vqa": samples}, "20260101_120000")
        tracker.save_results_samples("vqa", samples)
    return saved.lost, saved.runs[0]["file"]


def test_nothing_is_lost_where_there_is_room(tmp_path):
    lost, file = save(tmp_path)
    assert lost == [] and file == str(tmp_path / "other" / "20260101_120000_results.json")


def test_samples_that_do_not_fit_are_lost(tmp_path, monkeypatch):
    whole, opened = builtins.open, []

    def fail(file, *more, **options):
        if "_samples_" not in str(file) or "a" not in more:
            return whole(file, *more, **options)
        opened.append(file)
        return whole(file, *more, **options) if len(opened) < 3 else Full()

    monkeypatch.setattr(builtins, "open", fail)
    lost, file = save(tmp_path)
    assert lost == [str(tmp_path)] and file is not None and len(opened) == 3
    with pytest.raises(InputError, match="could not be written to"):
        save(tmp_path / "ours", Pruned())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_results_that_do_not_fit_are_lost(tmp_path, monkeypatch):
    """lmms-eval does not close the file, so nobody hears of it."""
    whole = Path.open

    def fail(path, mode="r", *more, **options):
        if mode != "w":
            return whole(path, mode, *more, **options)
        path.write_bytes(b'{"con')
        return Full()

    monkeypatch.setattr(Path, "open", fail)
    lost, file = save(tmp_path)
    assert lost == [str(tmp_path)] and file is None
    with pytest.raises(InputError, match="could not be written to"):
        save(tmp_path / "ours", Pruned())
