"""A dense model on disk: what can be said of it before its weights are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedModel
from transformers.utils.hub import cached_file

from lmms_topoprune.errors import InputError
from lmms_topoprune.surgery.fingerprint import fingerprint, identifying_config
from lmms_topoprune.surgery.meta_model import on_meta_device

HUB = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
SAME = ("config", "trust_remote_code", "use_safetensors", "variant")  # decide what the dense model is
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Checkpoint:
    """What from_pretrained would be called with.

    Attributes:
        path: local folder or hub id.
        model_class: a model or Auto class.
        options: the other arguments of from_pretrained.
    """

    path: str
    model_class: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def config(self) -> Any:
        """The configuration, read once.

        Raises:
            InputError: it comes with code of its own, which may not run here.
        """
        if given := self.options.get("config"):
            return given
        trusted = self._trusted
        try:
            return AutoConfig.from_pretrained(self.path, trust_remote_code=trusted, **self._named(HUB))
        except ValueError as error:
            if trusted or "trust_remote_code" not in str(error):
                raise
            raise InputError(
                f"{self.path!r} comes with code of its own, which is not run; pass trust_remote_code=True if "
                "you have read it and trust it"
            ) from None

    @property
    def _trusted(self) -> bool:
        return bool(self.options.get("trust_remote_code"))

    @cached_property
    def skeleton(self) -> PreTrainedModel:
        """The dense model on the meta device: names, shapes and types without a single number."""
        dtype = self.options.get("dtype", self.options.get("torch_dtype"))
        return skeleton(self.model_class, self.config, dtype, self._trusted)

    @cached_property
    def folder(self) -> Path:
        """Where the files are; for a hub id its snapshot on this machine."""
        return Path(str(cached_file(self.path, "config.json", **self._named(HUB)))).parent

    @property
    def identity(self) -> list[Any]:
        """What the loaded model's fingerprint depends on, told without opening the weights' files.

        A file counts as the same while its place, size and times are: a copy has another place, and writing
        changes the time of change, which no program can set.
        """
        weights = [file for file in sorted(self.folder.iterdir()) if file.suffix in WEIGHTS]
        facts = [(file.name, file.stat()) for file in weights]
        places = [[name, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in facts]
        config = json.dumps(identifying_config(self.config), sort_keys=True, default=str)
        dtype = str(self.skeleton.dtype)
        return [str(self.folder.resolve()), places, config, self.model_class.__name__, dtype]

    def is_quantized(self) -> bool:
        return is_quantized(self.config, self.options)

    @cached_property
    def fingerprint(self) -> str | None:
        """The loaded model's fingerprint, from samples of every tensor; None if it cannot be told.

        The files are mapped, not read: on the CPU and in the stored type transformers keeps their pages as
        they are. The samples are converted as loading would convert the weights, so this holds for files of
        one floating-point type that is not quantized.
        """
        dtype = next(iter(self.stored_types), None)
        if self.is_quantized() or len(self.stored_types) != 1 or not isinstance(dtype, torch.dtype):
            return None
        options = self._named((*HUB, *SAME))
        mapped = self.model_class.from_pretrained(self.path, dtype=dtype, device_map="cpu", **options)
        return fingerprint(mapped, {dtype: [self.skeleton.dtype]})

    @cached_property
    def stored_types(self) -> frozenset[torch.dtype | str]:
        """Types of all floating-point tensors in the safetensors files; those torch lacks by their names."""
        found = set()
        for file in self.folder.glob("*.safetensors"):
            with safe_open(file, framework="pt") as tensors:
                found |= {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118
        return frozenset(_TYPES.get(name, name) for name in found if "F" in name)

    def _named(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self.options[name] for name in names if name in self.options}


def skeleton(model_class: Any, config: Any, dtype: Any, trusted: bool = False) -> PreTrainedModel:
    """A model of that configuration on the meta device, in the type that loading would give it."""
    if dtype in (None, "auto"):
        dtype = config.dtype or torch.float32
    auto = getattr(model_class, "from_config", None)
    with on_meta_device():
        if auto is None:
            return model_class._from_config(config, dtype=dtype)
        return auto(config, dtype=dtype, trust_remote_code=trusted)


def is_quantized(config: Any, options: Mapping[str, Any]) -> bool:
    return "quantization_config" in options or getattr(config, "quantization_config", None) is not None
