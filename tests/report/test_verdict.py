"""The verdict and the speed-up: what is claimed, and what noise forbids to claim."""

from __future__ import annotations

import math
from dataclasses import replace

import folders
import numpy as np
import pytest

from lmms_topoprune import registry
from lmms_topoprune.comparison.side_by_side import Comparison, compare
from lmms_topoprune.comparison.statistics import Interval
from lmms_topoprune.report.groups import Group, groups
from lmms_topoprune.report.speed import Speed, beaten, speeds
from lmms_topoprune.report.verdict import is_blind, reaches, sentence
from lmms_topoprune.results.reading import Run
from lmms_topoprune.sweep.run_folders import read_runs

LAYERS = 10
ENDS = ((0.9, 1.0), (0.8, 0.95), (0.2, 0.4))


def group(criterion: str, dropped: int, low: float, high: float) -> Group:
    return Group(criterion, dropped, dropped / LAYERS, {}, (low + high) / 2, Interval(low, high))


def empty() -> Comparison:
    return Comparison((), {"vqa": "exact_match"}, "dense", "dense", {"vqa": 9}, 100, 0)


def said(found: list[Group], tolerance: float = 0.05) -> str:
    return sentence(empty(), reaches(found, tolerance), {}, {}, tolerance)


def test_the_whole_interval_has_to_stay_above_the_tolerance():
    found = [group("cosine", 2, 0.97, 1.0), group("cosine", 4, 0.94, 1.06), group("taylor", 2, 0.94, 1.2)]
    cosine, taylor = reaches(found, 0.05)
    assert (cosine.criterion, cosine.largest.dropped) == ("cosine", 2)
    assert taylor.largest is None
    assert reaches(found, 0.07)[0].largest.dropped == 4


def test_a_lucky_draw_behind_a_failure_is_no_limit():
    found = [group("cosine", 2, 0.97, 1.0), group("cosine", 4, 0.5, 0.7), group("cosine", 6, 0.96, 1.1)]
    assert reaches(found, 0.05)[0].largest.dropped == 2


def test_the_furthest_comes_first_and_of_equal_ones_the_better():
    found = [group("a", 4, 0.95, 0.97), group("b", 4, 0.96, 1.0), group("c", 6, 0.95, 0.97)]
    assert [reach.criterion for reach in reaches(found, 0.05)] == ["c", "b", "a"]


def test_of_equal_ones_one_that_looks_at_the_model_is_named():
    found = [group("uniform", 4, 0.97, 1.0), group("cosine", 4, 0.96, 0.99), group("last_n", 2, 0.99, 1.0)]
    assert [reach.criterion for reach in reaches(found, 0.05)] == ["cosine", "uniform", "last_n"]
    blind = {name for name in registry.scoring_names() if is_blind(f"{name} k=7")}
    assert blind == {"random", "uniform", "last_n"} and not is_blind("gone.py:score")


def test_a_random_run_is_never_named_the_best():
    found = [group("random", 6, 0.96, 1.0), group("cosine", 4, 0.97, 1.0)]
    text = said(found)
    assert "cosine goes furthest: it drops 4 layers (40 %)" in text
    assert "do not tell a criterion from chance" in text
    text = said([group("random", 2, 0.96, 1.0), group("cosine", 4, 0.97, 1.0)])
    assert "Random layers stay within it up to 2." in text and "do not tell" not in text
    assert "Random layers never stay within it." in said([group("random", 2, 0.1, 0.2), found[1]])


def test_nothing_within_the_tolerance_is_said_so():
    found = [group("cosine", 2, 0.7, 0.9), group("taylor", 2, 0.5, 0.6), group("random", 2, 0.4, 0.5)]
    text = said(found)
    assert "No criterion stays within the tolerance" in text
    assert "Closest comes cosine without 2 layers (20 %): it keeps " in text and "Random layers keep " in text
    assert "Random layers" not in said([found[0], group("random", 4, 0.1, 0.2)])  # of another number
    assert "Closest comes uniform without 2 layers" in said([*found, group("uniform", 2, 0.8, 0.9)])
    assert "Closest comes cosine without 2 layers" in said([found[0], group("taylor", 4, 0.8, 0.85)])
    nan = float("nan")
    assert "No criterion" in said([group("cosine", 2, nan, nan)])  # where the dense model only guesses


def timed(folder, timings: dict[tuple[str, int], list[float]]) -> tuple[list[Group], list[Run]]:
    """Runs that took so many seconds; the seeds of a criterion drop other layers."""
    for (criterion, count), seconds in timings.items():
        for seed, value in enumerate(seconds):
            dropped = tuple(range(seed, seed + count)) if count else ()
            plan = folders.plan(
                dropped, criterion, stages={"generate": {"seconds": value}}, calibration={"seed": seed}
            )
            rows = folders.exact([1.0, 0.0, 1.0, 1.0] * 5)
            folders.write(folder / f"{criterion}{count}-{seed}", {"vqa": rows}, plan)
    runs = read_runs([folder])
    return groups(compare(runs)), runs


def test_speed_is_the_ratio_of_geometric_means(tmp_path):
    found = speeds(*timed(tmp_path, {("dense", 0): [8.0], ("cosine", 4): [2.0, 8.0]}))["cosine, 4 layers"]
    assert found.value == pytest.approx(2.0)
    # Logs 0.69 and 2.08: deviation 0.98, one degree of freedom (t = 12.7), of 1/2 + 1/1 timings.
    reach = 12.7062 * math.log(4) / math.sqrt(2) * math.sqrt(1.5)
    assert math.log(found.interval.high / found.interval.low) == pytest.approx(2 * reach, rel=1e-4)


def test_noise_is_pooled_over_runs_that_do_as_much_work(tmp_path):
    timings = {("dense", 0): [8.0], ("cosine", 4): [4.0, 4.4], ("taylor", 4): [4.2], ("taylor", 6): [3.0]}
    found = speeds(*timed(tmp_path, timings))
    assert all(math.isfinite(speed.interval.low) for speed in found.values())
    widths = {name: math.log(speed.interval.high / speed.interval.low) for name, speed in found.items()}
    assert widths["taylor, 4 layers"] == pytest.approx(widths["taylor, 6 layers"])  # one timing each
    assert widths["cosine, 4 layers"] < widths["taylor, 4 layers"]


def test_speed_covers_the_truth_as_often_as_it_says(tmp_path):
    """2000 draws of log-normal noise around a speed-up of 2: Student's interval is exact there."""
    rng, hits = np.random.default_rng(0), 0
    timings = {("dense", 0): [8.0], ("cosine", 4): [4.0] * 3, ("taylor", 4): [4.0] * 3}
    found, runs = timed(tmp_path, timings)
    for _ in range(2000):
        for run in runs:
            run.cost["latency_seconds"] = math.exp(rng.normal(0, 0.1)) / (1 if run.is_dense else 2)
        hits += 2.0 in speeds(found, runs)["cosine, 4 layers"].interval
    assert 0.935 < hits / 2000 < 0.965


def test_without_repeated_timings_there_is_no_interval(tmp_path):
    found = speeds(*timed(tmp_path, {("dense", 0): [8.0], ("cosine", 4): [4.0], ("cosine", 6): [2.0]}))
    assert str(found["cosine, 4 layers"]) == "2.00×"
    assert math.isnan(found["cosine, 6 layers"].interval.low)


def test_cells_that_share_an_evaluation_are_one_timing(tmp_path):
    found, runs = timed(tmp_path, {("dense", 0): [8.0], ("cosine", 4): [4.0]})
    again = replace(runs[1], label="taylor 40 %")
    shared = [*found, replace(found[0], criterion="taylor", runs={again.label: 1.0})]
    assert all(math.isnan(speed.interval.low) for speed in speeds(shared, [*runs, again]).values())


def test_beaten_is_who_is_worse_in_both_beyond_noise():
    good, near, slow = (group(name, 4, *ends) for name, ends in zip("abc", ENDS, strict=True))
    found = {
        good.name: Speed(2.0, Interval(1.9, 2.1)),
        near.name: Speed(1.5, Interval(1.4, 1.6)),
        slow.name: Speed(1.5, Interval(1.4, 1.6)),
    }
    assert [beaten(one, [good, near, slow], found) for one in (good, near, slow)] == [False, False, True]
    nan = float("nan")
    unknown = {name: Speed(speed.value, Interval(nan, nan)) for name, speed in found.items()}
    assert not beaten(slow, [good], unknown)
