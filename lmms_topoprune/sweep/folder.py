"""The folder of a sweep: its settings, one plan a cell, one evaluation a set of layers.

    sweep.json              what all cells share
    sweep.lock              there while a sweep is at work
    plans/CELL.json         which layers each cell drops
    similarity/CELL.json    how alike the states are to a criterion that compares them, and its barcodes
    layers/3-5+9/           lmms-eval's results with these layers dropped

Everything appears under its name only once it is complete, so that a sweep can be killed at any moment.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmms_topoprune._util import files
from lmms_topoprune._util.checked_files import CorruptFileError
from lmms_topoprune._util.files import locked
from lmms_topoprune.errors import InputError
from lmms_topoprune.plan import PruningPlan, format_layers
from lmms_topoprune.results.reading import (
    RESULTS,
    Run,
    check_whole,
    find_files,
    plan_label,
    read_run,
    variant,
)
from lmms_topoprune.results.similarity import Shape, read_shape
from lmms_topoprune.sweep.grid import DENSE
from lmms_topoprune.sweep.provenance import (
    KEPT,
    SCHEMA,
    foreign_plan,
    foreign_results,
    read_settings,
    told_by_results,
)

SETTINGS = "sweep.json"
LOCK = "sweep.lock"
AGAIN = "run the same sweep again, which mends it"
PROBE = 2**20
"""Bytes; a disk that takes as many is not full."""


@dataclass(frozen=True)
class SweepFolder:
    """Where a sweep keeps what is finished."""

    path: Path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other sweeps out of the folder; where files cannot be locked, it is only not checked.

        Raises:
            InputError: another sweep is at work here.
        """
        with locked(self.path / LOCK, 0) as held:
            if held is False:
                raise InputError(
                    f"{str(self.path)!r} is in use by another sweep; wait for it or choose another folder"
                )
            yield

    def settle(self, settings: Mapping[str, Any]) -> None:
        """Write the settings, or make sure that an earlier sweep in this folder had the same.

        An earlier one that has finished no evaluation gives way.

        Raises:
            InputError: the folder belongs to a sweep with other settings (named), or cannot be written.
        """
        file = self.path / SETTINGS
        wanted = {"schema": SCHEMA, **settings}
        if any((self.path / "layers").glob("[!.]*")):
            own = self._own_settings()
            found = self._told_by_results() if own is None else own
            changed = [n for n in wanted if found.get(n) != wanted[n] and (own is not None or n in found)]
            if changed:
                name = changed[0]
                raise InputError(
                    f"{str(self.path)!r} holds a sweep with {name} {found.get(name)!r}, "
                    f"not {wanted[name]!r}; choose another folder"
                )
            if own is not None:
                return
        try:
            if self._own_settings() not in (None, wanted):
                for name in ("plans", "similarity"):  # made for other settings
                    shutil.rmtree(self.path / name, ignore_errors=True)
            files.write_json(file, wanted)
        except OSError as error:
            raise InputError(f"{str(self.path)!r} cannot be written: {error.strerror}") from None

    def _own_settings(self) -> dict[str, Any] | None:
        """What the settings file holds; None if it is missing or malformed, which is mended."""
        try:
            return self.settings() if (self.path / SETTINGS).exists() else None
        except InputError:
            return None

    def _told_by_results(self) -> dict[str, Any]:
        """Settings of a sweep whose own file is gone, from its results; damaged ones tell nothing."""
        for path in find_files(self.path / "layers", f"*{RESULTS}"):
            try:
                return told_by_results(path)
            except InputError:
                continue
        return {}

    def settings(self) -> dict[str, Any]:
        """The sweep's settings; empty where their file is missing.

        Raises:
            InputError: the file is malformed.
        """
        path = self.path / SETTINGS
        return read_settings(path) if path.exists() else {}

    def plan_path(self, cell: str) -> Path:
        return self.path / "plans" / f"{cell}.json"

    def plan(self, cell: str, expected: Mapping[str, Any] | None = None) -> PruningPlan | None:
        """The plan of a cell, if it was made.

        Args:
            cell: its name.
            expected: options that it asks for, where they are known.

        Raises:
            InputError: it is damaged, or was made for another cell or another model.
        """
        path = self.plan_path(cell)
        if not path.exists():
            return None
        try:
            plan = PruningPlan.load(path)
        except InputError as error:
            raise CorruptFileError(error.args[0], AGAIN) from None
        if foreign := foreign_plan(path, plan, cell, self.settings(), expected or {}):
            raise CorruptFileError(foreign, AGAIN)
        return plan

    def keep(
        self,
        cell: str,
        plan: PruningPlan,
        similarity: list[list[float]] | None = None,
        barcodes: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write a cell's plan, after what belongs to it.

        Raises:
            InputError: the folder cannot be written.
        """
        try:
            if similarity is not None or barcodes:
                value = {"criterion": variant(plan), "values": similarity, "barcodes": list(barcodes)}
                text = json.dumps(value, allow_nan=False)  # thousands of numbers, not one a line
                files.write_text(self.path / "similarity" / f"{cell}.json", text)
            files.write_json(self.plan_path(cell), {**plan.to_json(), "run": {"cell": cell}})
        except OSError as error:
            raise InputError(f"{str(self.path)!r} cannot be written: {error.strerror}") from None

    def shapes(self) -> dict[str, Shape]:
        """Criterion -> what it saw of the states, from the first cell of each criterion.

        Raises:
            InputError: a file is cut short or holds something else.
        """
        found: dict[str, Shape] = {}
        for file in sorted((self.path / "similarity").glob("*.json")):
            criterion, shape = read_shape(file)
            found.setdefault(criterion, shape)
        return found

    def evaluation(self, plan: PruningPlan) -> Path:
        """The folder of the results with a plan's layers dropped, and what is left repaired and healed."""
        name = format_layers(plan.dropped)
        name = name if len(name) <= 100 else files.digest(plan.dropped)
        if plan.repair:
            name += f"-{plan.repair['method']}-{files.digest(dict(plan.repair))[:8]}"
        if plan.heal:
            name += f"-healed-{files.digest(dict(plan.heal))[:8]}"
        return self.path / "layers" / name

    def draft(self, plan: PruningPlan) -> Path:
        """The folder that a plan is evaluated into until it is complete."""
        final = self.evaluation(plan)
        return final.with_name(f".{final.name}.tmp")

    def begin(self, plan: PruningPlan) -> None:
        """Make the draft an empty folder; what an interrupted evaluation left there is removed.

        Raises:
            InputError: the folder cannot be written.
        """
        draft = self.draft(plan)
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"{str(self.path)!r} cannot be written: {error.strerror}") from None

    def discard(self, plans: Iterable[PruningPlan]) -> None:
        """Remove the drafts of evaluations that did not finish."""
        for plan in plans:
            shutil.rmtree(self.draft(plan), ignore_errors=True)

    def finish(self, plan: PruningPlan) -> None:
        """Give an evaluation its name, in place of a damaged one if there is one.

        lmms-eval only warns when samples cannot be written, so they are read first.

        Raises:
            InputError: the evaluation is not complete, or the folder cannot be written.
        """
        draft, final = self.draft(plan), self.evaluation(plan)
        try:
            check_whole(draft)
        except InputError as error:
            obstacle = _obstacle(self.path)
            reason = f"{str(self.path)!r} cannot be written: {obstacle}" if obstacle else error.args[0]
            raise InputError(reason) from None
        try:
            if (self.path / SETTINGS).exists():
                shutil.copyfile(self.path / SETTINGS, draft / KEPT)
            if final.exists():
                shutil.rmtree(final)
            draft.rename(final)
        except OSError as error:
            raise InputError(f"{str(self.path)!r} cannot be written: {error.strerror}") from None

    def check(self, plan: PruningPlan) -> Path:
        """The folder of an evaluation that is all there, whatever its scores may mean.

        Raises:
            InputError: it is damaged.
        """
        folder = self.evaluation(plan)
        try:
            check_whole(folder, agreeing=True)
            foreign = foreign_results(folder, plan, self.settings())
        except InputError as error:
            raise CorruptFileError(error.args[0], AGAIN) from None
        if foreign:
            raise CorruptFileError(foreign, AGAIN)
        return folder

    def read(self, plan: PruningPlan, tasks: Collection[str] = (), metric: str | None = None) -> Run:
        """What an evaluation came to; arguments as for `read_run`.

        Raises:
            InputError: it is damaged, or none of its tasks can be scored.
        """
        folder = self.evaluation(plan)
        try:
            run = read_run(folder, tasks, metric)
        except CorruptFileError as error:
            raise CorruptFileError(error.args[0], AGAIN) from None
        except InputError:
            self.check(plan)
            raise
        if foreign := foreign_results(folder, plan, self.settings()):
            raise CorruptFileError(foreign, AGAIN)
        return run

    def runs(
        self, plans: Iterable[PruningPlan], tasks: Collection[str] = (), metric: str | None = None
    ) -> list[Run]:
        """One run a plan that is evaluated; plans with the same layers share their results.

        Raises:
            InputError: an evaluation is damaged.
        """
        results: dict[Path, Run] = {}
        found = []
        for plan in plans:
            place = self.evaluation(plan)
            if place.is_dir():
                results[place] = results.get(place) or self.read(plan, tasks, metric)
                found.append(_as_cell(results[place], plan))
        return found


def _obstacle(folder: Path) -> str:
    """Why nothing can be written there, such as a full disk; empty if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def is_sweep(path: Path | str) -> bool:
    return (Path(path) / SETTINGS).is_file()


def sweeps_at(path: Path | str) -> list[Path]:
    """The folders of sweeps at or below a path; what lies inside a sweep is part of it."""
    if is_sweep(path):
        return [Path(path)]
    settings = find_files(path, SETTINGS)
    found = [file.parent for file in settings if (file.parent / "plans").is_dir()]  # else nothing began
    return [folder for folder in found if not set(found) & set(folder.parents)]


def shapes_below(paths: Iterable[Path | str]) -> dict[str, Shape]:
    """Criterion -> what it saw of the states, from all sweeps at or below some paths."""
    found: dict[str, Shape] = {}
    for path in paths:
        for sweep in sweeps_at(path):
            found |= SweepFolder(sweep).shapes()
    return found


def read_sweep(path: Path | str, tasks: Collection[str] = (), metric: str | None = None) -> list[Run]:
    """One run a finished cell: dense, then by name; arguments as for `read_run`.

    Raises:
        InputError: the folder holds no finished cell, or a file in it is broken.
    """
    folder = SweepFolder(Path(path))
    names = sorted(
        (file.stem for file in (folder.path / "plans").glob("*.json")), key=lambda n: (n != DENSE, n)
    )
    plans = [folder.plan(name) for name in names]
    runs = folder.runs((plan for plan in plans if plan is not None), tasks, metric)
    if not runs:
        raise InputError(f"{str(path)!r} holds no finished cell yet")
    return runs


def _as_cell(run: Run, plan: PruningPlan) -> Run:
    """A run under the plan of one of the cells that share it; repair and healing are what that run spent."""
    ran = run.plan.stages if run.plan else {}
    plan = plan.with_stages(**{name: ran[name] for name in ("repair", "heal") if name in ran})
    spent = sum(stage.get("seconds", 0.0) for stage in plan.stages.values())
    return replace(run, label=plan_label(plan), plan=plan, cost={**run.cost, "calibration_seconds": spent})
