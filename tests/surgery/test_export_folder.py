"""A new folder replaces nothing that it was not shown, whatever others do meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmms_topoprune.errors import OptionError
from lmms_topoprune.surgery.export_folder import new_folder


def content(place: Path) -> dict[str, str]:
    return {str(p.relative_to(place)): p.read_text() for p in sorted(place.rglob("*")) if p.is_file()}


def fill(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize("before", ["absent", "empty"])
def test_what_appeared_meanwhile_stays(before: str, tmp_path: Path) -> None:
    if before == "empty":
        (tmp_path / "out").mkdir()
    with (
        pytest.raises(OptionError, match="somebody else wrote to meanwhile"),
        new_folder(tmp_path / "out") as draft,
    ):
        fill(draft, "mine", "1")
        fill(tmp_path / "out", "theirs", "2")
    assert content(tmp_path) == {"out/theirs": "2"}


@pytest.mark.parametrize(("place", "name"), [("out", "theirs"), ("out", "old"), ("out/below", "old")])
def test_what_was_written_into_an_old_folder_meanwhile_stays(tmp_path: Path, place: str, name: str) -> None:
    fill(tmp_path / place, "old", "0")
    with pytest.raises(OptionError, match="meanwhile"), new_folder(tmp_path / "out", overwrite=True) as draft:
        fill(draft, "mine", "1")
        fill(tmp_path / place, name, "2")
    assert content(tmp_path) == {f"{place}/old": "0", f"{place}/{name}": "2"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_exports_into_one_folder_the_first_wins(overwrite: bool, tmp_path: Path) -> None:
    if overwrite:
        fill(tmp_path / "out", "old", "0")
    with (
        pytest.raises(OptionError, match="meanwhile"),
        new_folder(tmp_path / "out", overwrite) as slow,
        new_folder(tmp_path / "out", overwrite) as quick,
    ):
        fill(slow, "slow", "1")
        fill(quick, "quick", "2")
    assert content(tmp_path) == {"out/quick": "2"}


def test_a_folder_that_comes_between_the_look_and_the_rename_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "out", "old", "0")
    rename, swapped = Path.rename, []

    def swap(path: Path, target: Path) -> Path:
        if target.name == "old" and not swapped:
            swapped.append(path)
            fill(path, "theirs", "2")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", swap)
    with pytest.raises(OptionError, match="meanwhile"), new_folder(tmp_path / "out", overwrite=True) as draft:
        fill(draft, "mine", "1")
    assert content(tmp_path) == {"out/old": "0", "out/theirs": "2"}


def test_an_old_folder_that_was_cleared_away_meanwhile_is_no_loss(tmp_path: Path) -> None:
    fill(tmp_path / "out", "old", "0")
    with new_folder(tmp_path / "out", overwrite=True) as draft:
        fill(draft, "mine", "1")
        (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert content(tmp_path) == {"elsewhere/old": "0", "out/mine": "1"}


@pytest.mark.parametrize("there", [False, True])
def test_a_symbolic_link_is_followed(there: bool, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk" / "model", target_is_directory=True)
    if there:
        (tmp_path / "disk" / "model").mkdir(parents=True)
    with new_folder(link) as draft:
        fill(draft, "mine", "1")
    assert link.is_symlink() and content(tmp_path / "disk") == {"model/mine": "1"}


@pytest.mark.parametrize("below", ["file", "file/out", "file/deep/out"])
def test_a_path_below_a_file_is_refused_before_anything_is_made(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("0")
    with pytest.raises(OptionError, match=r"which is (a file|below the file)"), new_folder(tmp_path / below):
        pytest.fail("begun")
    assert content(tmp_path) == {"file": "0"}


def test_parents_that_were_made_go_with_a_failed_draft(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a" / "b" / "out"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
