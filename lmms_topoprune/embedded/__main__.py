"""`python -m lmms_topoprune.embedded`: train, release and evaluate the embedded model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from lmms_topoprune.errors import TopopruneError


@click.group()
def main() -> None:
    """The embedded model: how it was made, and how well it answers."""


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--layers", default=24, show_default=True, help="Decoder layers of the final model.")
@click.option("--width", default=192, show_default=True, help="Size of the decoder's hidden states.")
@click.option("--shallow-layers", default=6, show_default=True, help="Decoder layers before the growth.")
@click.option("--shallow-steps", default=None, type=int, help="Steps before the growth.")
@click.option("--deep-steps", default=None, type=int, help="Steps after the growth.")
@click.option("--decay-steps", default=None, type=int, help="Last steps, with a falling learning rate.")
@click.option("--seed", default=0, show_default=True, help="Draws weights, scenes and questions.")
@click.option("--compiled", is_flag=True, help="Compile the decoder layers (needs a C++ compiler).")
def train(
    run: Path,
    layers: int,
    width: int,
    shallow_layers: int,
    shallow_steps: int | None,
    deep_steps: int | None,
    decay_steps: int | None,
    seed: int,
    compiled: bool,
) -> None:
    """Train a model in the folder RUN, going on from its last checkpoint."""
    from lmms_topoprune.embedded.recipe import Recipe
    from lmms_topoprune.embedded.train import train as run_training

    recipe = Recipe(seed=seed, shallow_layers=shallow_layers)
    recipe = replace(
        recipe, size=replace(recipe.size, layers=layers, width=width, mlp=8 * width // 3 // 8 * 8)
    )
    given: dict[str, Any] = {
        "shallow_steps": shallow_steps,
        "deep_steps": deep_steps,
        "decay_steps": decay_steps,
    }
    recipe = replace(recipe, **{name: value for name, value in given.items() if value is not None})
    try:
        run_training(recipe, run, say=click.echo, compiled=compiled)
    except TopopruneError as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--per-kind", default=300, show_default=True, help="Questions a kind for the card's figures.")
def release(run: Path, target: Path, per_kind: int) -> None:
    """Write the finished run RUN as a model folder TARGET with its card."""
    from lmms_topoprune.embedded.release import release as write

    command = "python -m lmms_topoprune.embedded train runs/embedded --compiled"
    try:
        _, figures = write(run, target, command=command, per_kind=per_kind)
    except TopopruneError as error:
        raise click.ClickException(str(error)) from None
    _print(figures)


@main.command()
@click.option("--model", default="embedded", show_default=True, help="A folder, or the shipped model.")
@click.option("--per-kind", default=300, show_default=True, help="Questions a kind.")
def evaluate(model: str, per_kind: int) -> None:
    """Exact match by question kind on unseen scenes."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from lmms_topoprune.embedded.evaluate import generated_accuracy
    from lmms_topoprune.embedded.locate import model_path

    folder = model_path() if model == "embedded" else Path(model)
    loaded = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    _print(generated_accuracy(loaded, AutoProcessor.from_pretrained(folder), per_kind))


def _print(figures: dict[str, float]) -> None:
    for kind, value in figures.items():
        click.echo(f"{kind:10} {100 * value:5.1f} %")


if __name__ == "__main__":
    main()
