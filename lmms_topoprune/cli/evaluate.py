"""`topoprune eval`: lmms-eval with one argument added."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

import click

from lmms_topoprune.cli import options
from lmms_topoprune.shared_files import shared_path


def lmms_eval_arguments(arguments: tuple[str, ...]) -> list[str]:
    """lmms-eval's arguments, with the embedded tasks' folder unless another one is given."""
    given = any(argument.partition("=")[0] == "--include_path" for argument in arguments)
    added = [] if given else ["--include_path", str(shared_path("tasks"))]
    return [*arguments, *added]


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@options.as_json
def command(arguments: tuple[str, ...], as_json: bool) -> None:
    """Run lmms-eval with the embedded tasks at hand.

    Everything is passed through to lmms-eval; only --include_path is added. For instance:

    \b
        topoprune eval --model topopruned_llava \\
            --model_args pretrained=embedded,sparsity=0.3 --tasks topoprune \\
            --batch_size 16 --output_path runs/pruned --log_samples

    \b
    Models: dense_llava (nothing deleted, the reference), topopruned_llava, cosine_pruned_llava, ...;
    `lmms-eval models` lists them. Use one class for all runs that you compare.

    With --json everything that lmms-eval prints goes to stderr, and stdout is {"runs": [...]}: for each
    evaluation what its results file holds, with the plan under "plan" and the file's path under "file" (null
    without --output_path). Where lmms-eval gives up, which it does with exit code 0, the exit code is 1.
    """
    sys.argv = ["lmms_eval", *lmms_eval_arguments(arguments)]
    with _printing() if as_json else nullcontext():
        # In this process: no child could outlive it, and Ctrl-C ends like that of any other command.
        runpy.run_module("lmms_eval", run_name="__main__", alter_sys=True)


@contextmanager
def _printing() -> Iterator[None]:
    """Listens to what lmms-eval saves; afterwards that is on stdout, and nothing else."""
    from lmms_topoprune.harness.results import as_json, listening

    first = int(os.environ.get("RANK", 0)) == 0
    try:
        with listening() as saved, redirect_stdout(sys.stderr):
            yield
    except SystemExit as end:
        if end.code and first:
            code = f"lmms-eval ended with exit code {end.code}; the reason is on stderr"
            reason = end.code if isinstance(end.code, str) else code
            click.echo(as_json({"error": reason, "kind": "SystemExit"}))
        if end.code:
            raise
    if not first:
        return
    error: dict[str, Any] = {}
    if saved.lost:
        reason = f"the results could not be written to {saved.lost[0]!r}"
        error = {"error": reason, "kind": "OSError"}
    elif not saved.runs:
        error = {"error": "lmms-eval evaluated nothing; the reason is on stderr", "kind": "SystemExit"}
    click.echo(as_json(error | ({"runs": saved.runs} if saved.runs else {})))
    if error:
        raise SystemExit(1)
