"""lmms-eval's response cache knows a model by its argument string; a plan can change behind that string."""

from __future__ import annotations

import functools
from typing import Any

from lmms_eval.caching.response_cache import ResponseCache

from lmms_topoprune._util.files import digest
from lmms_topoprune.errors import InputError

HASH = "_model_fingerprint_hash"


def tell_plans_apart() -> None:
    """Make the cache's key depend on `cache_identity` of the model asked; other models are not touched."""
    original = ResponseCache.execute
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def execute(self: ResponseCache, lm: Any, reqtype: str, requests: list[Any]) -> list[Any]:
        identity = getattr(lm, "cache_identity", None)
        if identity is not None:
            if not hasattr(self, HASH):
                raise InputError(
                    "use_cache is given; this version of lmms-eval cannot tell plans apart, leave it out"
                )
            setattr(self, HASH, digest([self.model_fingerprint, identity]))
        return original(self, lm, reqtype, requests)

    ResponseCache.execute = execute
