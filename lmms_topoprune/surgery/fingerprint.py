"""One short string that names a model: its weights and its configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from lmms_topoprune._util import files

Casts = Mapping[torch.dtype, Sequence[torch.dtype]]

_BLOCKS, _LENGTH = 16, 64
# Where and how a model was loaded, not what it is.
_LOADING = (
    "_name_or_path",
    "name_or_path",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "_commit_hash",
    "use_cache",
    "architectures",
)


def fingerprint(model: PreTrainedModel, casts: Casts | None = None) -> str:
    """A hash (16 hex digits) of the weights and the configuration, the same on every device.

    Of each tensor the name, shape, dtype and 16 evenly spaced runs of 64 elements enter (small tensors enter
    whole), so a model of 7 billion parameters takes well under a second. Training, merging an adapter or
    quantizing changes nearly every element of a tensor, so two such models collide only if all 1024 sampled
    elements of every changed tensor survive; editing a few single elements of a large tensor may go unseen.

    Args:
        model: the model; weights that accelerate has offloaded are fetched where they are.
        casts: types that tensors of a type are converted to, one after the other, before they are looked at.
    """
    weights = hashlib.sha256()
    elsewhere = _offloaded(model)
    for name, tensor in sorted(model.state_dict().items()):
        sample = _sample((elsewhere[name]() if name in elsewhere else tensor).detach())
        for dtype in (casts or {}).get(sample.dtype, ()):
            sample = sample.to(dtype)
        weights.update(f"{name} {tuple(tensor.shape)} {sample.dtype}".encode())
        weights.update(sample.view(torch.uint8).numpy().tobytes())
    config = json.dumps(identifying_config(model.config), sort_keys=True, default=str)
    return files.digest([weights.hexdigest(), config])


def identifying_config(config: PreTrainedConfig) -> dict[str, Any]:
    """A configuration as a dictionary without what depends on where and how the model was loaded."""
    found: dict[str, Any] = _identifying(config.to_dict())
    return found


def _identifying(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {str(key): _identifying(item) for key, item in value.items() if key not in _LOADING}


def _offloaded(model: PreTrainedModel) -> dict[str, Callable[[], torch.Tensor]]:
    """How to get each tensor that accelerate keeps elsewhere and puts in place when it is needed."""
    found: dict[str, Callable[[], torch.Tensor]] = {}
    for name, module in model.named_modules():
        hook = getattr(module, "_hf_hook", None)
        for part in getattr(hook, "hooks", (hook,)):
            if (kept := getattr(part, "weights_map", None)) is None:
                continue
            for key, tensor in module.state_dict(keep_vars=True).items():
                if tensor.device.type == "meta":
                    found[f"{name}.{key}" if name else key] = partial(kept.__getitem__, key)
    return found


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    """Up to 1024 elements, on the CPU; none of a tensor without storage (meta device)."""
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return torch.empty(0, dtype=tensor.dtype)
    flat = tensor.reshape(-1)
    if flat.numel() > _BLOCKS * _LENGTH:
        starts = torch.linspace(0, flat.numel() - _LENGTH, _BLOCKS, dtype=torch.float64).long()
        flat = torch.cat([flat[start : start + _LENGTH] for start in starts.tolist()])
    return flat.contiguous().cpu()
