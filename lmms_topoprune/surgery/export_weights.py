"""The weights of an export: the model's own, or those of a quantized checkpoint's files as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune.errors import InputError, one_line
from lmms_topoprune.surgery.special_layers import is_blocked


def adapters_of(model: nn.Module) -> list[str]:
    """Names of the adapters, as peft and transformers' own integration note them; empty without any."""
    named = [name for _, layer in _adapted(model) for name in getattr(layer, "active_adapters", ())]
    return list(dict.fromkeys([*named, *getattr(model, "peft_config", {})]))


def merge_adapters(model: PreTrainedModel) -> None:
    """Add the active adapters to the weights, in place, and take the adapters' modules away.

    Raises:
        InputError: an adapter is of a kind that cannot be merged.
    """
    for name, layer in list(_adapted(model)):
        with errors_kept() as merging:
            layer.merge(safe_merge=True)
        if merging.error:
            raise InputError(
                f"the adapter on {name} cannot be merged: {' '.join(str(merging.error).split())}"
            )
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(model, "_hf_peft_config_loaded"):
        model._hf_peft_config_loaded = False
    vars(model).pop("peft_config", None)


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Layers that wrap one of the model's own, the outermost only."""
    for name, module in model.named_modules():
        if hasattr(module, "base_layer") and hasattr(module, "merge") and hasattr(module, "get_base_layer"):
            yield name, module


INDEX = "model.safetensors.index.json"


def save_model(model: PreTrainedModel, folder: Path, max_shard_size: str | int) -> None:
    """config.json, generation_config.json and the weights, as transformers saves them.

    Raises:
        InputError: the model is quantized in a way that transformers cannot save.
    """
    method = quantization_method(model)
    if method is None:
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        return
    if repacked := next((name for name, module in model.named_modules() if _is_repacked(module)), None):
        raise InputError(
            f"model cannot be saved: a forward pass on the CPU has repacked {repacked}; export it before it "
            "is used, or quantize the exported folder"
        )
    with errors_kept() as saving:
        if not _is_serializable(model):
            raise ValueError("it has no way to write its weights")
        model.save_pretrained(folder, max_shard_size=max_shard_size)
    if isinstance(saving.error, OSError | SafetensorError):  # the disk, not the quantization
        raise saving.error
    if saving.error:
        raise InputError(
            f"model is quantized by {method}, which transformers cannot save: {one_line(saving.error)}; "
            "export the model that is not quantized, and quantize the exported folder"
        ) from saving.error


def quantization_method(model: PreTrainedModel) -> str | None:
    """The name of the method by which a loaded model is quantized, if it is."""
    quantizer = getattr(model, "hf_quantizer", None)
    method = getattr(getattr(quantizer, "quantization_config", None), "quant_method", None)
    return None if quantizer is None else str(getattr(method, "value", method))


def _is_serializable(model: PreTrainedModel) -> bool:
    told = model.hf_quantizer.is_serializable  # type: ignore[union-attr]
    return bool(told() if callable(told) else told)


def _is_repacked(module: Any) -> bool:
    """bitsandbytes lays out 4-bit weights anew for the CPU at the first forward pass."""
    state = getattr(getattr(module, "weight", None), "quant_state", None)
    return bool(getattr(state, "packing_format_for_cpu", False))


def copy_weights(source: Path, folder: Path, path: str, kept: Sequence[int], layers: int) -> None:
    """Write the tensors of the layers that stay, renumbered, as they are in the dense safetensors files.

    For checkpoints that are quantized already: packed weights and their scales are copied byte by byte, so
    what was computed with the loaded model, or which kernels it needs, does not matter.

    Args:
        source: the dense model's folder.
        folder: where to.
        path: name of the list of decoder layers in the model.
        kept: layers that stay, ascending.
        layers: number of layers before.

    Raises:
        InputError: the folder has no safetensors files, or their names do not tell the decoder's layers.
    """
    files = _files(source)
    if not files:
        raise InputError(f"{str(source)!r} holds no safetensors files to take the quantized weights from")
    names = list(tensor_names(source))
    if blocked := next((name for name in names if is_blocked(name)), None):
        raise InputError(f"{blocked} has one block a layer, which cannot be taken out of quantized files")
    rename = _renaming(names, path, kept, layers)
    written: dict[str, str] = {}
    size = 0
    staying = [file for file in files if any(map(rename, _names(file)))]
    for number, file in enumerate(staying, 1):
        target = (
            "model.safetensors"
            if len(staying) == 1
            else f"model-{number:05}-of-{len(staying):05}.safetensors"
        )
        with safe_open(file, framework="pt") as stored:
            pairs = ((rename(name), name) for name in stored.keys())  # noqa: SIM118
            tensors = {new: stored.get_tensor(name) for new, name in pairs if new is not None}
            save_file(tensors, folder / target, metadata=stored.metadata() or {"format": "pt"})
        written |= dict.fromkeys(tensors, target)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if len(staying) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(written.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def tensor_names(folder: Path) -> Iterator[str]:
    """Names of all tensors in a folder's safetensors files."""
    for file in _files(folder):
        yield from _names(file)


def _files(folder: Path) -> list[Path]:
    """The model's files; others (a copy for another engine) may lie beside them."""
    if (folder / INDEX).is_file():
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / name for name in sorted(set(found))]
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as stored:
        return list(stored.keys())


def layer_prefix(names: Iterable[str], path: str) -> str | None:
    """The decoder's layers in files, such as "language_model.model.layers."; None if unclear."""
    parts, last = set(path.split(".")), path.rpartition(".")[2]
    pattern = re.compile(rf"((?:\w+\.)*{re.escape(last)}\.)\d+\.")
    found = {match[1] for match in map(pattern.match, names) if match}
    fitting = {prefix for prefix in found if set(prefix.rstrip(".").split(".")) <= parts}
    return fitting.pop() if len(fitting) == 1 else None


def _renaming(
    names: Sequence[str], path: str, kept: Sequence[int], layers: int
) -> Callable[[str], str | None]:
    prefix = layer_prefix(names, path)
    if prefix is None:
        raise InputError(f"the names of the quantized weights do not tell which belong to {path}")
    new = {str(old): number for number, old in enumerate(kept)}

    def rename(name: str) -> str | None:
        if not name.startswith(prefix):
            return name
        number, dot, rest = name[len(prefix) :].partition(".")
        if number.isdigit() and int(number) >= layers:  # layers behind the decoder's, to predict more tokens
            return f"{prefix}{int(number) - layers + len(kept)}{dot}{rest}"
        return f"{prefix}{new[number]}{dot}{rest}" if number in new else None

    return rename
