"""Which models lmms-eval knows."""

from __future__ import annotations

from lmms_eval.models import list_available_models


def known_models() -> set[str]:
    """Every name that `lmms-eval --model` accepts, ours among them if the plugin was loaded."""
    return set(list_available_models(include_aliases=True))
