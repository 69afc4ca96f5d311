"""lmms-eval's wrappers import decord, a video reader few need: let them import where it is absent."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

from lmms_topoprune.errors import MissingExtraError


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise MissingExtraError(
        "decord is needed to open a video and is not installed; pip install decord (eva-decord on a Mac)"
    )


def _stand_in() -> ModuleType:
    module = ModuleType("decord", "Raises one clear sentence when a video is opened.")
    module.VideoReader = module.cpu = module.gpu = _refuse  # type: ignore[attr-defined]
    return module


@contextmanager
def optional() -> Iterator[None]:
    """Within this block `import decord` succeeds; afterwards sys.modules is as it was.

    A stand-in that stayed would make others believe that decord is there, so those that ask at
    import (lmms_eval.protocol, transformers) are asked before.
    """
    if "decord" in sys.modules or importlib.util.find_spec("decord") is not None:
        yield
        return
    import lmms_eval.protocol  # noqa: F401
    from transformers.utils.import_utils import is_decord_available

    is_decord_available()
    sys.modules["decord"] = _stand_in()
    try:
        yield
    finally:
        del sys.modules["decord"]
