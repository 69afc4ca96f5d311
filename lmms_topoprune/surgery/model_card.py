"""The model card of an exported model: what was deleted, why, how it scores, and where it comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from lmms_topoprune import registry
from lmms_topoprune._util.escape import markdown, printable
from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune.plan import PruningPlan, format_layers, healing_told

Figures = Mapping[str, Any]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

ABSENT = """\
The dense model's layers for predicting further tokens are not in this folder, since transformers leaves them
out as it loads; {fields} in `config.json` is 0 for that reason.
"""

HEALED = """\
The layers that stayed were {told}. The loss is the divergence from the next-token distribution of the dense
model and, weighted, the distance from its hidden states behind the deleted blocks; no labels were read. What
was trained is merged into the weights.
"""

IN_VAIN = """\
The layers that stayed are as they were: {told}.
"""

LOADING = """\
The folder holds an ordinary transformers model; it does not need lmms-topoprune:

```python
from transformers import {loader}

model = {loader}.from_pretrained("path/to/this/folder", dtype="auto")
```
"""


def model_card(
    plan: PruningPlan,
    *,
    model_class: str,
    parameters: int,
    figures: Figures | None = None,
    source: str | None = None,
    multimodal: bool = True,
    cuts: Mapping[str, float] | None = None,
    dense_card: Path | None = None,
    absent: Sequence[str] = (),
) -> str:
    """README.md of an exported model, with the hub's metadata on top.

    Args:
        plan: the plan that was carried out.
        model_class: transformers class that loads the folder.
        parameters: number of parameters after the deletion.
        figures: benchmark name -> value, or -> {column: value}. The pruned model's numbers (the value, or
            the column "pruned") become the card's model-index too, under the row's "dataset" (a name of the
            hub) and "metric" if it has them.
        source: name or path of the dense model; the plan's own by default.
        multimodal: the model takes images.
        cuts: what the repair did, by deleted block.
        dense_card: README.md of the dense model, whose license is the pruned one's.
        absent: fields of config.json that were set to 0, since the layers they promise are not there.
    """
    source = printable(source or plan.model)
    title = f"{source.rstrip('/').split('/')[-1]} without {len(plan.dropped)} of its {plan.layers} layers"
    data = _metadata(source, title, multimodal, figures or {}, dense_card)
    parts = [
        f"# {title}\n",
        f"Decoder layers {format_layers(plan.dropped)} of `{source}` (counted from 0) were deleted; "
        f"{'what is left was trained' if plan.is_trained else 'nothing was trained'} afterwards. "
        "The terms of the original model apply.\n",
        *([_repair(plan).card] if plan.repair else []),
        *([(HEALED if plan.is_trained else IN_VAIN).format(told=healing_told(plan))] if plan.heal else []),
        LOADING.format(loader=model_class),
        *([ABSENT.format(fields=" and ".join(f"`{name}`" for name in absent))] if absent else []),
        "## Plan\n",
        _table(("", ""), [*_plan_rows(plan, parameters), *_repair_rows(plan, cuts or {})]),
        *(["## Figures\n", _figures(figures)] if figures else []),
        "## Provenance\n",
        _table(("", ""), _provenance_rows(plan, source)),
        "`plan.json` holds the whole plan"
        + (
            ".\n"
            if plan.changes_weights
            else ", `mergekit.yaml` the same deletion as a mergekit configuration.\n"
        ),
        *_method(plan.criterion, len(plan.trials)),
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n" + "\n".join(parts)))


def _repair(plan: PruningPlan) -> registry.Repair:
    return registry.get_repair(plan.repair["method"])


def _method(name: str, trials: int) -> list[str]:
    """What the criterion says of itself, and how to cite it; nothing of one turned round or not named."""
    criterion = registry.by_plain_name(name)
    if criterion is None or criterion.reversed or not criterion.papers:
        return []
    papers = "".join(f"- {paper} ({address})\n" for paper, address in criterion.papers.items())
    if trials > 1:
        told = f"the best of {trials} sets of layers by their loss"
    else:
        told = "here without trials" if criterion.defaults.get("trials") else "by its scores alone"
    cited = [f"```bibtex\n{entry.strip()}\n```\n" for entry in criterion.citations]
    return [
        "## Method\n",
        f"The layers were chosen by lmms-topoprune's criterion `{criterion.name}` ({criterion.summary}), "
        f"{told}, which builds on\n\n{papers}",
        *cited,
    ]


def _metadata(
    source: str, title: str, multimodal: bool, figures: Figures, dense_card: Path | None
) -> ModelCardData:
    """The hub knows four relations to a base model, of which a finetune comes closest (it has no pruned)."""
    task = "image-text-to-text" if multimodal else "text-generation"
    base: dict[str, Any] = {}
    if HUB_ID.fullmatch(source):  # the hub rejects a local path here
        base = {"base_model": source, "base_model_relation": "finetune"}
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        tags=["pruned", "depth-pruning", "lmms-topoprune"],
        model_name=title,
        eval_results=list(_results(figures, task)) or None,
        **base,
        **_license(dense_card),
    )


def _license(dense_card: Path | None) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if dense_card and dense_card.is_file():
        with errors_kept():  # a card that cannot be read says nothing
            data = ModelCard.load(dense_card).data.to_dict()
    return {key: data[key] for key in ("license", "license_name", "license_link") if data.get(key)}


def _results(figures: Figures, task: str) -> Iterator[EvalResult]:
    for name, row in _rows(figures).items():
        value = row.get("pruned", row.get("value"))
        if isinstance(value, int | float):
            yield EvalResult(
                task_type=task,
                dataset_name=name,
                dataset_type=str(row.get("dataset") or _slug(name)),
                metric_type=str(row.get("metric") or "score"),
                metric_value=value,
            )


def hub_results(plan: PruningPlan, figures: Figures) -> dict[str, str]:
    """File name -> YAML for the hub's folder .eval_results, of rows whose "dataset" is one of the hub.

    Source: huggingface.co/docs/hub/eval-results; one file a row; "task" names the benchmark's task.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for name, row in _rows(figures).items():
        value, dataset = row.get("pruned", row.get("value")), str(row.get("dataset") or "")
        if isinstance(value, int | float) and HUB_ID.fullmatch(dataset):
            entry = {
                "dataset": {"id": dataset, "task_id": str(row.get("task") or "default")},
                "value": value,
                "notes": f"without decoder layers {format_layers(plan.dropped)}, by lmms-topoprune",
            }
            found.setdefault(f"{_slug(name)}.yaml", []).append(entry)
    return {name: yaml.safe_dump(entries, sort_keys=False) for name, entries in found.items()}


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.").lower() or "result"


def _plan_rows(plan: PruningPlan, parameters: int) -> list[tuple[str, str]]:
    return [
        ("criterion", plan.criterion),
        *((name, _text(value)) for name, value in plan.parameters.items()),
        ("decoder layers", f"{len(plan.kept)} of {plan.layers}"),
        ("deleted", format_layers(plan.dropped)),
        ("kept", format_layers(plan.kept)),
        ("parameters after deletion", f"{parameters:,}"),
    ]


def _repair_rows(plan: PruningPlan, cuts: Mapping[str, float]) -> list[tuple[str, str]]:
    figure = _repair(plan).figure if plan.repair else ""
    return [
        *((f"repair {name}", _text(value)) for name, value in plan.repair.items()),
        *((f"{figure} {block}", _text(value)) for block, value in cuts.items()),
        *((f"heal {name}", _text(value)) for name, value in plan.heal.items()),
        *((f"healed: {name}", _text(value)) for name, value in plan.stages.get("heal", {}).items()),
    ]


def _provenance_rows(plan: PruningPlan, source: str) -> list[tuple[str, str]]:
    return [
        ("dense model", source),
        ("fingerprint of the dense model", plan.fingerprint),
        ("plan", plan.hash),
        *((f"calibration {name}", _text(value)) for name, value in plan.calibration.items()),
        *plan.versions.items(),
    ]


def _figures(figures: Figures) -> str:
    rows = _rows(figures)
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    body = [(name, *(_text(row.get(column)) for column in columns)) for name, row in rows.items()]
    return _table(("benchmark", *columns), body)


def _rows(figures: Figures) -> dict[str, Mapping[str, Any]]:
    return {key: value if isinstance(value, Mapping) else {"value": value} for key, value in figures.items()}


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = (map(markdown, line) for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
