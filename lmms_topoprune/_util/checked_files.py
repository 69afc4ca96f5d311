"""Files that say something else than expected end in one sentence, whatever is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lmms_topoprune._util import files
from lmms_topoprune.errors import InputError, TopopruneError, one_line, reason_of


class CorruptFileError(InputError):
    """A result is missing or damaged: what is wrong with it, and what to do where nobody knows better."""

    def __str__(self) -> str:
        return "; ".join(self.args)


@contextmanager
def understood(path: Path, what: str) -> Iterator[None]:
    """Within this block a field that is missing or of another type means that `path` is no `what`.

    Raises:
        InputError: names the file.
    """
    try:
        yield
    except TopopruneError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise InputError(f"{str(path)!r} is no {what}, or is damaged ({reason_of(error)})") from None


Model = TypeVar("Model", bound=BaseModel)


def checked(schema: type[Model], value: Any, path: Path, what: str) -> Model:
    """A value from a file as its schema has it.

    Raises:
        InputError: names the file, and the first field that is wrong.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        said = one_line(f"{place}: {first['msg']}")
        raise InputError(f"{str(path)!r} is no {what}, or is damaged ({said[:300]})") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: the file cannot be read, is cut short or holds something else.
    """
    try:
        value = json.loads(files.read_bytes(path).decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise CorruptFileError(f"{str(path)!r} is cut short or not JSON", "evaluate again") from None
    if not isinstance(value, dict):
        raise InputError(f"{str(path)!r} holds no JSON object")
    return value
