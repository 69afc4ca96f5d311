"""`topoprune eval`: lmms-eval with one argument added."""

from __future__ import annotations

import json
import runpy
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import click

from lmms_topoprune.cli import options
from lmms_topoprune.shared_files import shared_path


def lmms_eval_arguments(arguments: Sequence[str]) -> list[str]:
    """lmms-eval's arguments, with the embedded tasks' folder unless another one is given."""
    added = [] if _value(arguments, "--include_path") else ["--include_path", str(shared_path("tasks"))]
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
            --batch_size 16 --output_path runs/topology --log_samples

    \b
    Models: dense_llava (nothing deleted, the reference), topopruned_llava, cosine_pruned_llava, ...;
    `lmms-eval models` lists them. Use one class for all runs that you compare.

    With --json the tables go to stderr, and stdout is the results file: {"results": {task: {metric: number}},
    ...}, with the plan under "plan" and the file's path under "file" (null without --output_path).
    """
    with _printing(arguments) if as_json else nullcontext(arguments) as passed:
        # In this process: no child could outlive it, and Ctrl-C ends like that of any other command.
        sys.argv = ["lmms_eval", *lmms_eval_arguments(passed)]
        runpy.run_module("lmms_eval", run_name="__main__", alter_sys=True)


@contextmanager
def _printing(arguments: Sequence[str]) -> Iterator[Sequence[str]]:
    """Arguments that make lmms-eval write its results; afterwards they are on stdout, and nothing else."""
    given = _value(arguments, "--output_path")
    with tempfile.TemporaryDirectory() as spare:
        folder = Path(given or spare)
        before = set(_results(folder))
        try:
            with redirect_stdout(sys.stderr):
                yield [*arguments, *([] if given else ["--output_path", spare])]
        except SystemExit as end:
            if end.code:
                code = f"lmms-eval ended with exit code {end.code}; the reason is on stderr"
                message = end.code if isinstance(end.code, str) else code
                click.echo(json.dumps({"error": message, "kind": "SystemExit"}))
                raise
        for file in sorted(set(_results(folder)) - before):  # none on any but the first rank
            plan = file.with_name(file.name.replace("_results.json", "_plan.json"))
            facts: dict[str, Any] = json.loads(file.read_text())
            facts["plan"] = json.loads(plan.read_text()) if plan.exists() else None
            click.echo(json.dumps({**facts, "file": str(file) if given else None}))


def _results(folder: Path) -> list[Path]:
    return list(folder.rglob("*_results.json"))


def _value(arguments: Sequence[str], name: str) -> str | None:
    """What an option of lmms-eval is set to, as --name value or --name=value."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == name or argument.startswith(f"{name}="):
            return argument.partition("=")[2] or following
    return None
