"""`python -m lmms_eval` without lmms-eval's own two thousand tasks, which take seconds to index."""

from __future__ import annotations

import functools
import runpy

from lmms_eval import tasks

if __name__ == "__main__":
    tasks.TaskManager = functools.partial(tasks.TaskManager, include_defaults=False)
    runpy.run_module("lmms_eval", run_name="__main__", alter_sys=True)
