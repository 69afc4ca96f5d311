"""What intervals and tests claim, against worlds in which the truth is known."""

from __future__ import annotations

import json
from dataclasses import replace

import folders
import numpy as np
import pytest

from lmms_topoprune.comparison import statistics as st
from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.results.reading import read_run
from lmms_topoprune.sweep.run_folders import read_runs

WORLDS = 400


def draws(scores, seed, clusters=(), strata=()):
    weights = np.full(scores.shape[1], 1 / scores.shape[1])
    return st.Draws.of(scores, weights, 400, seed, strata, clusters)


@pytest.mark.parametrize("n", [5, 10, 20, 50])
@pytest.mark.parametrize("truth", [0.03, 0.1, 0.5, 0.9, 0.97])
def test_an_interval_of_a_score_covers_the_truth(n, truth):
    """All worlds share their draws, as the runs of a comparison do."""
    scores = (np.random.default_rng(n).random((WORLDS, n)) < truth).astype(float)
    found = draws(scores, 1)
    covered, widths = 0, []
    for world in range(WORLDS):
        interval = st.percentile_interval(found.pair(world, world)[0])
        low = 0.0 if not scores[world].any() else interval.low
        high = 1.0 if scores[world].all() else interval.high
        covered += low <= truth <= high
        widths.append(interval.high - interval.low)
    assert covered / WORLDS >= 0.90
    assert min(widths) > 0.5 / n


@pytest.mark.parametrize("n", [5, 10, 20, 50])
@pytest.mark.parametrize(
    ("dense", "pruned"), [(0.97, 0.95), (0.95, 0.5), (0.6, 0.5), (0.1, 0.05), (0.9, 0.1)]
)
def test_an_interval_of_a_difference_covers_the_truth(n, dense, pruned):
    """What is hard is mostly hard for both."""
    rng = np.random.default_rng(n)
    hard = rng.random((WORLDS, n))
    other = np.where(rng.random((WORLDS, n)) < 0.6, hard, rng.random((WORLDS, n)))
    scores = np.concatenate([hard < dense, other < pruned]).astype(float)
    found, covered = draws(scores, 2), 0
    for world in range(WORLDS):
        first, second = found.pair(world, WORLDS + world)
        covered += (dense - pruned) in st.percentile_interval(first - second)
    assert covered / WORLDS >= 0.89


def test_twins_that_move_together_are_one_document():
    """Shared cases, 11: without clusters p <= 0.05 came in 13.9 % of these worlds, where nothing differs."""
    rng = np.random.default_rng(0)
    names = np.repeat(np.arange(294), 2)
    p_values, apart = [], []
    for _ in range(1000):
        image = rng.choice([-1.0, 0.0, 1.0], size=294, p=[0.1, 0.8, 0.1])
        p_values.append(st.sign_flip_p(np.repeat(image, 2) / 588, clusters=names))
        apart.append(st.sign_flip_p(np.repeat(image, 2) / 588))
    assert np.mean(np.array(p_values) <= 0.05) <= 0.06
    assert np.mean(np.array(apart) <= 0.05) > 0.1  # the simulation can tell


def test_intervals_of_twins_are_as_wide_as_those_of_images():
    rng = np.random.default_rng(1)
    images = (rng.random((1, 100)) < 0.7).astype(float)
    together = draws(np.repeat(images, 2, axis=1), 3, [str(i // 2) for i in range(200)])
    alone, apart = draws(images, 3), draws(np.repeat(images, 2, axis=1), 3)
    width = {name: np.std(d.pair(0, 0)[0]) for name, d in (("t", together), ("a", alone), ("p", apart))}
    assert width["t"] == pytest.approx(width["a"], rel=0.1) and width["p"] < 0.8 * width["t"]


def test_tiny_strata_are_drawn_together():
    """Categories of one document each leave nothing to draw within."""
    scores = np.array([[1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0]])
    strata = [f"category {i}" for i in range(8)]
    drawn = st.bootstrap_scores(scores, np.full(8, 1 / 8), 500, 0, strata)
    assert np.std(drawn) == pytest.approx(
        np.std(st.bootstrap_scores(scores, np.full(8, 1 / 8), 500, 0)), rel=0.1
    )


def two(tmp_path, dense, pruned, **changes):
    folders.write(tmp_path / "a", {"vqa": folders.exact(dense)}, folders.plan((), "dense"))
    folders.write(tmp_path / "b", {"vqa": folders.exact(pruned)}, folders.plan(), **changes)
    return compare(read_runs([tmp_path])).rows[1]


@pytest.mark.parametrize(
    ("dense", "pruned"), [([1.0] * 4, [1.0] * 4), ([1.0] * 3, [0.0] * 3), ([1.0], [0.0])]
)
def test_a_few_documents_that_agree_are_no_certainty(tmp_path, dense, pruned):
    cell = two(tmp_path, dense, pruned).overall
    for interval in (cell.score_interval, cell.difference_interval, cell.retention_interval):
        assert interval.high - interval.low > 0.1
    assert cell.p >= 0.25


def test_rounding_is_no_difference(tmp_path):
    cell = two(tmp_path, [0.3] * 12, [0.1 + 0.2] * 12).overall
    assert cell.p == 1.0 and 0.0 in cell.difference_interval


def test_scores_without_bounds_that_all_agree_have_no_interval_and_the_reason_is_said(tmp_path):
    for name, plan in (("a", folders.plan((), "dense")), ("b", folders.plan())):
        folders.write(tmp_path / name, {"cap": [folders.row(i, cider=1.5) for i in range(9)]}, plan)
    comparison = compare(read_runs([tmp_path]))
    assert np.isnan(comparison.rows[1].cells["cap"].score_interval.low)
    assert "cap has no interval: fewer than 5 documents, or all agree." in comparison.notes


def clustered(folder, scores, plan):
    rows = [folders.row(i, accuracy={"score": s, "image_id": f"i{i // 2}"}) for i, s in enumerate(scores)]
    path = folders.write(folder, {"vqa": rows}, plan)
    results = json.loads(path.read_text())
    results["configs"]["vqa"]["cluster_key"] = "image_id"
    path.write_text(json.dumps(results))
    return read_run(path)


def test_a_comparison_flips_and_draws_clusters(tmp_path):
    dense = clustered(tmp_path / "a", [1.0] * 12, folders.plan((), "dense"))
    pruned = clustered(tmp_path / "b", [0.0] * 12, folders.plan())
    cell = compare([dense, pruned]).rows[1].cells["vqa"]
    assert cell.p == pytest.approx(2 * 0.5**6)  # six images, not twelve documents


SEEDS = (0, 1, 2)


@pytest.fixture
def seeds(tmp_path):
    rng = np.random.default_rng(0)
    folders.write(tmp_path / "d", {"vqa": folders.exact([1.0] * 90 + [0.0] * 10)}, folders.plan((), "dense"))
    for seed, right in zip(SEEDS, (50, 60, 85), strict=True):
        scores = list(rng.permutation([1.0] * right + [0.0] * (100 - right)))
        plan = folders.plan((seed, 5), "random", parameters={"seed": seed, "sparsity": 0.2})
        folders.write(tmp_path / f"s{seed}", {"vqa": folders.exact(scores)}, plan)
    return read_runs([tmp_path])


def test_seeds_of_a_repair_are_one_row_as_well(tmp_path):
    """Evenly spaced layers need no samples, but what repairs them was fitted to those of a seed."""
    folders.write(tmp_path / "d", {"vqa": folders.exact([1.0] * 20)}, folders.plan((), "dense"))
    for seed in SEEDS:
        fitted = {
            "method": "linear",
            "version": 1,
            "ridge": 0.1,
            "source": "embedded",
            "samples": 8,
            "seed": seed,
        }
        plan = replace(folders.plan((3, 5), "uniform"), repair={**fitted, "fingerprint": f"{seed:016x}"})
        folders.write(tmp_path / f"s{seed}", {"vqa": folders.exact([1.0, 0.0] * 10)}, plan)
    labels = [row.label for row in compare(read_runs([tmp_path])).rows[1:]]
    assert len(labels) == 1 and labels[0].endswith("(3 seeds)")


def test_seeds_are_one_row_with_the_noise_between_them(seeds):
    together, apart = compare(seeds), compare(seeds, every_seed=True)
    assert [row.label for row in together.rows] == ["dense", "random 20 % (3 seeds)"]
    assert [row.label for row in apart.rows[1:]] == [f"random 20 % seed {s}" for s in (2, 1, 0)]
    row = together.rows[1]
    assert row.overall.score == pytest.approx(0.65) and sorted(row.runs.values()) == pytest.approx(
        [0.5, 0.6, 0.85]
    )
    assert row.dropped == "0+5 / 1+5 / 2+5" and row.criterion == "random"
    wide = row.overall.difference_interval
    narrow = apart.rows[1].overall.difference_interval
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert row.overall.p > apart.rows[3].overall.p


def test_an_interval_over_few_seeds_covers_the_mean_of_all():
    """Seeds whose true scores are spread by 0.1, three of them seen on 200 documents."""
    rng = np.random.default_rng(5)
    covered = 0
    for world in range(200):
        truths = np.clip(rng.normal(0.6, 0.1, 3), 0, 1)
        scores = (rng.random((3, 200)) < truths[:, None]).astype(float)
        found = draws(scores.mean(axis=0)[None], world)
        noise = st.seed_noise(list(scores.mean(axis=1)), 400, world)
        covered += 0.6 in st.percentile_interval(found.pair(0, 0)[0] + noise)
    assert covered / 200 >= 0.91
