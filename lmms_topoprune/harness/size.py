"""How large a model is, as it stands; noted beside its results."""

from __future__ import annotations

from transformers import PreTrainedModel


def size(model: PreTrainedModel) -> dict[str, int]:
    """`parameters`, and `weight_bytes` with buffers."""
    return {
        "parameters": int(model.num_parameters()),
        "weight_bytes": int(model.get_memory_footprint(return_buffers=True)),
    }


def size_beside(model: PreTrainedModel, dense: dict[str, int]) -> dict[str, int]:
    """The same of a model whose deleted layers are kept for later: `held_bytes` is what they take up.

    They would not be there if only the pruned model had been loaded, so its memory is the peak less these.
    """
    own = size(model)
    return {**own, "held_bytes": dense["weight_bytes"] - own["weight_bytes"]}
