"""One short string that names a model: its weights and its configuration."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from transformers import PreTrainedModel

from lmms_topoprune import files

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


def fingerprint(model: PreTrainedModel) -> str:
    """A hash (16 hex digits) of the weights and the configuration, the same on every device.

    Of each tensor the name, shape, dtype and 16 evenly spaced runs of 64 elements enter (small tensors enter
    whole), so a model of 7 billion parameters takes well under a second. Training, merging an adapter or
    quantizing changes nearly every element of a tensor, so two such models collide only if all 1024 sampled
    elements of every changed tensor survive; editing a few single elements of a large tensor may go unseen.
    """
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        weights.update(_sample(tensor.detach()))
    config = json.dumps(_identity(model.config.to_dict()), sort_keys=True, default=str)
    return files.digest([weights.hexdigest(), config])


def _identity(value: Any) -> Any:
    """A configuration without what depends on where and how the model was loaded."""
    if not isinstance(value, dict):
        return value
    return {str(key): _identity(item) for key, item in value.items() if key not in _LOADING}


def _sample(tensor: torch.Tensor) -> bytes:
    """The bytes of up to 1024 elements; none for a tensor without storage (meta device)."""
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return b""
    flat = tensor.reshape(-1)
    if flat.numel() > _BLOCKS * _LENGTH:
        starts = torch.linspace(0, flat.numel() - _LENGTH, _BLOCKS, dtype=torch.float64).long()
        flat = torch.cat([flat[start : start + _LENGTH] for start in starts.tolist()])
    return flat.contiguous().cpu().view(torch.uint8).numpy().tobytes()
