"""`python -m training`: make the embedded model and the pretrained LVLM, and see how well they answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from lmms_topoprune.errors import TopopruneError

FOLDER = click.Path(path_type=Path)


def _say(line: str) -> None:
    click.echo(line)


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
@click.option("--steps", default=4000, show_default=True, help="Optimizer steps in all.")
@click.option("--decay", default=600, show_default=True, help="Last steps, with a falling learning rate.")
@click.option("--every", default=100, show_default=True, help="Steps between checkpoints.")
@click.option("--seed", default=0, show_default=True, help="Draws weights, scenes and questions.")
@click.option("--compiled", is_flag=True, help="Compile the decoder layers (needs a C++ compiler).")
@_in_one_sentence
def embedded(run: Path, steps: int, decay: int, every: int, seed: int, compiled: bool) -> None:
    """Train the embedded model in the folder RUN, going on from its last checkpoint."""
    from training.embedded.recipe import Recipe
    from training.embedded.train import train

    train(Recipe(seed=seed), run, steps=steps, decay=decay, every=every, compiled=compiled, say=_say)


@main.command()
@click.argument("run", type=FOLDER)
@click.option("--language", type=FOLDER, required=True, help="A folder with SmolLM2-135M-Instruct.")
@click.option("--vision", type=FOLDER, default=None, help="A folder with the embedded model; the shipped one.")
@click.option("--steps", default=2000, show_default=True, help="Optimizer steps in all.")
@click.option("--decay", default=200, show_default=True, help="Last steps, with a falling learning rate.")
@click.option("--every", default=100, show_default=True, help="Steps between checkpoints.")
@click.option("--seed", default=0, show_default=True, help="Draws the projector, scenes and questions.")
@click.option("--compiled", is_flag=True, help="Compile the decoder layers (needs a C++ compiler).")
@_in_one_sentence
def lvlm(
    run: Path, language: Path, vision: Path | None, steps: int, decay: int, every: int, seed: int, compiled: bool
) -> None:
    """Train the pretrained LVLM in the folder RUN, going on from its last checkpoint."""
    from lmms_topoprune.embedded.locate import model_path
    from training.lvlm.train import Recipe, train

    train(
        Recipe(seed=seed),
        run,
        language=language,
        vision=vision or model_path(),
        steps=steps,
        decay=decay,
        every=every,
        compiled=compiled,
        say=_say,
    )


if __name__ == "__main__":
    main()
