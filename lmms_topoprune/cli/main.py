"""`topoprune`: the command group. Commands are imported only when they are called, so help is quick."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import sys
import traceback
from copy import copy
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from lmms_topoprune._util.escape import printable
from lmms_topoprune._util.references import own_trace
from lmms_topoprune._util.signals import exit_of, ignore_signals, interruptions_first, stoppable
from lmms_topoprune.errors import (
    SPARE_MEMORY,
    InputError,
    TopopruneError,
    check_launcher,
    out_of_memory,
)


class _Stream(io.FileIO):
    """A file descriptor that is turned to the null device once its reader has gone (`| head`) or it failed.

    That is Python's own recipe for closed pipes
    (https://docs.python.org/3/library/signal.html#note-on-sigpipe), at the write instead of around main():
    there click and rich have ended the process with exit code 1 already, that of a failed check.
    """

    def __init__(self, descriptor: int, title: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.title = title

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if not isinstance(error, BrokenPipeError):
                error.filename = self.title
                raise
        return memoryview(data).nbytes


def outlive_readers() -> None:
    """Replace this process's standard output and error, for good; errors of theirs name them."""
    for name, title in (("stdout", "standard output"), ("stderr", "standard error")):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):  # closed, or somebody else's
            continue
        stream.flush()
        replacement = io.TextIOWrapper(
            io.BufferedWriter(_Stream(stream.fileno(), title)),
            encoding=stream.encoding,
            errors=stream.errors,
            # Under PYTHONUNBUFFERED nothing may wait; a line that did would be glued to what others write.
            line_buffering=stream.line_buffering or stream.write_through,
            write_through=stream.write_through,
        )
        setattr(sys, name, replacement)


COMMANDS = {
    "demo": "See it work: the embedded model, dense and pruned, in one table.",
    "doctor": "Say what works on this machine and how to mend what does not.",
    "tasks": "Print the folder of the embedded tasks and list them.",
    "criteria": "List the criteria, one a line.",
    "models": "List the models that lmms-eval gets to know, one a line.",
    "score": "Score every layer by several criteria, with one calibration pass.",
    "plan": "Decide which layers go and write that to a plan file.",
    "export": "Write the pruned model as an ordinary model folder.",
    "heal": "Train a pruned model a little on the dense one's answers, and write its folder.",
    "apply": "The same as export.",
    "eval": "Run lmms-eval with the embedded tasks at hand.",
    "sweep": "Evaluate criteria x sparsities x seeds on one loaded model; resumable.",
    "compare": "A leaderboard over result folders, with intervals and tests.",
    "leaderboard": "Several models side by side, by what each keeps of its own dense score.",
    "publish": "One small file of results and plans, for other people's leaderboards.",
    "report": "One HTML file with plots and tables that opens anywhere.",
    "regress": "Fail when a run is worse than its baseline by more than noise.",
    "cache": "List or clear the kept layer scores.",
}
MODULES = {
    "apply": "export",
    "eval": "evaluate",
    **{name: f"lists:{name}" for name in ("criteria", "models", "tasks")},
    **{name: f"several_models:{name}" for name in ("publish", "leaderboard")},
}

HELP = ["-h", "--help"]
DEFECT = 70  # EX_SOFTWARE of sysexits.h; Python's own 1 would be a failed check
EPILOG = """\b
A first tour:
  topoprune demo                          # dense and pruned, about a minute
  topoprune plan --sparsity 0.3 -o plan.json
  topoprune eval --model topopruned_llava --tasks topoprune \\
      --model_args pretrained=embedded,plan=plan.json \\
      --output_path runs/pruned --log_samples
  topoprune sweep --criteria cosine,random --sparsities 0.1,0.3 -o runs/all
  topoprune compare runs/all
  topoprune report runs/all -o report.html

\b
Exit codes:
  0  all is well
  1  a check failed (regress, doctor)
  2  an argument, an input file or code of yours cannot be used
  3  something outside is missing (a hub, an optional package)
  4  a model could not be pruned or failed while answering
  70  a defect of this package; the traceback belongs into a report
  130  interrupted (143: terminated)
"""


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, function = MODULES.get(name, name).partition(":")
        found = importlib.import_module(f"lmms_topoprune.cli.{module}")
        command: click.Command = copy(getattr(found, function or "command"))
        command.name = name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from lmms_topoprune.errors import unknown

            raise unknown("command", args[0], COMMANDS)
        if not ctx.resilient_parsing and not {*HELP} & {*args}:
            check_launcher()
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands from COMMANDS, without importing any."""
        found = [CompletionItem(n, help=text) for n, text in COMMANDS.items() if n.startswith(incomplete)]
        return found or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from COMMANDS, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": HELP})
@click.version_option(package_name="lmms-topoprune", prog_name="topoprune")
def topoprune() -> None:
    """Delete decoder layers of vision-language models, and see what that costs.

    Zigzag persistent homology chooses the layers, or any other criterion that `topoprune criteria` lists.
    lmms-eval evaluates what is left. Every command explains itself with --help.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """The console entry point: a mistake ends in one sentence and a documented exit code."""
    alone = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    if alone:
        outlive_readers()
    try:
        with stoppable():
            code = _run(arguments)
            if alone:
                ignore_signals()
    except KeyboardInterrupt as stop:
        if alone:
            ignore_signals()
        text, code = exit_of(stop)
        click.echo(f"topoprune: {text}", err=True)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Run a command and say what went wrong; returns the exit code."""
    as_json = "--json" in arguments
    try:
        with interruptions_first():
            result: Any = topoprune.main(args=arguments, prog_name="topoprune", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # what fails while the interpreter shuts down is told by nobody
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        _say_as_json(error.format_message(), error, as_json)
        error.show()
        return 2
    except Exception as error:
        known = _as_ours(error)
        _say_as_json(str(known or error), known or error, as_json)
        if known is None:
            traceback.print_exc()
            return DEFECT
        click.echo(own_trace(known), err=True, nl=False)
        click.echo(printable(f"topoprune: {known}"), err=True)  # it may name what others wrote
        return known.exit_code


def _as_ours(error: Exception) -> TopopruneError | None:
    """What the machine lacks, in this package's words; anything else is a defect."""
    if isinstance(error, TopopruneError):
        return error
    if out_of_memory(error):
        return InputError(SPARE_MEMORY)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        return InputError(f"{str(error.filename or 'a file')!r} cannot be written: {error.strerror}")
    return None


def _say_as_json(text: str, error: Exception, wanted: bool) -> None:
    if wanted:
        click.echo(json.dumps({"error": text, "kind": type(error).__name__}))


if __name__ == "__main__":
    main()
