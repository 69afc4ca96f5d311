"""The dense model's own folder: an export starts from its files and edits only what the deletion touches."""

from __future__ import annotations

import copy
import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.hub import cached_file

from lmms_topoprune._util import files
from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune.surgery.fingerprint import identifying_config
from lmms_topoprune.surgery.locate import count_of, locate
from lmms_topoprune.surgery.meta_model import quietly

log = logging.getLogger(__name__)

# What a model folder may hold besides weights: settings, vocabularies, templates, code, licenses.
_SUFFIXES = {".json", ".jinja", ".txt", ".model", ".py", ".tiktoken", ".spm", ".bpe", ".vocab"}
_LICENSES = ("LICENSE", "LICENCE", "NOTICE", "COPYING", "USE_POLICY")
_NOT_COPIED = {"config.json", "plan.json", "mergekit.yaml", "adapter_config.json", "trainer_state.json"}
_TEMPLATES = "additional_chat_templates"
# Where and how a model was loaded; of these only the type says something of the weights.
_LOADING = {
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_cache",
    "architectures",
    "quantization_config",
}


@dataclass(frozen=True)
class DenseFolder:
    """A folder with the dense model's files, on this machine.

    Attributes:
        path: the folder.
        config: config.json as it stands there, whichever version of transformers wrote it.
    """

    path: Path
    config: dict[str, Any]

    @classmethod
    def find(cls, model: PreTrainedModel, layers: int, names: Iterable[str | None]) -> DenseFolder | None:
        """The first of these folders or hub names whose config.json describes the dense model, if any.

        Args:
            model: the pruned model.
            layers: number of layers of the dense one.
            names: local folders, or hub names, which are looked up in the cache only.
        """
        for name in filter(None, names):
            with errors_kept():  # no such folder, or not one of such a model
                file = _config_file(name)
                config = json.loads(file.read_text(encoding="utf-8"))
                if _describes(config, model, layers):
                    return cls(file.parent, config)
        return None

    def pruned_config(self, model: PreTrainedModel) -> dict[str, Any] | None:
        """config.json with the fields that differ between the dense and the pruned model, and no other.

        None if that would not be read as the pruned model's configuration, as when the model was changed in
        more than its layers; then the model's own configuration has to be written.
        """
        kind, pruned = type(model.config), _plain(model.config.to_dict())
        with quietly():
            dense = _read(kind, self.config)
            for complete in (False, True):  # defaults that the file leaves out are added only if they matter
                config = copy.deepcopy(self.config)
                _carry_over(config, dense, _plain(dense.to_dict()), pruned, complete)
                with errors_kept():  # a class may object to fields that do not fit together
                    if _identity(_read(kind, config)) != _identity(model.config):
                        continue
                    return _with_type(config, dense, model)
        log.warning(
            "config.json is written anew: the model differs from %s in more than its layers", self.path
        )
        return None

    def copy_files(self, target: Path, processor: Any) -> None:
        """Copy what the deletion does not touch: files of the processor as they are, code and licenses.

        A processor that was changed after it was loaded is saved by itself, and None is left out.
        """
        same = processor is not None and self._has(processor)
        if processor is not None and not same:
            processor.save_pretrained(target)
        for file in sorted(self.path.iterdir()):
            if _is_license(file) or (same and _is_setting(file)):
                shutil.copyfile(file, target / file.name)
        for name in self._code():  # auto_map names modules in folders too, and these import their neighbors
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.path / name, target / name)
        if same and (self.path / _TEMPLATES).is_dir():
            shutil.copytree(self.path / _TEMPLATES, target / _TEMPLATES, copy_function=shutil.copyfile)
        self._copy_generation(target)

    def _code(self) -> list[Path]:
        """The model's Python files, by their places in its folder."""
        found = (file.relative_to(self.path) for file in self.path.rglob("*.py") if file.is_file())
        own = (file for file in found if not file.match("__pycache__/*") and not files.is_hidden(file))
        return sorted(file for file in own if not self._of_another(file))

    def _of_another(self, file: Path) -> bool:
        """Whether it belongs to another model, such as an earlier export, below this one's folder."""
        return any((self.path / folder / "config.json").exists() for folder in file.parents[:-1])

    def _copy_generation(self, target: Path) -> None:
        name = "generation_config.json"
        if (self.path / name).is_file():
            shutil.copyfile(self.path / name, target / name)
        else:
            (target / name).unlink(missing_ok=True)

    def _has(self, processor: Any) -> bool:
        """Whether this is the folder's processor: saved again, both are the same files."""
        with tempfile.TemporaryDirectory() as place, quietly():
            given, read = Path(place, "given"), Path(place, "read")
            processor.save_pretrained(given)
            with errors_kept():
                type(processor).from_pretrained(str(self.path)).save_pretrained(read)
                return _contents(given) == _contents(read)
            return False


def _read(kind: type[PreTrainedConfig], config: Mapping[str, Any]) -> PreTrainedConfig:
    """As from_pretrained reads it from a file: from_dict by itself does not know JSON's form of infinity."""
    with tempfile.TemporaryDirectory() as place:
        Path(place, "config.json").write_text(json.dumps(config), encoding="utf-8")
        return kind.from_pretrained(place)


def _config_file(name: str) -> Path:
    folder = Path(name).expanduser()
    return folder / "config.json" if folder.is_dir() else Path(str(_in_cache(name)))


def _in_cache(name: str) -> str | None:
    found: str | None = cached_file(name, "config.json", local_files_only=True)
    return found


def _describes(config: Mapping[str, Any], model: PreTrainedModel, layers: int) -> bool:
    """It is of the model's type and has the dense number of layers."""
    if config.get("model_type") != model.config.model_type:
        return False
    location = locate(model)
    with quietly():
        read: Any = _read(type(model.config), config)
    for key in location.sections:
        read = getattr(read, key, None)
    return any(count_of(read, count) == layers for count in location.counts)


def _carry_over(
    config: dict[str, Any], read: Any, dense: dict[str, Any], pruned: dict[str, Any], complete: bool
) -> None:
    """Put into `config` what differs between `dense` and `pruned`, at the place where it says it.

    Args:
        config: a section of config.json as it is on disk; changed.
        read: the configuration object that it was read into.
        dense, pruned: dictionaries of that section before and after the deletion.
        complete: also add fields that the section on disk leaves to their defaults.
    """
    names = getattr(read, "attribute_map", {})
    for key in {**dense, **pruned}:
        old, new = dense.get(key), pruned.get(key)
        if old == new or key in _LOADING or key.startswith("_"):
            continue
        section = getattr(read, key, None)
        if isinstance(section, PreTrainedConfig) and isinstance(old, dict) and isinstance(new, dict):
            # Files of transformers 4 may have a decoder's fields beside the sections of other parts.
            inner = config[key] if isinstance(config.get(key), dict) else config
            _carry_over(inner, section, old, new, complete)
            continue
        written = [name for name in (key, *(a for a, b in names.items() if b == key)) if name in config]
        for name in written or ([key] if complete and key in pruned else []):
            if key in pruned:
                config[name] = new
            else:
                del config[name]


def _with_type(config: dict[str, Any], dense: PreTrainedConfig, model: PreTrainedModel) -> dict[str, Any]:
    """The class and the type of the weights that are written, if they are not those of the dense folder."""
    name, dtype = type(model).__name__, str(model.dtype).removeprefix("torch.")
    if name not in (config.get("architectures") or ()) and "auto_map" not in config:
        config["architectures"] = [name]
    if str(dense.dtype).removeprefix("torch.") != dtype and not config.get("quantization_config"):
        for section in _sections(config):
            for key in {"dtype", "torch_dtype"} & section.keys():
                section[key] = dtype
        if not {"dtype", "torch_dtype"} & config.keys():
            config["torch_dtype"] = dtype  # what both transformers 4 and 5 read
    return config


def _sections(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield config
    for value in config.values():
        if isinstance(value, dict):
            yield from _sections(value)


def _identity(config: PreTrainedConfig) -> Any:
    found = _plain(identifying_config(config))
    found.pop("quantization_config", None)
    return found


def _plain(value: Any) -> Any:
    """As it comes back from JSON: lists for tuples, text for types."""
    return json.loads(json.dumps(value, default=str))


def _is_setting(file: Path) -> bool:
    name = file.name
    weights = name.endswith((".index.json", ".safetensors.json"))
    return (
        file.is_file()
        and not name.startswith(".")
        and file.suffix in _SUFFIXES
        and name not in _NOT_COPIED
        and not weights
    )


def _is_license(file: Path) -> bool:
    return file.is_file() and file.stem.upper().startswith(_LICENSES)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
