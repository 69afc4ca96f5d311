"""Saving a pruned model as an ordinary Hugging Face folder, whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel

from lmms_topoprune._util import files
from lmms_topoprune.errors import InputError, OptionError, shown
from lmms_topoprune.plan import PruningPlan, format_layers
from lmms_topoprune.surgery.locate import decoder_layers
from lmms_topoprune.surgery.mergekit import mergekit_yaml
from lmms_topoprune.surgery.model_card import Figures, model_card
from lmms_topoprune.surgery.prepare import KEPT
from lmms_topoprune.surgery.repair_record import CUTS, repair_of


def export(
    model: PreTrainedModel,
    processor: Any,
    plan: PruningPlan,
    folder: Path | str,
    figures: Figures | None = None,
    source: str | None = None,
    *,
    overwrite: bool = False,
    max_shard_size: str | int = "50GB",
) -> Path:
    """Save a model whose layers are already deleted, with everything needed to load and understand it.

    The folder holds config.json, generation_config.json, safetensors, the processor with its chat
    template, plan.json, mergekit.yaml and a model card. It appears under its name only once complete.
    mergekit can only drop layers: with a repair there is no mergekit.yaml.

    Args:
        model: the pruned model.
        processor: the model's processor or tokenizer; None leaves it out.
        plan: the plan that was carried out on the model.
        folder: where to; its parent is created.
        figures: benchmark name -> value, or -> {column: value}, for the model card.
        source: name or path of the dense model; the plan's own by default.
        overwrite: replace a folder that exists, at the very end.
        max_shard_size: largest safetensors file, such as "5GB".

    Raises:
        OptionError: the folder is not empty and overwrite is off, or it is a file.
        InputError: the model does not have the layers that the plan keeps, as far as can be told of a model
            that was not pruned here, or not its repair, or the folder cannot be written.
    """
    layers = len(decoder_layers(model))
    if layers != len(plan.kept):
        raise InputError(
            f"model has {layers} decoder layers but the plan keeps {len(plan.kept)} of {plan.layers}; "
            "carry the plan out with delete_layers or load_pruned first"
        )
    _check_kept(model, plan)
    _check_repair(model, plan)
    with _written(folder), new_folder(Path(folder), overwrite) as draft:
        model.save_pretrained(draft, max_shard_size=max_shard_size)
        if processor is not None:
            processor.save_pretrained(draft)
        plan.save(draft / "plan.json")
        if not plan.repair:
            dtype = str(model.dtype).removeprefix("torch.")
            files.write_text(draft / "mergekit.yaml", mergekit_yaml(plan, source, dtype))
        files.write_text(draft / "README.md", _card(model, plan, figures, source))
    return Path(folder)


@contextmanager
def _written(folder: Path | str) -> Iterator[None]:
    """A disk that is full or read-only is one sentence, whichever library finds out."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"folder {shown(str(folder))} cannot be written: {reason}") from error


def _check_kept(model: PreTrainedModel, plan: PruningPlan) -> None:
    layers, kept = vars(model).get(KEPT, (plan.layers, plan.kept))
    if layers == plan.layers and kept != plan.kept:
        found, wanted = format_layers(kept), format_layers(plan.kept)
        raise InputError(
            f"model has layers {found} of {layers} but the plan keeps {wanted}; "
            "carry the same plan out that is exported"
        )


def _check_repair(model: PreTrainedModel, plan: PruningPlan) -> None:
    record = repair_of(model)
    found = {name: value for name, value in record.items() if name != CUTS}
    if found != dict(plan.repair):
        wanted = f"a {plan.repair['method']} repair" if plan.repair else "no repair"
        raise InputError(
            f"the plan has {wanted}, which is not what the model has; "
            "carry the plan out on the dense model with repairing.carry_out first"
        )


def _card(model: PreTrainedModel, plan: PruningPlan, figures: Figures | None, source: str | None) -> str:
    return model_card(
        plan,
        model_class=type(model).__name__,
        parameters=model.num_parameters(),
        figures=figures,
        source=source,
        multimodal=bool(set(model.config.sub_configs) - {"text_config"}),
        cuts=repair_of(model).get(CUTS),
    )


@contextmanager
def new_folder(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, which takes the name `folder` when the block ends and vanishes if it fails.

    Raises:
        OptionError: `folder` is a file, or it is not empty and overwrite is off.
    """
    folder = folder.resolve()
    if folder.is_file():
        raise OptionError(f"folder is {str(folder)!r}, which is a file; allowed: a new or an empty folder")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise OptionError(
            f"folder is {str(folder)!r}, which is not empty; allowed: a new or an empty folder, "
            "or any with overwrite=True"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename within one file system.
    # It is named before it exists and cleared away twice if need be: Ctrl-C may come between any two lines.
    bench = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        bench.mkdir()
        draft = bench / "new"
        draft.mkdir()
        yield draft
        _replace(folder, draft, bench / "old")
        shutil.rmtree(bench, ignore_errors=True)
    except BaseException:
        shutil.rmtree(bench, ignore_errors=True)
        raise


def _replace(folder: Path, draft: Path, old: Path) -> None:
    """Put `draft` in the place of `folder`; if that fails the old folder is back in place."""
    if not folder.exists():
        draft.rename(folder)
        return
    try:
        folder.rename(old)
        draft.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
