"""The README's picture and its table: quality kept over chance against measured speed-up, a panel a model.

    topoprune sweep --criteria zigzag_trials,zigzag_influence,block_influence,uniform,random \\
        --sparsities 0.1,0.2,0.3,0.4,0.5 --seeds 0,1,2 --limit 100 --samples 256 -o runs/figure/embedded
    topoprune sweep --pretrained runs/lvlm --criteria ... -o runs/figure/lvlm
    python benchmarks/figure.py "embedded=runs/figure/embedded" \\
        "pretrained=runs/figure/lvlm:topoprune_vqa,topoprune_yesno" --picture docs/images/front.svg

Beside the picture its numbers are written, as front.json. "pretrained=docs/images/front.json" takes a panel
from there, so that another one can be made anew by itself.

The speed-up is measured here, once for each number of layers that go: the processor time of answering 16
questions of topoprune_vqa, four tokens each, dense and pruned in turn. Layers are alike, so which of them go
makes no difference.
"""

from __future__ import annotations

import json
import math
import time
import zipfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy import stats
from transformers import AutoModelForImageTextToText, AutoProcessor

from lmms_topoprune import model_path, tasks_path
from lmms_topoprune.comparison.columns import interval, percent
from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.comparison.statistics import Interval
from lmms_topoprune.report.figures import COLORS, MARKS
from lmms_topoprune.report.groups import Group, by_criterion, groups
from lmms_topoprune.report.speed import Speed
from lmms_topoprune.surgery import delete_layers
from lmms_topoprune.sweep.run_folders import read_runs

FLOOR = "random"
HEIGHT = 3.6  # inches
LABEL = 0.05  # least distance of two labels, in parts of the height


def measured(folder: Path, tasks: list[str], rounds: int) -> tuple[list[Group], dict[int, Speed]]:
    """Every criterion and number of layers of a sweep, on some tasks or all, and each number's speed-up."""
    found = groups(compare(read_runs([folder], tasks), every_seed=True))
    given = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["model_args"]
    name = dict(part.split("=", 1) for part in given.split(","))["pretrained"]
    return found, speeds(name, sorted({group.dropped for group in found}), rounds)


def noted(name: str, file: Path) -> tuple[list[Group], dict[int, Speed]]:
    """The same as an earlier picture's numbers tell it."""
    known = json.loads(file.read_text(encoding="utf-8"))[name]
    found = [Group(**{**group, "interval": Interval(**group["interval"])}) for group in known["groups"]]
    speed = {
        int(count): Speed(one["value"], Interval(**one["interval"])) for count, one in known["speeds"].items()
    }
    return found, speed


def speeds(name: str, counts: Iterable[int], rounds: int) -> dict[int, Speed]:
    """Number of layers that go -> how many times as fast; Student's interval of the logarithm over rounds."""
    folder = model_path() if name == "embedded" else name
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    inputs = questions(AutoProcessor.from_pretrained(folder))

    def seconds() -> float:
        start = time.process_time()
        model.generate(**inputs, min_new_tokens=4, max_new_tokens=4, do_sample=False)
        return time.process_time() - start

    seconds()  # what is done once
    found = {}
    for count in counts:
        logs = []
        for _ in range(rounds):
            dense = seconds()
            with delete_layers(model, range(1, 1 + count)):
                logs.append(math.log(dense / seconds()))
        reach = stats.t.ppf(0.975, rounds - 1) * np.std(logs, ddof=1) / math.sqrt(rounds)
        ends = Interval(math.exp(np.mean(logs) - reach), math.exp(np.mean(logs) + reach))
        found[count] = Speed(math.exp(np.mean(logs)), ends)
    return found


def questions(processor: Any, count: int = 16) -> Any:
    """The first questions of topoprune_vqa with their pictures, as one batch."""
    data = tasks_path() / "data"
    rows = [
        json.loads(line) for line in (data / "vqa.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    ]
    with zipfile.ZipFile(data / "images.zip") as archive:
        pictures = [Image.open(archive.open(f"{row['image_id']}.png")).convert("RGB") for row in rows]
    contents = [[{"type": "image"}, {"type": "text", "text": row["question"]}] for row in rows]
    prompts = [
        processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        for content in contents
    ]
    return processor(images=pictures, text=prompts, padding=True, return_tensors="pt")


def panel(ax: Any, name: str, found: list[Group], speed: dict[int, Speed], colors: dict[str, str]) -> None:
    """Draw one model: a line a criterion, its intervals, and its name at the end of the line."""
    ax.axhline(100, color="gray", linewidth=0.8, linestyle="--")
    ax.axhline(0, color="gray", linewidth=0.8, linestyle=":")
    ends: list[tuple[float, float, str]] = []
    for number, (criterion, own) in enumerate(by_criterion(found).items()):
        shown = [group for group in own if math.isfinite(group.kept)]
        if not shown:
            continue
        x, y = [speed[g.dropped].value for g in shown], [100 * g.kept for g in shown]
        ends.append((y[-1], x[-1], criterion))
        style = {"linestyle": ":"} if criterion == FLOOR else {}
        ax.plot(x, y, marker=MARKS[number % len(MARKS)], ms=4, lw=1.4, color=colors[criterion], **style)
        for group, left in zip(shown, x, strict=True):
            kept = group.interval
            if criterion == FLOOR:  # its seeds say more than an interval of a few
                ax.scatter(
                    [left] * len(group.runs), [100 * v for v in group.runs.values()], s=6, color="gray"
                )
            elif math.isfinite(kept.low):
                ax.plot([left, left], [100 * kept.low, 100 * kept.high], color=colors[criterion], lw=0.8)
    ax.set(
        title=name,
        xlabel="times as fast as dense (processor time)",
        ylabel="kept over chance (%)",
        ylim=(-10, 112),
    )
    label(ax, ends, colors)
    ax.spines[["top", "right"]].set_visible(False)


def label(ax: Any, ends: list[tuple[float, float, str]], colors: dict[str, str]) -> None:
    """Names at the right ends of the lines, moved apart where they would touch, up from below the axis."""
    low, high = ax.get_ylim()
    place = -math.inf
    right = max((x for _, x, _ in ends), default=1.0)
    for y, _, criterion in sorted(ends):
        place = max(y, low, place + LABEL * (high - low))
        ax.annotate(criterion, (right, place), (6, 0), textcoords="offset points", va="center", fontsize=8,
                    color=colors[criterion], annotation_clip=False)  # fmt: skip


def table(name: str, found: list[Group], speed: dict[int, Speed]) -> str:
    """Markdown: a row a criterion, a column a share of layers; percent kept over chance and its interval."""
    counts = sorted({group.dropped for group in found})
    lines = [f"| {name} | " + " | ".join(f"{count} gone" for count in counts) + " |"]
    lines.append("|---|" + "---:|" * len(counts))
    for criterion, own in by_criterion(found).items():
        cells = {g.dropped: f"{percent(g.kept)} ({interval(g.interval)})" for g in own}
        lines.append(f"| `{criterion}` | " + " | ".join(cells.get(count, "") for count in counts) + " |")
    lines.append("| *speed-up* | " + " | ".join(str(speed[count]) for count in counts) + " |")
    return "\n".join(lines) + "\n"


@click.command(help=__doc__)
@click.argument("sweeps", nargs=-1, required=True, metavar="NAME=FOLDER[:TASK,TASK]|FILE ...")
@click.option("--picture", type=click.Path(path_type=Path), required=True, help="Write the SVG here.")
@click.option("--table", "tables", type=click.Path(path_type=Path), help="Write the Markdown tables here.")
@click.option("--rounds", default=9, show_default=True, help="Timings of each number of layers.")
def main(sweeps: tuple[str, ...], picture: Path, tables: Path | None, rounds: int) -> None:
    found = {}
    for sweep in sweeps:
        name, _, place = sweep.partition("=")
        folder, _, tasks = place.partition(":")
        if folder.endswith(".json"):
            found[name] = noted(name, Path(folder))
        else:
            found[name] = measured(Path(folder), tasks.split(",") if tasks else [], rounds)
    names = sorted({group.criterion for own, _ in found.values() for group in own})
    colors = {name: COLORS[number % len(COLORS)] for number, name in enumerate(names)} | {FLOOR: "gray"}
    plt.rcParams.update({"svg.hashsalt": "topoprune", "font.size": 9})
    figure, axes = plt.subplots(
        1, len(found), figsize=(5 * len(found), HEIGHT), layout="constrained", squeeze=False
    )
    for ax, (name, (own, speed)) in zip(axes[0], found.items(), strict=True):
        panel(ax, name, own, speed, colors)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None})
    numbers = {
        name: {"groups": [asdict(one) for one in own], "speeds": {k: asdict(v) for k, v in speed.items()}}
        for name, (own, speed) in found.items()
    }
    picture.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    text = "\n".join(table(name, *one) for name, one in found.items())
    click.echo(text)
    if tables:
        tables.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
