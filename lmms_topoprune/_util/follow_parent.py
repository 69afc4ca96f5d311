"""A child process that ends with its parent, from its first moment on; imports next to nothing."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import threading
from typing import Any


def follow_parent(function: str, *arguments: Any) -> None:
    """Call "module:function" in a child process that ends at once when its parent does, even by kill -9.

    The watch begins before the module, which may take seconds, is imported: nobody is left to use what an
    orphan makes. Arguments should be picklable without heavy imports of their own.
    """
    threading.Thread(target=_watch, daemon=True).start()
    module, _, name = function.partition(":")
    getattr(importlib.import_module(module), name)(*arguments)


def _watch() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
