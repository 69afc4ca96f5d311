"""What is said of a run: within the tolerance, worse than it, or neither; never both."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from lmms_topoprune.comparison.paired import LEVEL, Cell, Table, cell_of, within, worse
from lmms_topoprune.comparison.statistics import NONE, Interval
from lmms_topoprune.results.scores import UnitScores

TOLERANCE = 0.1


def cell_between(dense: np.ndarray, pruned: np.ndarray, chance: float = 0.0) -> Cell:
    units = tuple(map(str, range(len(dense))))
    runs = [UnitScores("exact_match", units, scores, chance) for scores in (dense, pruned)]
    table = Table.of(runs, [("dense", [0]), ("pruned", [1])], rounds=400, seed=0)
    return cell_of([(table, 1.0)], (1, 0, 0), seed=0)


@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_no_run_is_within_the_tolerance_and_worse_than_it(chance):
    rng, said = np.random.default_rng(0), Counter()
    for _ in range(400):
        units = int(rng.choice([5, 20, 200, 1000]))
        dense = (rng.random(units) < 0.9).astype(float)
        pruned = np.where(rng.random(units) < rng.choice([0.01, 0.05, 0.3]), 0.0, dense)
        cell = cell_between(dense, pruned, chance)
        lost = TOLERANCE * (dense.mean() - chance)
        said[within(cell.corrected_interval, TOLERANCE), worse(cell, lost)] += 1
    assert said[True, True] == 0
    assert min(said[True, False], said[False, True], said[False, False]) > 20


def test_the_edges_of_both_rules():
    assert within(Interval(0.95, 1.0), 0.05) and not within(Interval(0.9499, 1.2), 0.05)
    assert not within(NONE, 0.99)
    cell = cell_between(np.ones(100), np.r_[np.ones(90), np.zeros(10)])
    assert cell.p <= LEVEL and worse(cell, 0.0) and worse(cell, 0.099) and not worse(cell, 0.1)
    few = cell_between(np.ones(10), np.r_[np.ones(9), 0.0])
    assert few.p > LEVEL and not worse(few, 0.0) and not within(few.corrected_interval, 0.05)
    assert not math.isnan(few.corrected_interval.low)
