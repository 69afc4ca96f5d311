"""The project's exceptions, and how a message is worded: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from typing import ClassVar

LONGEST = 200
SPARE_MEMORY = "memory ran out; pass a smaller calibration_batch or batch_size, or dtype=bfloat16"


class TopopruneError(Exception):
    """Any mistake this package reports by itself; its text is one sentence for the user.

    Attributes:
        exit_code: what every command ends with: 2 for an argument or input, 3 for something outside that is
            missing, 4 for a model that could not be pruned or failed.
    """

    exit_code: ClassVar[int] = 2


class OptionError(TopopruneError, ValueError):
    """An argument has a value that is not allowed."""


class InputError(TopopruneError, ValueError):
    """Data (states, barcodes, plans, samples, result files) cannot be used as they are."""


class OwnCodeError(TopopruneError):
    """A criterion or repair of the user's own raised an exception, which is this one's cause.

    Attributes:
        trace: that exception's traceback from the user's function on.
    """

    trace: str = ""


class SurgeryError(TopopruneError):
    """The layers cannot be deleted from this model; nothing was changed."""

    exit_code = 4


class SelfTestError(TopopruneError):
    """A pruned model is broken and must not be evaluated."""

    exit_code = 4


class GenerationError(TopopruneError):
    """The model failed while answering; there is no answer to score."""

    exit_code = 4


class UnreachableError(TopopruneError):
    """Something outside this machine (a hub, a data set) is needed and cannot be reached."""

    exit_code = 3


class MissingExtraError(TopopruneError, ImportError):
    """An optional dependency is absent."""

    exit_code = 3


def led_to(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that led to it, each once: causes before contexts, and chains may be cycles."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            yield error
            waiting += [error.__context__, error.__cause__]


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the accelerator or on the host, whichever library says so."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or any(w in str(error) for w in words))
    )


def whole_number(variable: str, unset: int = 0) -> int:
    """An environment variable that launchers set, such as RANK; -1 counts as unset.

    Raises:
        OptionError: it is no whole number.
    """
    text = os.environ.get(variable, "-1").strip()
    if text == "-1":
        return unset
    if not text.isdecimal():
        raise OptionError(
            f"the environment variable {variable} is {shown(text)}; allowed: a whole number from 0 on"
        )
    return int(text)


def check_launcher() -> None:
    """Refuse what no launcher sets before libraries read it.

    Raises:
        OptionError: names the first variable that is no whole number.
    """
    for variable in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        whole_number(variable)
    if "RANK" in os.environ:  # Kubernetes sets MASTER_PORT=tcp://... itself if a service is called master
        whole_number("MASTER_PORT")


def shown(value: object) -> str:
    """A value as a message shows it: in one line, which is cut where it is long."""
    try:
        text = one_line(repr(value))
    except ValueError:  # Python refuses to print whole numbers of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 60]}...{text[-57:]}"


def one_line(text: object) -> str:
    """A text, or what an exception says, without line breaks."""
    return " ".join(str(text).split())


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line; other libraries' errors begin with their type, which may say most."""
    if isinstance(error, TopopruneError):
        return one_line(error)
    return one_line(f"{type(error).__name__}: {error}").removesuffix(":")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint that names the closest allowed spelling, or an empty string if none is close."""
    match = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {match[0]!r}?" if match else ""


def unknown(what: str, name: object, allowed: Iterable[str]) -> OptionError:
    """The error for a name that is not one of the allowed ones."""
    allowed = sorted(allowed)
    hint = nearest(str(name), allowed)
    return OptionError(f"{what} is {shown(name)}; allowed: {', '.join(allowed)}{hint}")
