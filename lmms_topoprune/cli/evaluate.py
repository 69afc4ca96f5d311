"""`topoprune eval`: lmms-eval with one argument added."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import click
import yaml
from click.shell_completion import CompletionItem

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.cli import shared
from lmms_topoprune.errors import OptionError, whole_number


def lmms_eval_arguments(arguments: tuple[str, ...]) -> list[str]:
    """lmms-eval's arguments, with the embedded tasks' folder unless another one is given."""
    if _folder(arguments) is not None:
        return [*arguments]
    return [*arguments, "--include_path", str(shared_path("tasks"))]


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names after --model and --tasks, else files: the options themselves are lmms-eval's."""
    last = [*ctx.args, *(ctx.params.get("arguments") or ())][-1:]
    named = {"--model": shared.MODELS, "--tasks": shared.TASKS}.get(last[0]) if last else None
    if named is None:
        return [CompletionItem(incomplete, type="file")]
    return named.shell_complete(ctx, param, incomplete)


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, shell_complete=_complete)
@shared.as_json
def command(arguments: tuple[str, ...], as_json: bool) -> None:
    """Run lmms-eval with the embedded tasks at hand.

    Everything is passed through to lmms-eval; only --include_path is added. For instance:

    \b
        topoprune eval --model topopruned_llava \\
            --model_args pretrained=embedded,sparsity=0.3 --tasks topoprune \\
            --batch_size 16 --output_path runs/pruned --log_samples

    Models: dense_llava (nothing deleted, the reference), topopruned_llava, cosine_pruned_llava, ...;
    `topoprune models` lists them. Use one class for all runs that you compare.

    With --json everything that lmms-eval prints goes to stderr, and stdout is {"runs": [...]}: for each
    evaluation what its results file holds, with the plan under "plan" and the file's path under "file" (null
    without --output_path). Where lmms-eval gives up, cannot keep its results or skips an entry of --config,
    which it does with exit code 0, the exit code is 1, or 2 if a task or the model is unknown.
    """
    shared.check_output(_value(arguments, "--output_path"), folder=True, what="output_path")
    given = lmms_eval_arguments(arguments)
    if model := _value(arguments, "--model"):
        from lmms_topoprune.harness.listing import check_model

        check_model(model)
    elif _needs_model(arguments):
        raise OptionError(
            "--model is left out; allowed: a name that `topoprune models` lists, such as topopruned_llava"
        )
    from lmms_topoprune.compat.evaluation import colors_on_screens_only

    sys.argv = ["lmms_eval", *given]
    with _tasks_known(given), colors_on_screens_only(), _outcome_told(given, as_json):
        # In this process: no child could outlive it, and Ctrl-C ends like that of any other command.
        runpy.run_module("lmms_eval", run_name="__main__", alter_sys=True)


def _value(arguments: Sequence[str], name: str) -> str | None:
    """What `--name value` or `--name=value` says."""
    for argument, following in zip(arguments, [*arguments, None][1:], strict=True):
        if argument == name:
            return following
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def _needs_model(arguments: Sequence[str]) -> bool:
    """Whether tasks are asked for; a file of settings names its own model, a list of tasks takes none."""
    tasks = _value(arguments, "--tasks")
    return tasks is not None and not tasks.startswith("list") and _settings(arguments) is None


def _evaluations(arguments: Sequence[str]) -> int:
    """How many are asked for: a file of settings may hold a list, of which lmms-eval skips what fails."""
    file = _settings(arguments)
    settings = yaml.safe_load(Path(file).read_text(encoding="utf-8")) if file else None
    return len(settings) if isinstance(settings, list) else 1


def _folder(arguments: Sequence[str]) -> str | None:
    """The folder of tasks."""
    return _abbreviated(arguments, "--include_path", "--inc")


def _settings(arguments: Sequence[str]) -> str | None:
    """The file of settings."""
    return _abbreviated(arguments, "--config", "--con")


def _abbreviated(arguments: Sequence[str], name: str, shortest: str) -> str | None:
    """The value of an option under its name or a beginning of it, which argparse takes as well."""
    names = (name[:end] for end in range(len(name), len(shortest) - 1, -1))
    return next((found for one in names if (found := _value(arguments, one)) is not None), None)


@contextmanager
def _outcome_told(given: Sequence[str], as_json: bool) -> Iterator[None]:
    """Listens to what lmms-eval saves; prints that as JSON if asked, and fails where lmms-eval only warns."""
    from lmms_topoprune.harness.plan_file import as_json as written
    from lmms_topoprune.harness.plan_file import listening
    from lmms_topoprune.harness.user_errors import EndedByError

    first, gave_up = whole_number("RANK") == 0, True
    try:
        with listening() as saved, redirect_stdout(sys.stderr) if as_json else nullcontext():
            yield
    except EndedByError as end:  # lmms-eval's own command would end with 1
        if not saved.lost:  # of what is lost the end of this function tells
            if first and as_json:
                click.echo(written({"error": str(end.error), "kind": type(end.error).__name__}))
            if isinstance(end.code, str):
                click.echo(end.code, err=True)
            raise SystemExit(end.error.exit_code) from None
    except SystemExit as end:
        told = bool(end.code) and not saved.lost
        if told and first and as_json:
            code = f"lmms-eval ended with exit code {end.code}; the reason is on stderr"
            reason = end.code if isinstance(end.code, str) else code
            click.echo(written({"error": reason, "kind": "SystemExit"}))
        if told:
            raise
        # lmms-eval leaves with None where it has listed tasks, and with 0 after anything else.
        gave_up = as_json or (end.code == 0 and _value(given, "--tasks") is not None)
    if not first:
        return
    error: dict[str, Any] = {}
    if saved.lost:
        reason = f"the results could not be written to {saved.lost[0]!r}"
        error = {"error": reason, "kind": "OSError"}
    elif 0 < len(saved.runs) < (asked := _evaluations(given)):
        missing = f"{asked - len(saved.runs)} of {asked} evaluations gave no results"
        error = {"error": f"{missing}; the reasons are on stderr", "kind": "SystemExit"}
    elif not saved.runs and gave_up:
        error = {"error": "lmms-eval evaluated nothing; the reason is on stderr", "kind": "SystemExit"}
    if as_json:
        click.echo(written(error | ({"runs": saved.runs} if saved.runs else {})))
    elif error:
        click.echo(f"lmms-topoprune: {error['error']}", err=True)
    if error:
        raise SystemExit(1)


@contextmanager
def _tasks_known(given: Sequence[str]) -> Iterator[None]:
    """Refuse an unknown task before anything is loaded; lmms-eval says it under a traceback.

    Its index of tasks takes seconds: embedded tasks do without, any others are indexed once for both checks.
    """
    tasks = (_value(given, "--tasks") or "list").split(",")
    embedded = {path.stem for path in shared_path("tasks").rglob("*.yaml")}
    if tasks[0].startswith("list") or embedded.issuperset(tasks):
        yield
        return
    from lmms_topoprune.compat.evaluation import tasks_indexed_once
    from lmms_topoprune.harness.listing import check_tasks

    with tasks_indexed_once():
        check_tasks(tasks, _folder(given))
        yield
