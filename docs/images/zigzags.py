"""The two pictures of docs/topology.md: real complexes of three small clouds, and their real bars.

    python docs/images/zigzags.py

A ring of points is turned a little, then moved aside. Through intersections its loop lives on, because
labels say which point is which; through unions it ends where the ring leaves its place.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lmms_topoprune.topology import Barcode, Neighbors, neighbors_barcode
from lmms_topoprune.topology.complexes import Graph, flag_simplices

K, COUNT = 4, 14
WIDTH, HEIGHT, PANEL, GAP, TOP = 1010, 264, 186, 10, 40
COLORS = ("#1b6ca8", "#c8553d", "#3a7d44")
INK, GRAY = "#333333", "#6b6b6b"
TITLES = {
    "intersections": "A ring that is turned, then moved: its loop lives on",
    "unions": "A ring that is turned, then moved: its loop ends, another begins",
}


def rings() -> np.ndarray:
    """(3, COUNT, 2): a ring, the same turned by half a step, and that one moved aside."""
    rng = np.random.default_rng(3)
    turns = np.array([0.0, 0.5, 0.5])[:, None]
    angle = 2 * np.pi * (np.arange(COUNT) + turns) / COUNT
    points = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    points[1:] += 0.11 * rng.normal(size=points[1:].shape)
    points[2] += np.array([2.3, 0.0])
    return points


def place(points: np.ndarray, panel: int) -> np.ndarray:
    """Pixels of a panel; all panels show the same part of the plane."""
    low, high = -1.3, 3.6
    left = 20 + panel * (PANEL + GAP)
    scale = PANEL / (high - low)
    return np.stack([left + (points[:, 0] - low) * scale, TOP + 78 - points[:, 1] * scale], axis=1)


def drawn(graph: Graph, pixels: np.ndarray, colors: list[str]) -> list[str]:
    """Triangles, edges and vertices of a flag complex."""
    out = []
    simplices = flag_simplices(graph, 2)
    for simplex in sorted(simplices, key=len, reverse=True):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels[list(simplex)])
        shades = {colors[v] for v in simplex}
        color = shades.pop() if len(shades) == 1 else "#8a8a8a"
        if len(simplex) == 3:
            out.append(f'<polygon points="{points}" fill="{color}" fill-opacity="0.22"/>')
        elif len(simplex) == 2:
            out.append(f'<polyline points="{points}" stroke="{color}" stroke-width="0.9" fill="none"/>')
        else:
            x, y = pixels[simplex[0]]
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{color}"/>')
    return out


def text(x: float, y: float, words: str, size: int = 13, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{INK}">{words}</text>'
    )


def center(panel: int) -> float:
    return 20 + panel * (PANEL + GAP) + PANEL / 2


def bars_drawn(barcode: Barcode) -> list[str]:
    """One line a bar of H1 under the panels, from its first index to its last."""
    out = [text(20, 206, "loops (H1)", 12, "start")]
    for row, (birth, death) in enumerate(barcode.bars(1).tolist()):
        y = 222 + 13 * row
        start, end = center(birth) - 60, center(death - 1) + 60
        out.append(
            f'<line x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}" stroke="{INK}" stroke-width="5" '
            'stroke-linecap="round"/>'
        )
    return out


def picture(
    title: str, panels: list[list[str]], labels: list[str], signs: list[str], barcode: Barcode
) -> str:
    body = [part for panel in panels for part in panel]
    body += [text(center(i), 30, label, 14) for i, label in enumerate(labels)]
    body += [text((center(i) + center(i + 1)) / 2, 30, sign, 16) for i, sign in enumerate(signs)]
    body += bars_drawn(barcode)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'font-family="sans-serif">',
            f"<title>{title}</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
            *body,
            "</svg>\n",
        ]
    )


def indexed(letter: str, index: int) -> str:
    """X with a lower index."""
    return f'{letter}<tspan dy="4" font-size="10">{index}</tspan><tspan dy="-4">\u200b</tspan>'


def main() -> None:
    points = rings()
    neighbors = Neighbors.of(points, K, unions="adjacent")
    graphs = [neighbors.graph(state, K) for state in range(3)]
    own = [drawn(graphs[s], place(points[s], 2 * s), [COLORS[s]] * COUNT) for s in range(3)]
    states = [indexed("K", s) for s in range(3)]
    for through, sign in (("intersections", "⊇⊆"), ("unions", "⊆⊇")):
        panels, labels = [own[0]], [states[0]]
        for s in range(2):
            if through == "intersections":
                between = drawn(graphs[s] & graphs[s + 1], place(points[s], 2 * s + 1), [GRAY] * COUNT)
                labels += [f"{states[s]} ∩ {states[s + 1]}", states[s + 1]]
            else:
                both = place(np.concatenate([points[s], points[s + 1]]), 2 * s + 1)
                colors = [COLORS[s]] * COUNT + [COLORS[s + 1]] * COUNT
                between = drawn(neighbors.union_graph(s, s + 1, K), both, colors)
                labels += [f"K({indexed('X', s)} ∪ {indexed('X', s + 1)})", states[s + 1]]
            panels += [between, own[s + 1]]
        barcode = neighbors_barcode(neighbors, k=K, through=through)
        file = Path(__file__).parent / f"zigzag-{through}.svg"
        file.write_text(picture(TITLES[through], panels, labels, list(sign * 2), barcode), encoding="utf-8")
        print(through, barcode.bars(1).tolist())


if __name__ == "__main__":
    main()
