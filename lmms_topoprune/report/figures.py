"""A comparison as one figure for a paper, drawn by matplotlib: PDF or SVG with the report's own numbers."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmms_topoprune._util.escape import printable
from lmms_topoprune.comparison.side_by_side import Comparison, Row
from lmms_topoprune.errors import MissingExtraError
from lmms_topoprune.plan import parse_layers, runs
from lmms_topoprune.results.similarity import Shape

COLORS = ("#0072b2", "#c04a00", "#007a5a", "#a3487f", "#856800", "#22252b", "#6b4fa0", "#868c98")
"""After Okabe and Ito, as in the report."""
MARKS = "osD^vPX*"
MOST_MAPS = 4


def figure(comparison: Comparison, form: str, shapes: Mapping[str, Shape] | None = None) -> bytes:
    """Quality kept against sparsity and speed-up, the layers dropped, and the similarity of the states.

    Args:
        comparison: what `compare` made of the runs.
        form: "pdf" or "svg".
        shapes: criterion -> what it saw of the states; blocks that its plans drop are outlined.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(
            "a figure needs matplotlib; install it in the clone with: pip install '.[plots]'"
        ) from None
    rows = [row for row in comparison.together or comparison.rows if row.criterion != "dense"]
    speeds = _speed_ups(comparison, rows)
    maps = {name: shape for name, shape in (shapes or {}).items() if shape.similarity is not None}
    panels: list[Callable[[Any], None]] = [
        lambda ax: _retention(ax, rows, lambda row: 100 * row.sparsity, "layers dropped (%)")
    ]
    if speeds:
        panels.append(
            lambda ax: _retention(ax, rows, lambda row: speeds.get(row.label), "speed-up over dense")
        )
    panels.append(lambda ax: _strips(ax, rows))
    panels += [
        lambda ax, name=name, shape=shape: _map(ax, name, shape, rows)  # type: ignore[misc]
        for name, shape in list(maps.items())[:MOST_MAPS]
    ]
    with matplotlib.rc_context({"font.size": 8, "svg.hashsalt": "topoprune", "pdf.fonttype": 42}):
        columns = min(2, len(panels))
        lines = math.ceil(len(panels) / columns)
        drawn = Figure(figsize=(3.4 * columns, 2.8 * lines), layout="constrained")
        for number, panel in enumerate(panels):
            panel(drawn.add_subplot(lines, columns, number + 1))
        out = io.BytesIO()
        nothing = {"Date": None} if form == "svg" else {"CreationDate": None}
        drawn.savefig(out, format=form, metadata=nothing)
    return out.getvalue()


def _retention(ax: Any, rows: Sequence[Row], place: Callable[[Row], float | None], heading: str) -> None:
    """Chance-corrected retention with its interval; a line through each criterion."""
    ax.axhline(100, color="#868c98", linewidth=0.8, linestyle="--")
    ax.axhline(0, color="#868c98", linewidth=0.8, linestyle=":")
    for number, criterion in enumerate(sorted({row.criterion for row in rows})):
        points = sorted(
            (
                (x, row.overall)
                for row in rows
                if row.criterion == criterion and (x := place(row)) is not None
            ),
            key=lambda point: point[0],
        )
        points = [point for point in points if math.isfinite(point[1].corrected)]
        if not points:
            continue
        xs, ys = [x for x, _ in points], [100 * cell.corrected for _, cell in points]
        below = [_reach(cell.corrected - cell.corrected_interval.low) for _, cell in points]
        above = [_reach(cell.corrected_interval.high - cell.corrected) for _, cell in points]
        ax.errorbar(
            xs,
            ys,
            [below, above],
            color=COLORS[number % len(COLORS)],
            marker=MARKS[number % len(MARKS)],
            markersize=3,
            linewidth=1,
            elinewidth=0.6,
            label=_text(criterion),
        )
    ax.set(xlabel=heading, ylabel="kept over chance (%)")
    if rows:
        ax.legend(fontsize=6, frameon=False)


def _reach(share: float) -> float:
    """Of an interval to one side, in percent; none where there is no interval."""
    return 100 * max(0.0, share) if math.isfinite(share) else 0.0


def _text(text: str) -> str:
    """Without what matplotlib would read as a formula, or leave out of a legend."""
    text = printable(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _speed_ups(comparison: Comparison, rows: Sequence[Row]) -> dict[str, float]:
    """Label -> dense latency / latency, for runs that tell both."""
    dense = next(row for row in comparison.rows if row.label == comparison.dense)
    base = dense.cost.get("latency_seconds")
    found = {row.label: row.cost.get("latency_seconds") for row in rows}
    return {label: base / own for label, own in found.items() if base and own}


def _dropped(row: Row) -> list[tuple[int, ...]]:
    """The layers each of a row's seeds drops."""
    return [() if text == "none" else parse_layers(text) for text in row.dropped.split(" / ")]


def _strips(ax: Any, rows: Sequence[Row]) -> None:
    """One line a run, one square a layer; where seeds disagree, the darker the more of them drop it."""
    ordered = sorted(rows, key=lambda row: (row.criterion, row.sparsity, row.label))
    layers = max((row.layers for row in ordered), default=1)
    shares = [[0.0] * layers for _ in ordered]
    for line, row in enumerate(ordered):
        each = _dropped(row)
        for layer in (layer for dropped in each for layer in dropped):
            shares[line][layer] += 1 / len(each)
    if ordered:
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1.2, aspect="auto", interpolation="nearest")
        ax.set_yticks(range(len(ordered)), [_text(row.label) for row in ordered], fontsize=5)
    ax.set(xlabel="decoder layer (filled: dropped)")


def _map(ax: Any, name: str, shape: Shape, rows: Sequence[Row]) -> None:
    """Similarity of the states; the blocks that the criterion's plans drop are outlined."""
    from matplotlib.patches import Rectangle

    drawn = ax.imshow(shape.similarity, cmap="viridis", interpolation="nearest", origin="lower")
    ax.figure.colorbar(drawn, ax=ax, fraction=0.046)
    own = [row for row in rows if row.criterion == name]
    for row in own[-1:]:
        for run in runs(_dropped(row)[0]):
            corner, side = run.start - 0.5, len(run) + 1  # from the run's input state to its output
            ax.add_patch(Rectangle((corner, corner), side, side, fill=False, edgecolor="#c04a00"))
    ax.set(title=_text(name), xlabel="state", ylabel="state")
