"""Objects named by where they are, "package.module:name" or "file.py:name", and what they raise."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

from lmms_topoprune.errors import (
    InputError,
    OptionError,
    OwnCodeError,
    TopopruneError,
    led_to,
    nearest,
    out_of_memory,
    reason_of,
    shown,
)

PACKAGE = __name__.partition(".")[0]

_others: set[str] = set()
"""Packages, and files, of other people from which something was loaded."""


def load(place: str, what: str) -> Any:
    """The object at "package.module:name" or "file.py:name"; the name may have dots.

    Args:
        place: where it is.
        what: begins the sentence of an error, such as "criterion is 'x.py:score'".

    Raises:
        OptionError: there is no such module, file or name, or importing it fails.
    """
    module, _, name = place.rpartition(":")
    if not module or not name:
        raise OptionError(f"{what}; allowed: package.module:name or file.py:name")
    package = _file_module(Path(module)) if module.endswith(".py") else module.partition(".")[0]
    if package != PACKAGE:
        _others.add(package)
    try:
        loaded = _load_file(Path(module)) if module.endswith(".py") else importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a script that leaves where it is imported takes nothing down
        raise OptionError(
            f"{what}, but {_short(module)} cannot be imported: {_short(reason_of(error))}"
        ) from error
    for part in name.split("."):
        if not hasattr(loaded, part):
            names = [n for n in dir(loaded) if not n.startswith("_")]
            raise OptionError(f"{what}, but {_short(module)} has no {shown(name)}{nearest(part, names)}")
        loaded = getattr(loaded, part)
    return loaded


def _short(text: str) -> str:
    """In one line, cut where it is long."""
    return shown(text)[1:-1]


def _file_module(path: Path) -> str:
    """The name under which a file is imported."""
    return f"{PACKAGE}_file_{sha256(str(path.expanduser().resolve()).encode()).hexdigest()[:12]}"


def _load_file(path: Path) -> Any:
    path, name = path.expanduser().resolve(), _file_module(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError("there is no such file")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def told_as_own(what: str, function: Callable[..., Any]) -> Iterator[None]:
    """Within this block, what a function from outside this package raises is told as a fault of its own.

    Args:
        what: begins the sentence, such as "criterion 'x.py:score'".
        function: what is called inside. Nothing is changed for one of this package.

    Raises:
        OwnCodeError: names the function, its file and the exception. This package's errors and a lack of
            memory stay what they are.
    """
    try:
        yield
    except TopopruneError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit(0) would pass for a success
        if is_ours(function) or out_of_memory(error):
            raise
        told = OwnCodeError(f"{what}, {_place(function)}, failed: {reason_of(error)}")
        theirs = (call for call in _calls(error.__traceback__) if _package(call) != PACKAGE)
        told.trace = "".join(
            traceback.format_exception(type(error), error, next(theirs, error.__traceback__))
        )
        raise told from error


def own_trace(error: BaseException) -> str:
    """The traceback of other people's code that an error comes from; empty if it comes from none.

    It comes from theirs if, of the calls of theirs and of this package, the last one is theirs.
    """
    for found in led_to(error):
        if isinstance(found, OwnCodeError):
            return found.trace
        calls = [] if isinstance(found, TopopruneError) else [*_calls(found.__traceback__)]
        last = next((call for call in reversed(calls) if _package(call) in {PACKAGE, *_others}), None)
        if last is not None and _package(last) != PACKAGE:
            first = next(call for call in calls if _package(call) in _others)
            return "".join(traceback.format_exception(type(found), found, first))
    return ""


def _calls(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _package(call: TracebackType) -> str:
    return str(call.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _place(function: Callable[..., Any]) -> str:
    """Where a function stands."""
    function = inspect.unwrap(getattr(function, "func", function))  # of functools.partial
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    if code is None:
        return f"a {type(function).__name__} of {type(function).__module__}"
    return f"line {code.co_firstlineno} of {code.co_filename}"


def is_ours(function: Callable[..., Any] | None) -> bool:
    """Whether this package defines it."""
    return (getattr(function, "__module__", None) or "").partition(".")[0] == PACKAGE


def source_digest(function: Callable[..., Any] | None) -> str | None:
    """16 hex digits of the source of a function from outside this package; None of its own."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    if module is None or is_ours(function):
        return None
    file = getattr(module, "__file__", None)
    if file is not None and Path(file).is_file():
        return sha256(Path(file).read_bytes()).hexdigest()[:16]
    code = getattr(function, "__code__", None)  # typed into an interpreter
    return None if code is None else sha256(code.co_code + repr(code.co_consts).encode()).hexdigest()[:16]
