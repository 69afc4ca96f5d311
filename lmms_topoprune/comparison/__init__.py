"""Result files of lmms-eval: read, compared with honest intervals, swept, guarded and shown."""

from lmms_topoprune.comparison.compare import Comparison, compare
from lmms_topoprune.comparison.results import Run, read_run
from lmms_topoprune.comparison.runs import read_runs
from lmms_topoprune.comparison.tables import render, save

__all__ = ["Comparison", "Run", "compare", "read_run", "read_runs", "render", "save"]
