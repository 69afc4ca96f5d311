"""Saving a pruned model as an ordinary Hugging Face folder, whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from transformers import PreTrainedModel

from lmms_topoprune._util import files
from lmms_topoprune.errors import InputError, one_line, shown
from lmms_topoprune.plan import PruningPlan, format_layers, runs
from lmms_topoprune.surgery.dense_folder import DenseFolder
from lmms_topoprune.surgery.edits import CUTS, KEPT, healing_of, outcome_of, repair_of
from lmms_topoprune.surgery.export_folder import new_folder, renumber_quantization
from lmms_topoprune.surgery.export_weights import (
    adapters_of,
    copy_weights,
    layer_prefix,
    merge_adapters,
    save_model,
    tensor_names,
)
from lmms_topoprune.surgery.locate import decoder_layers, layers_path
from lmms_topoprune.surgery.model_card import Figures, hub_results, model_card


def mergekit_yaml(plan: PruningPlan, source: str | None = None, dtype: str = "bfloat16") -> str:
    """The YAML that makes mergekit build the same model from the dense one.

    Args:
        plan: which layers stay.
        source: name or path of the dense model; the plan's own by default.
        dtype: torch name of the weights' type, such as "float16".
    """
    model = source or plan.model
    slices = [
        {"sources": [{"model": model, "layer_range": [run.start, run.stop]}]} for run in runs(plan.kept)
    ]
    recipe = {"slices": slices, "merge_method": "passthrough", "dtype": dtype}
    text: str = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    return f"# plan {plan.hash}\n{text}"


# Fields that promise layers to predict further tokens with, which transformers leaves out as it loads.
_PREDICTING = re.compile(r"num_nextn_predict_layers|num_mtp_(layers|modules)|mtp_(num_)?(hidden_)?layers")


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
    merge_adapter: bool = False,
) -> Path:
    """Save a model whose layers are already deleted, with everything needed to load and understand it.

    The folder starts from the dense model's own: its config.json with the fields that the deletion changes,
    and its generation, processor, template, license and code files as they are. So a folder that transformers
    4 wrote stays one that transformers 4 and other engines read. Where that folder is not on this machine,
    or the model was changed in more than its layers, the files are written by transformers. plan.json,
    mergekit.yaml and a model card come on top. The folder appears under its name only once complete.
    mergekit can only drop layers: with a repair or a healing there is no mergekit.yaml.

    Args:
        model: the pruned model.
        processor: the model's processor or tokenizer; None leaves it out.
        plan: the plan that was carried out on the model.
        folder: where to; its parent is created, symbolic links are followed.
        figures: benchmark name -> value, or -> {column: value}, for the model card.
        source: name or path of the dense model; the plan's own by default.
        overwrite: replace a folder that exists, at the very end, unless somebody has written to it meanwhile.
        max_shard_size: largest safetensors file, such as "5GB".
        merge_adapter: add an adapter (LoRA) that the model carries to its weights, in place; otherwise it is
            refused.

    Raises:
        OptionError: the folder is not empty and overwrite is off, it is a file or below one, or somebody
            else wrote to it meanwhile.
        InputError: the model does not have the layers that the plan keeps, as far as can be told of a model
            that was not pruned here, or not its repair or healing; it carries an adapter; it is quantized in
            a way that cannot be saved, or by settings that cannot be renumbered; or the folder cannot be
            written.
    """
    _check_kept(model, plan)
    _check_repair(model, plan)
    _check_healing(model, plan)
    with _written(folder), new_folder(Path(folder), overwrite) as draft:
        _check_adapter(model, merge_adapter)
        dense = DenseFolder.find(model, plan.layers, (source, model.name_or_path, plan.model))
        config = _write_model(model, plan, draft, dense, max_shard_size)
        absent = _drop_promises(config, draft, model, plan)
        files.write_json(draft / "config.json", config)
        if dense is not None:
            dense.copy_files(draft, processor)
        elif processor is not None:
            processor.save_pretrained(draft)
        _told(plan, model).save(draft / "plan.json")
        if not plan.changes_weights:
            dtype = str(model.dtype).removeprefix("torch.")
            files.write_text(draft / "mergekit.yaml", mergekit_yaml(plan, source, dtype))
        for name, text in hub_results(plan, figures or {}).items():
            files.write_text(draft / ".eval_results" / name, text)
        files.write_text(draft / "README.md", _card(model, plan, figures, source, dense, absent))
    return Path(folder)


def _write_model(
    model: PreTrainedModel,
    plan: PruningPlan,
    draft: Path,
    dense: DenseFolder | None,
    max_shard_size: str | int,
) -> dict[str, Any]:
    """Write the weights; the content of config.json."""
    config = dense.pruned_config(model) if dense else None
    path = layers_path(model)
    if dense and config and (settings := config.get("quantization_config")) and not plan.changes_weights:
        copy_weights(dense.path, draft, path, plan.kept, plan.layers)
    else:
        save_model(model, draft, max_shard_size)
        saved: dict[str, Any] = json.loads((draft / "config.json").read_text(encoding="utf-8"))
        settings = saved.get("quantization_config")
        if config is not None:
            for copy in draft.glob("*.py"):  # of the code, flat; it stands where the dense folder has it
                copy.unlink()
        config = saved if config is None else config
    if settings:
        modules = [name for name, _ in model.named_modules()]
        config["quantization_config"] = renumber_quantization(settings, path, plan.kept, modules)
    return config


def _drop_promises(
    config: dict[str, Any], draft: Path, model: PreTrainedModel, plan: PruningPlan
) -> list[str]:
    """Set to 0 what config.json says of layers that no file holds, and name these fields."""
    names = list(tensor_names(draft))
    prefix = layer_prefix(names, layers_path(model))
    behind = tuple(f"{prefix}{number}." for number in range(len(plan.kept), len(plan.kept) + 8))
    if any(name.startswith(behind) or re.search(r"(^|\.)(mtp|nextn)\b", name) for name in names):
        return []
    found = []
    for section in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key, value in section.items():
            if _PREDICTING.fullmatch(key) and isinstance(value, int) and value > 0:
                section[key] = 0
                found.append(key)
    return list(dict.fromkeys(found))


@contextmanager
def _written(folder: Path | str) -> Iterator[None]:
    """A disk that is full or read-only is one sentence, whichever library finds out."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"folder {shown(str(folder))} cannot be written: {reason}") from error


def _check_kept(model: PreTrainedModel, plan: PruningPlan) -> None:
    layers = len(decoder_layers(model))
    if layers != len(plan.kept):
        raise InputError(
            f"model has {layers} decoder layers but the plan keeps {len(plan.kept)} of {plan.layers}; "
            "carry the plan out with delete_layers or load_pruned first"
        )
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
            "carry the plan out on the dense model with apply_plan first"
        )


def _check_healing(model: PreTrainedModel, plan: PruningPlan) -> None:
    if healing_of(model) != dict(plan.heal):
        wanted = f"a healing of {plan.heal['steps']} steps" if plan.heal else "no healing"
        raise InputError(
            f"the plan has {wanted}, which is not what the model has; "
            "carry the plan out on the dense model with apply_plan first"
        )


def _told(plan: PruningPlan, model: PreTrainedModel) -> PruningPlan:
    """The plan with what came of its healing."""
    found = outcome_of(model)
    return plan.with_stages(heal={**plan.stages.get("heal", {}), **found}) if found else plan


def _check_adapter(model: PreTrainedModel, merge: bool) -> None:
    if not (names := adapters_of(model)):
        return
    if not merge:
        raise InputError(
            f"model carries an adapter ({', '.join(names)}), which is no part of its own weights; "
            "pass merge_adapter=True to add it to them, or unload it"
        )
    merge_adapters(model)


def _card(
    model: PreTrainedModel,
    plan: PruningPlan,
    figures: Figures | None,
    source: str | None,
    dense: DenseFolder | None,
    absent: list[str],
) -> str:
    return model_card(
        _told(plan, model),
        model_class=type(model).__name__,
        parameters=model.num_parameters(),
        figures=figures,
        source=source,
        multimodal=bool(set(model.config.sub_configs) - {"text_config"}),
        cuts=repair_of(model).get(CUTS),
        dense_card=dense.path / "README.md" if dense else None,
        absent=absent,
    )
