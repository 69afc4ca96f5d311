"""What lmms-eval knows and does not hand over: looked up in the functions that are calling us."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any


def local_of(function: str, name: str) -> Any:
    """The local variable `name` of the nearest caller called `function` in lmms-eval, or None."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name == function and module.startswith("lmms_eval.") and name in frame.f_locals:
            return frame.f_locals[name]
        frame = frame.f_back
    return None
