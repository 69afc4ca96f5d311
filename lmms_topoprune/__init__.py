"""Depth pruning of vision-language models, as a plugin of lmms-eval.

These names are stable (docs/python.md shows each at work); everything else may move between releases. Each is
imported when it is first used, so that `import lmms_topoprune` itself loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmms_topoprune._util.packaged import model_path, tasks_path
    from lmms_topoprune.calibration.samples import Sample
    from lmms_topoprune.comparison.regression import regress
    from lmms_topoprune.comparison.side_by_side import compare
    from lmms_topoprune.heal.healing import heal as heal_model
    from lmms_topoprune.heal_options import HealingOptions
    from lmms_topoprune.options import PruningOptions
    from lmms_topoprune.pipeline import Planner, apply_plan, make_plan
    from lmms_topoprune.plan import PruningPlan
    from lmms_topoprune.registry import criterion
    from lmms_topoprune.registry import repair as repair_method
    from lmms_topoprune.report.build import report as html_report
    from lmms_topoprune.selection import LayerScores, PairScores
    from lmms_topoprune.surgery.export import export
    from lmms_topoprune.surgery.load import load_pruned
    from lmms_topoprune.sweep.recipe import Recipe, run_sweep
    from lmms_topoprune.sweep.run_folders import read_runs
    from lmms_topoprune.topology import similarity, union_zigzag_barcode, zigzag_barcode

__all__ = [
    "HealingOptions",
    "LayerScores",
    "PairScores",
    "Planner",
    "PruningOptions",
    "PruningPlan",
    "Recipe",
    "Sample",
    "apply_plan",
    "compare",
    "criterion",
    "export",
    "heal_model",
    "html_report",
    "load_pruned",
    "make_plan",
    "model_path",
    "read_runs",
    "regress",
    "repair_method",
    "run_sweep",
    "similarity",
    "tasks_path",
    "union_zigzag_barcode",
    "zigzag_barcode",
]

# Where each is; a name of its own where a room already has the short one.
_PLACES = {
    "HealingOptions": "heal_options",
    "LayerScores": "selection",
    "PairScores": "selection",
    "Planner": "pipeline",
    "PruningOptions": "options",
    "PruningPlan": "plan",
    "Recipe": "sweep.recipe",
    "Sample": "calibration.samples",
    "apply_plan": "pipeline",
    "compare": "comparison.side_by_side",
    "criterion": "registry",
    "export": "surgery.export",
    "heal_model": "heal.healing:heal",
    "html_report": "report.build:report",
    "load_pruned": "surgery.load",
    "make_plan": "pipeline",
    "model_path": "_util.packaged",
    "read_runs": "sweep.run_folders",
    "regress": "comparison.regression",
    "repair_method": "registry:repair",
    "run_sweep": "sweep.recipe",
    "similarity": "topology",
    "tasks_path": "_util.packaged",
    "union_zigzag_barcode": "topology",
    "zigzag_barcode": "topology",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    value = getattr(import_module(f"{__name__}.{module}"), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
