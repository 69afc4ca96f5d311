"""`python -m training`: make the embedded model and the pretrained LVLM, and see how well they answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from lmms_topoprune.errors import TopopruneError

FOLDER = click.Path(path_type=Path)
EXISTING = click.Path(path_type=Path, exists=True)


def _in_one_sentence(command: Callable[..., None]) -> Callable[..., None]:
    """Errors that a user can mend, without a traceback."""

    @wraps(command)
    def run(**given: Any) -> None:
        try:
            command(**given)
        except TopopruneError as error:
            raise click.ClickException(str(error)) from None

    return run


@click.group()
def main() -> None:
    """The models that pruning is tried on: how they are made, and how well they answer."""


@main.command()
@click.argument("run", type=FOLDER)
@click.option("--steps", default=500, show_default=True, help="Optimizer steps in all.")
@click.option("--decay", default=200, show_default=True, help="Last steps, with a falling learning rate.")
@click.option("--every", default=100, show_default=True, help="Steps between checkpoints.")
@click.option("--seed", default=0, show_default=True, help="Draws weights, scenes and questions.")
@click.option(
    "--source", type=EXISTING, default=None, help="The earlier release to start from; the shipped one."
)
@click.option("--compiled", is_flag=True, help="Compile the decoder layers (needs a C++ compiler).")
@_in_one_sentence
def embedded(
    run: Path, steps: int, decay: int, every: int, seed: int, source: Path | None, compiled: bool
) -> None:
    """Train the embedded model in the folder RUN, going on from its last checkpoint."""
    from training.embedded.recipe import Recipe
    from training.embedded.train import train

    train(
        Recipe(seed=seed),
        run,
        steps=steps,
        decay=decay,
        every=every,
        source=source,
        compiled=compiled,
        say=click.echo,
    )


@main.command()
@click.argument("run", type=FOLDER)
@click.option("--language", type=FOLDER, required=True, help="A folder with SmolLM2-135M-Instruct.")
@click.option(
    "--vision", type=FOLDER, default=None, help="A folder with the embedded model; the shipped one."
)
@click.option("--texts", type=EXISTING, required=True, help="A folder of English texts, as JSON lists.")
@click.option("--updates", type=EXISTING, default=None, help="An earlier release to go on from.")
@click.option("--steps", default=2200, show_default=True, help="Optimizer steps in all.")
@click.option("--decay", default=1200, show_default=True, help="Last steps, with a falling learning rate.")
@click.option("--every", default=100, show_default=True, help="Steps between checkpoints.")
@click.option("--seed", default=0, show_default=True, help="Draws the projector, scenes and questions.")
@click.option("--compiled", is_flag=True, help="Compile the decoder layers (needs a C++ compiler).")
@_in_one_sentence
def lvlm(
    run: Path,
    language: Path,
    vision: Path | None,
    texts: Path,
    updates: Path | None,
    steps: int,
    decay: int,
    every: int,
    seed: int,
    compiled: bool,
) -> None:
    """Train the pretrained LVLM in the folder RUN, going on from its last checkpoint."""
    from lmms_topoprune._util.packaged import model_path
    from training.lvlm.train import Recipe, train

    train(
        Recipe(seed=seed) if updates is None else Recipe(goes_on=True, early=0, seed=seed),
        run,
        language=language,
        vision=vision or model_path(),
        texts=texts,
        steps=steps,
        decay=decay,
        updates=updates,
        every=every,
        compiled=compiled,
        say=click.echo,
    )


@main.command("release-embedded")
@click.argument("run", type=EXISTING)
@click.argument("target", type=FOLDER)
@click.option(
    "--per-cell", default=100, show_default=True, help="Questions of a form and kind, for the card."
)
@_in_one_sentence
def release_embedded(run: Path, target: Path, per_cell: int) -> None:
    """Write the finished run RUN as a model folder TARGET with its card."""
    from training.embedded.release import release

    _print(release(run, target, per_cell=per_cell))


@main.command("release-lvlm")
@click.argument("run", type=EXISTING)
@click.argument("target", type=FOLDER)
@click.option("--language", type=EXISTING, required=True, help="A folder with SmolLM2-135M-Instruct.")
@click.option(
    "--vision", type=EXISTING, default=None, help="A folder with the embedded model; the shipped one."
)
@click.option("--checkpoint", type=EXISTING, default=None, help="Not the finished one but this.")
@click.option("--per-cell", default=40, show_default=True, help="Questions of a form and kind, for the card.")
@_in_one_sentence
def release_lvlm(
    run: Path, target: Path, language: Path, vision: Path | None, checkpoint: Path | None, per_cell: int
) -> None:
    """Write what the run RUN has learned, and its card, to the folder TARGET."""
    from lmms_topoprune._util.packaged import model_path
    from training.lvlm.release import release

    vision = vision or model_path()
    _print(release(run, target, language=language, vision=vision, per_cell=per_cell, checkpoint=checkpoint))


@main.command("make-lvlm")
@click.argument("target", type=FOLDER)
@click.option("--language", type=EXISTING, required=True, help="A folder with SmolLM2-135M-Instruct.")
@click.option(
    "--vision", type=EXISTING, default=None, help="A folder with the embedded model; the shipped one."
)
@click.option(
    "--released", type=EXISTING, default=None, help="What release-lvlm wrote; what this checkout holds."
)
@_in_one_sentence
def make_lvlm(target: Path, language: Path, vision: Path | None, released: Path | None) -> None:
    """Write the trained LVLM as a plain model folder TARGET; takes seconds."""
    from lmms_topoprune._util.packaged import model_path
    from training.lvlm.release import RELEASED, make

    make(released or RELEASED, target, language=language, vision=vision or model_path())


@main.command()
@click.option("--model", default="embedded", show_default=True, help="A folder, or the shipped model.")
@click.option("--per-cell", default=100, show_default=True, help="Questions of a form and kind.")
@_in_one_sentence
def evaluate(model: str, per_cell: int) -> None:
    """Exact match by form and kind of question on unseen scenes."""
    from training.evaluate import generated_accuracy

    _print(generated_accuracy(*_loaded(model), per_cell))


@main.command()
@click.argument("models", nargs=-1, required=True, type=EXISTING)
@click.option("--texts", type=EXISTING, default=None, help="A folder of JSON files, lists of paragraphs.")
@click.option("--windows", default=4, show_default=True, help="Windows of 256 tokens of every text.")
@click.option("--per-cell", default=20, show_default=True, help="Questions of a form and kind.")
@click.option("--out", type=FOLDER, required=True, help="A JSON file; the tables go beside it, as .md.")
@_in_one_sentence
def depth(models: tuple[Path, ...], texts: Path | None, windows: int, per_cell: int, out: Path) -> None:
    """What leaving out each layer of MODELS costs, in answers and in English text, side by side."""
    from training.depth_report import measure, tables

    measured = {model.name: measure(model, texts, windows, per_cell) for model in models}
    out.write_text(json.dumps(measured, indent=1))
    out.with_suffix(".md").write_text(tables(measured))
    click.echo(tables(measured))


@main.command()
@click.option("--model", default="embedded", show_default=True, help="A folder, or the shipped model.")
@click.option("--per-cell", default=12, show_default=True, help="Questions of a form and kind.")
@_in_one_sentence
def parts(model: str, per_cell: int) -> None:
    """Points of answers lost where attention, half of its heads, or the MLP of one layer writes nothing."""
    from training import depth

    loaded, processor = _loaded(model)
    costs = depth.part_costs(loaded, list(depth.answers(processor, per_cell)))
    names = list(costs[0])
    click.echo(f"| layer | {' | '.join(names)} |\n|---:{'|---:' * len(names)}|")
    for number, row in enumerate(costs):
        click.echo(f"| {number} | " + " | ".join(f"{100 * row[name]:.1f}" for name in names) + " |")


def _loaded(model: str) -> tuple[Any, Any]:
    """A model and its processor, from a folder or "embedded"."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from lmms_topoprune._util.packaged import model_path

    folder = model_path() if model == "embedded" else Path(model)
    loaded = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    return loaded, AutoProcessor.from_pretrained(folder)


def _print(figures: dict[str, float]) -> None:
    from training.cards import figures_table

    click.echo(figures_table(figures))
    click.echo(f"overall {100 * figures['overall']:.1f} %")


if __name__ == "__main__":
    main()
