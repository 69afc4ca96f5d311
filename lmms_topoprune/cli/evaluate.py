"""`topoprune eval`: lmms-eval with one argument added."""

from __future__ import annotations

import runpy
import sys

import click

from lmms_topoprune.shared_files import shared_path


def lmms_eval_arguments(arguments: tuple[str, ...]) -> list[str]:
    """lmms-eval's arguments, with the embedded tasks' folder unless another one is given."""
    given = any(argument.partition("=")[0] == "--include_path" for argument in arguments)
    added = [] if given else ["--include_path", str(shared_path("tasks"))]
    return [*arguments, *added]


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run lmms-eval with the embedded tasks at hand.

    Everything is passed through to lmms-eval; only --include_path is added. For instance:

    \b
        topoprune eval --model topopruned_llava \\
            --model_args pretrained=embedded,sparsity=0.3 --tasks topoprune \\
            --batch_size 16 --output_path runs/topology --log_samples

    \b
    Models: dense_llava (nothing deleted, the reference), topopruned_llava, cosine_pruned_llava, ...;
    `lmms-eval models` lists them. Use one class for all runs that you compare.
    """
    # In this process: no child could outlive it, and Ctrl-C ends like that of any other command.
    sys.argv = ["lmms_eval", *lmms_eval_arguments(arguments)]
    runpy.run_module("lmms_eval", run_name="__main__", alter_sys=True)
