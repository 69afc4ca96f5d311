"""A pruning plan as a mergekit configuration: passthrough slices of the layers that stay."""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from lmms_topoprune.plan import PruningPlan


def runs(layers: Iterable[int]) -> list[tuple[int, int]]:
    """Consecutive layers as half-open ranges: (0, 1, 4) becomes [(0, 2), (4, 5)]."""
    found: list[tuple[int, int]] = []
    for layer in sorted(layers):
        if found and found[-1][1] == layer:
            found[-1] = (found[-1][0], layer + 1)
        else:
            found.append((layer, layer + 1))
    return found


def mergekit_yaml(plan: PruningPlan, source: str | None = None, dtype: str = "bfloat16") -> str:
    """The YAML that makes mergekit build the same model from the dense one.

    Args:
        plan: which layers stay.
        source: name or path of the dense model; the plan's own by default.
        dtype: torch name of the weights' type, such as "float16".
    """
    model = source or plan.model
    slices = [{"sources": [{"model": model, "layer_range": list(run)}]} for run in runs(plan.kept)]
    recipe = {"slices": slices, "merge_method": "passthrough", "dtype": dtype}
    text: str = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    return f"# plan {plan.hash}\n{text}"
