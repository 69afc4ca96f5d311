"""Which runs may be compared: everything but the pruning has to agree."""

from __future__ import annotations

from collections.abc import Sequence

from lmms_topoprune.errors import InputError
from lmms_topoprune.results.reading import Run
from lmms_topoprune.results.sample_files import first_difference

UNKNOWN = (None, "")
NOTED = ("dtype", "attn_implementation", "weights", "lmms-eval version")
"""Facts that only this plugin always writes down."""
EXAM = ("documents of", "prompts of", "right answers of", "images of")
"""Beginnings of facts that are digests of what was asked."""
PLACE = "model_args pretrained"
"""Where the weights lay; equal weights may lie in other places on other machines."""
RESOLVED = ("model_args dtype", "model_args attn_implementation")
"""Arguments that facts of their own stand for, whether they were given or left to the default."""


def differences(reference: Run, run: Run, *, versions: bool = True) -> list[str]:
    """What differs between two runs, in words; facts only one of them knows are not held against it.

    Args:
        reference, run: the runs.
        versions: whether other versions of packages count as a difference.
    """
    found = []
    unscored = (set(reference.unscored) | set(run.unscored)) - (set(reference.tasks) & set(run.tasks))
    missing = sorted((set(reference.tasks) ^ set(run.tasks)) - unscored)
    if missing:
        found.append(f"tasks ({', '.join(missing)} in only one of them)")
    optional = ("weights", "prompt path", "lmms-eval version", "model class")
    follows = EXAM if reference.facts.get("limit") != run.facts.get("limit") else ()
    for name in sorted(set(reference.facts) & set(run.facts)):
        a, b = reference.facts[name], run.facts[name]
        if name in RESOLVED or (not versions and name.endswith(" version")):
            continue
        if name.startswith(follows):  # other documents, because the limit is another
            continue
        if name == PLACE and reference.facts.get("weights") == run.facts.get("weights") not in UNKNOWN:
            continue
        if a == b or (name in optional and (a in UNKNOWN or b in UNKNOWN)):
            continue
        found.append(_exam(reference, run, name) if name.startswith(EXAM) else f"{name} ({a} and {b})")
    for name in sorted(set(reference.facts) ^ set(run.facts)):
        if name.startswith("model_args ") and name not in RESOLVED:
            found.append(f"{name} (given to only one of them)")
    return found


def _exam(reference: Run, run: Run, name: str) -> str:
    """The name of a fact about the exam, and the first document in which it differs."""
    try:
        first = first_difference(reference.path, run.path, name.partition(" of ")[2])
    except InputError:  # a baseline holds no documents
        first = ""
    return f"{name} ({first})" if first else name


def remarks(reference: Run, runs: Sequence[Run]) -> list[str]:
    """What a reader has to know beside the numbers."""
    found = []
    if any(differences(reference, run) for run in runs):
        found.append("Some runs differ in more than their pruning; only common tasks and documents count.")
    unknown = sorted({n for run in runs for n in NOTED if not run.facts.get(n)} if len(runs) > 1 else set())
    if unknown:
        found.append(f"Not every run tells its {', '.join(unknown)}, which may differ.")
    for name in ("device", "batch size"):
        values = sorted({str(v) for run in runs if (v := run.setting.get(name)) not in UNKNOWN})
        if len(values) > 1:
            found.append(f"Costs are not comparable: {name} is {' and '.join(values)}.")
    for task in sorted({task for run in runs for task in run.unscored}):
        reason = next(run.unscored[task] for run in runs if task in run.unscored)
        found.append(f"Task {task} is left out: {reason}.")
    failed = {run.label: n for run in runs if (n := (run.setting.get("answers") or {}).get("failed"))}
    found += [f"{count} failed answers of {label} count as wrong." for label, count in failed.items()]
    return found


def check_comparable(reference: Run, runs: Sequence[Run]) -> None:
    """Refuse runs that differ in anything but their pruning.

    Raises:
        InputError: names the first run that differs and all its differences.
    """
    for run in runs:
        found = differences(reference, run)
        if found:
            raise InputError(
                f"run {run.label!r} cannot be compared with {reference.label!r}: they differ in "
                f"{'; '.join(found)} (compare --force takes the common documents anyway)"
            )
