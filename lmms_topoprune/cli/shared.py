"""Command-line options that several commands share; pruning options come from PruningOptions itself."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from lmms_topoprune import registry
from lmms_topoprune._util.packaged import task_names
from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.options import (
    AUTO,
    CHOICES,
    NO_REPAIR,
    HealingOptions,
    PruningOptions,
    own_defaults,
)

F = TypeVar("F", bound=Callable[..., Any])
TYPES: dict[str, Any] = {"float": float, "int": int, "bool": bool}


class _Path(click.ParamType):
    """Text that names a place; pathlib takes an empty one, such as an unset variable, for this folder."""

    name = "path"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        what = param.opts[-1].lstrip("-").replace("-", "_") if param else "path"
        return named(value, what)


def named(path: str, what: str) -> str:
    """The path, unless it is empty.

    Raises:
        InputError: it is.
    """
    if not path.strip():
        raise InputError(f"{what} is {path!r}; allowed: a path, such as '.' for this folder")
    return path


PATH = _Path()


class _Named(click.ParamType):
    """Text with names that a shell completes, after a comma too; and files, where one will do.

    Attributes:
        names: gives the names when they are asked for.
        files: a file's name may stand there as well.
    """

    name = "text"

    def __init__(self, names: Callable[[], Iterable[str]], files: bool = False) -> None:
        self.names, self.files = names, files

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        found = [CompletionItem(before + comma + name) for name in self.names() if name.startswith(last)]
        return found or ([CompletionItem(incomplete, type="file")] if self.files else [])


def _models() -> Iterable[str]:
    from lmms_topoprune.families import families, listed

    return [*families(), *listed()]


def _listed() -> Iterable[str]:
    from lmms_topoprune.families import listed

    return listed()


def _repairs() -> tuple[str, ...]:
    return (NO_REPAIR, *registry.repair_names())


class _Share(click.ParamType):
    """A number, or a word in its place."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        return AUTO if value == AUTO else float(click.FLOAT.convert(value, param, ctx))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(AUTO)] if AUTO.startswith(incomplete) else []


CRITERION = _Named(registry.criterion_names, files=True)
REPAIR = _Named(_repairs, files=True)
TASKS = _Named(task_names)
MODEL = _Named(_models)
MODELS = _Named(_listed)
COMPLETED: dict[str, click.ParamType] = {
    "criterion": CRITERION,
    "repair": REPAIR,
    "sparsity": _Share(),
    "plan": _Named(tuple, files=True),
    "calibration": _Named(lambda: ("embedded",), files=True),
    **{name: _Named(lambda allowed=allowed: allowed) for name, allowed in CHOICES.items()},  # type: ignore[misc]
}


def _help_texts(of: type) -> dict[str, str]:
    """Option -> its sentence in the docstring of PruningOptions or HealingOptions."""
    text = (of.__doc__ or "").partition("Attributes:")[2]
    found: dict[str, str] = {}
    for names, sentence in re.findall(r"^ {4,8}(\w[\w, ]*): (.*(?:\n {12}.*)*)", text, re.MULTILINE):
        found |= {name.strip(): " ".join(sentence.split()) for name in names.split(",")}
    return found


def pruning(*without: str) -> Callable[[F], F]:
    """Decorator: every field of PruningOptions as an option, except `without`."""

    def decorate(function: F) -> F:
        texts = _help_texts(PruningOptions)
        for field in reversed(fields(PruningOptions)):
            if field.name in without:
                continue
            kind = str(field.type).split(" ")[0]
            flag = "--" + field.name.replace("_", "-")
            # No click default: what the user leaves out is left to the criterion's own defaults.
            function = click.option(
                flag,
                field.name,
                type=COMPLETED.get(field.name) or TYPES.get(kind, str),
                cls=_PruningOption,
                general=field.default,
                help=texts[field.name],
            )(function)
        return function

    return decorate


def healing(function: F) -> F:
    """Decorator: every field of HealingOptions as an option; `--full` stands for the method."""
    texts = _help_texts(HealingOptions)
    for field in reversed(fields(HealingOptions)):
        if field.name == "method":
            text = "Train the layers that stay themselves, instead of low-rank updates (LoRA)."
            function = click.option("--full", is_flag=True, help=text)(function)
            continue
        kind = str(field.type).split(" ")[0]
        flag, text = "--" + field.name.replace("_", "-"), texts[field.name]
        if kind == "bool":
            function = click.option(flag, field.name, is_flag=True, default=None, help=text)(function)
            continue
        text += "" if field.default is None else f"  [default: {field.default}]"
        function = click.option(flag, field.name, type=TYPES.get(kind, str), help=text)(function)
    return function


class _PruningOption(click.Option):
    """Asks the criteria for their defaults only when help is shown: that imports all of them."""

    def __init__(self, *given: Any, general: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.general = general

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        return record and (record[0], record[1] + _default(str(self.name), self.general))


def _default(name: str, default: Any) -> str:
    """What help says of an option that is left out."""
    if default is None:
        return ""
    own = {criterion: own_defaults(criterion) for criterion in registry.criteria()}
    by_value: dict[Any, list[str]] = {}
    for criterion, options in own.items():
        if name in options and options[name] != default.general:
            by_value.setdefault(options[name], []).append(criterion)
    shown = [f"{value} for {', '.join(names)}" for value, names in by_value.items()]
    return f"  [default: {'; '.join([str(getattr(default, 'general', default)), *shown])}]"


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The pruning options the user wrote down."""
    return {name: options[name] for name in PruningOptions.names() if options.get(name) is not None}


def seed(function: F) -> F:
    return click.option(
        "--seed", default=0, show_default=True, help="Seed of the bootstrap.", callback=_checked_seed
    )(function)


def _checked_seed(context: click.Context, parameter: click.Parameter, value: int) -> int:
    if value < 0:
        raise OptionError(f"seed is {value}; allowed: whole numbers from 0")
    return value


def as_json(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print machine-readable output.")(function)


def evaluated(function: F) -> F:
    """Options that say what a sweep asks of which family."""
    for flag, given in (
        ("--limit", {"type": float, "help": "Questions a task; below 1, their share; -1 for all."}),
        ("--include-path", {"type": PATH, "help": "Folder of tasks instead of this package's own."}),
        ("--tasks", {"default": "topoprune", "type": TASKS, "help": "lmms-eval tasks, joined by commas."}),
        ("--model", {"default": "dense_llava", "type": MODEL, "help": "A model, or the name of its family."}),
    ):
        function = click.option(flag, show_default="default" in given, **given)(function)  # type: ignore[arg-type]
    return function


def model(function: F) -> F:
    """Options that say which model is loaded and how."""
    function = click.option(
        "--trust-remote-code", is_flag=True, help="Run the code that comes with the model."
    )(function)
    for flag, default, text in (
        ("--device", None, "cuda, mps or cpu; the best one here if left out."),
        ("--dtype", None, "float32, float16, bfloat16 or auto; float32 on a CPU if left out."),
        ("--pretrained", "embedded", "embedded, a local folder or a hub name."),
    ):
        function = click.option(flag, default=default, show_default=default is not None, help=text)(function)
    return function


def tasks_and_metric(function: F) -> F:
    """Adds --tasks, names without commas, and --metric, which choose what results are scored by."""
    for option in (
        click.option("--metric", help='Score by this "metric" or "metric,filter".  [default: by the task]'),
        click.option(
            "--tasks",
            callback=lambda context, option, text: tuple(listed(text, "tasks")) if text else (),
            help="Only these tasks of the results, joined by commas.",
        ),
    ):
        function = option(function)
    return function


def listed(text: str, what: str) -> list[str]:
    """Split "a,b" into its parts.

    Raises:
        OptionError: nothing is left.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise OptionError(f"{what} is {text!r}; allowed: one or several, joined by commas")
    return parts


def numbers(text: str, what: str, kind: type[float] | type[int]) -> list[Any]:
    """Split "0.1,0.3" into numbers.

    Raises:
        OptionError: a part is not a number.
    """
    try:
        return [kind(part) for part in listed(text, what)]
    except ValueError:
        raise OptionError(f"{what} is {text!r}; allowed: numbers joined by commas") from None


def check_output(path: str | None, folder: bool = False, what: str = "output") -> None:
    """Find out before a long computation that its result cannot be written.

    Args:
        path: where the result is to go; None for nowhere.
        folder: whether it is a folder or a file.
        what: the argument it was given by.

    Raises:
        InputError: the path is the wrong kind of thing, or nothing can be put where it is.
    """
    if path is None:
        return
    target = Path(named(path, what)).absolute()
    if target.is_dir() and not folder:
        raise InputError(f"{what} is {path!r}, which cannot be written: it is a folder")
    places = (target, *target.parents) if folder else target.parents
    place = next(place for place in places if place.exists())
    if not place.is_dir():
        raise InputError(f"{what} is {path!r}, which cannot be written: {str(place)!r} is no folder")
    try:
        with tempfile.TemporaryFile(dir=place):  # permissions do not tell of read-only disks
            pass
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{what} is {path!r}, which cannot be written: {reason} in {str(place)!r}") from None
