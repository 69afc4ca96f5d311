"""What the figures show of plans, states and answers."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import folders
import numpy as np
import pytest

from lmms_topoprune.comparison.statistics import Interval
from lmms_topoprune.plan import runs
from lmms_topoprune.report.barcodes import LEFT, SIDE, TOP, similarity_figures
from lmms_topoprune.report.groups import Group
from lmms_topoprune.report.layers import mean_ranks, ranks_figure, strips
from lmms_topoprune.report.retention import retention_figure
from lmms_topoprune.report.trial_chart import trial_figures
from lmms_topoprune.results.similarity import Shape


def group(criterion: str, dropped: int, low: float, high: float) -> Group:
    return Group(criterion, dropped, dropped / 10, {}, (low + high) / 2, Interval(low, high))


def marks(svg: str) -> list[ElementTree.Element]:
    return [part for part in ElementTree.fromstring(svg).iter() if "mark" in (part.get("class") or "")]


def test_seeds_shade_the_layers():
    plans = [
        folders.plan(dropped, calibration={"seed": seed})
        for seed, dropped in enumerate([(3, 4), (3, 5), (3, 4), (3, 6)])
    ]
    (strip,) = strips(plans)
    assert strip.seeds == 4 and strip.shares.tolist() == [0, 0, 0, 1, 0.5, 0.25, 0.25, 0, 0, 0]


def test_strips_come_by_criterion_and_sparsity():
    plans = [folders.plan(d, c) for c, d in [("taylor", (1, 2)), ("cosine", (1, 2, 3)), ("cosine", (4,))]]
    assert [s.name for s in strips(plans)] == ["cosine, 1 of 10", "cosine, 3 of 10", "taylor, 2 of 10"]


def test_ranks_are_places_in_the_order_of_going():
    scores = (0.0, 5.0, 1.0, 3.0, 3.0, -1.0, -2.0, -3.0, -4.0, -5.0)
    plan = folders.plan((1,), "cosine", scores=scores)
    assert mean_ranks([plan])["cosine"].tolist() == [5, 1, 4, 2.5, 2.5, 6, 7, 8, 9, 10]
    other = folders.plan((9,), "cosine", scores=scores[::-1], calibration={"seed": 1})
    assert mean_ranks([plan, other])["cosine"][1] == 5  # first in one, ninth in the other


def test_the_dropped_layers_have_dots_among_the_ranks():
    plan = folders.plan((1, 3), "cosine", scores=tuple(range(10)))
    figure = ranks_figure([plan], {"cosine": strips([plan])[0]})
    assert figure.images[0].count('class="dot"') == 2
    assert ranks_figure([folders.plan((1,), "given")], {}) is None


def test_blocks_are_outlined_by_the_states_they_lie_between():
    assert runs((3, 4, 5, 9)) == [range(3, 6), range(9, 10)]
    plan = folders.plan((3, 4, 5, 9))
    (figure,) = similarity_figures({"topology": Shape(np.eye(11).tolist())}, {"topology": strips([plan])[0]})
    outlines = [p for p in ElementTree.fromstring(figure.images[0]).iter() if p.get("class") == "outline"]
    size = SIDE / 11
    # Layers 3..5 lie between states 3 and 6: their cells are 3, 4, 5 and 6.
    found = [[float(o.get(name)) for name in ("x", "y", "width", "height")] for o in outlines]
    assert found[0] == pytest.approx([LEFT + 3 * size, TOP + 3 * size, 4 * size, 4 * size], abs=0.02)
    assert found[1] == pytest.approx([LEFT + 9 * size, TOP + 9 * size, 2 * size, 2 * size], abs=0.02)


def test_equal_maps_are_drawn_once():
    same = [[1.0, 0.5], [0.5, 1.0]]
    found = similarity_figures({"a": Shape(same), "b": Shape(same), "c": Shape(None)}, {})
    assert [figure.name for figure in found] == ["State similarity, a, b"]


def test_a_zoomed_axis_has_a_mark_and_a_full_one_none():
    names = {"cosine": 0}
    high = retention_figure([group("cosine", 2, 0.97, 0.99), group("cosine", 4, 0.9, 0.95)], names)
    low = retention_figure([group("cosine", 2, 0.97, 0.99), group("cosine", 4, 0.1, 0.2)], names)
    assert "axis begins at 89.4" in high.images[0] and 'class="axis broken"' in high.images[0]
    assert "axis begins" not in low.images[0] and ">0</text>" in low.images[0]


def test_one_sparsity_is_a_dot_plot_with_the_best_on_top():
    found = [group("a", 4, 0.5, 0.7), group("b", 4, 0.8, 0.9), group("c", 4, 0.6, 0.7)]
    figure = retention_figure(found, {"a": 0, "b": 1, "c": 2})
    assert "polyline" not in figure.images[0].replace('class="axis broken"', "").split("</polyline>")[-1]
    places = {}
    for mark in marks(figure.images[0]):
        said = mark[0].text.split(",")[0]
        if mark.get("cy"):
            places[said] = float(mark.get("cy"))
        elif mark.get("y"):
            places[said] = float(mark.get("y")) + float(mark.get("height")) / 2
        else:
            corners = re.findall(r"[\d.]+,([\d.]+)", mark.get("points"))
            places[said] = np.mean([float(corner) for corner in corners])
    assert sorted(places, key=places.get) == ["b", "c", "a"]
    assert "layers dropped (%)" not in figure.images[0]


def test_bands_and_names_of_the_lines():
    found = [group("a", n, 0.9 - n / 20, 1 - n / 20) for n in (2, 4)] + [group("b", 2, 0.9, 1)]
    figure = retention_figure([*found, group("b", 4, 0.71, 0.79)], {"a": 0, "b": 1})
    wide = figure.images[0]
    assert wide.count('class="band') == 2 and wide.count("direct") == 2
    ends = [float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)" class="t\d direct"', wide)]
    assert abs(ends[0] - ends[1]) >= 14.9  # both end at 75 %


def test_trials_show_every_proposal_and_the_winner():
    recorded = (
        {"by": "topology", "how": "path", "dropped": [3, 4], "loss": 2.3, "also": ["unions k=7, rank"]},
        {"by": "cosine", "dropped": [5, 6], "loss": 2.2},
        {"by": "swap", "dropped": [3, 6], "loss": 2.1},
        {"by": "swap", "dropped": [4, 6], "loss": 2.4},
    )
    (figure,) = trial_figures(
        {"run": folders.plan(trials=recorded), "other": folders.plan()}, {"cosine": 0, "topology": 1}
    )
    rows = [list(row) for row in figure.table.rows]
    assert rows[0][1] == "topology path; unions k=7, rank"
    assert rows[2] == ["3", "swap", "3+6", "2.1000", "won"] and [row[-1] for row in rows].count("won") == 1
    assert figure.legend == {"topology": 1, "cosine": 0, "swap": 2}  # criteria look as elsewhere
    assert "4 trials; swap proposed the winner, 3+6" in figure.caption
    assert figure.images[0].count('class="mark') == 4 and figure.images[0].count('class="ring"') == 1
    ring = re.search(r'cx="([\d.]+)" cy="([\d.]+)" r="9"', figure.images[0])
    assert len(marks(figure.images[0])) == 4
    lowest = max(float(y) for y in re.findall(r'cy="([\d.]+)"', figure.images[0]))
    assert float(ring[2]) == lowest
