"""A plan with a repair: carried out again, exported, told apart from the same plan without."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, LlavaProcessor, PreTrainedModel

from lmms_topoprune import registry
from lmms_topoprune.calibration.calibration_set import CalibrationSets
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError, OptionError, OwnCodeError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import Planner, apply_plan, make_plan
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.repair.cut_sums import CutSums, KnownSums
from lmms_topoprune.repair.repaired_deletion import announce, repair
from lmms_topoprune.results.reading import plan_label
from lmms_topoprune.surgery import delete_layers, export, fingerprint, load_pruned
from lmms_topoprune.surgery.edits import repair_of
from lmms_topoprune.sweep.folder import SweepFolder

IDS = {"input_ids": torch.arange(3, 12)[None]}
OPTIONS = {"criterion": "uniform", "sparsity": 0.34, "samples": 8, "k": "3"}

Make = Callable[..., PreTrainedModel]


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(**IDS).logits


def plan_for(
    model: PreTrainedModel, processor: LlavaProcessor, method: str = "linear", **more: Any
) -> PruningPlan:
    options = PruningOptions(**{**OPTIONS, "repair": method, **more})
    return make_plan(model, processor, options, name="dense", progress=False)


def test_a_method_that_returns_no_weights_is_refused_and_nothing_is_deleted(
    tiny_llava: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        registry._declared, (registry.Repair, "mine"), registry.Repair("mine", lambda job: {})
    )
    model = tiny_llava(layers=3)
    before = fingerprint(model)
    with pytest.raises(InputError, match="repair 'mine' returned a dict; allowed: "):
        repair(model, [IDS], [1], "mine")
    assert fingerprint(model) == before


def test_what_is_no_weight_of_the_model_is_refused_and_nothing_is_deleted(
    tiny_llava: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llava(layers=3)
    norm, before = model.model.language_model.norm, fingerprint(model)
    wrong, double = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(norm.weight.double())
    other = torch.nn.Linear(2, 2)
    for weights in (
        {3: {}}, {norm: 4}, {norm: {"weight": wrong}}, {norm: {"weight": double}},
        {norm: {"wieght": norm.weight}}, {other: {"weight": other.weight}},
    ):  # fmt: skip
        made = registry.Repair("mine", lambda job, weights=weights: (weights, {}))
        monkeypatch.setitem(registry._declared, (registry.Repair, "mine"), made)
        with pytest.raises(InputError, match=r"repair 'mine' returned .*; allowed: "):
            repair(model, [IDS], [1], "mine")
    assert fingerprint(model) == before


def test_figures_are_numbers_and_any_dictionary_holds_them(
    tiny_llava: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model card and its JSON take what a plan's repair is recorded with."""
    model = tiny_llava(layers=3)

    def mine(job: Any) -> Any:
        return defaultdict(dict), OrderedDict({1: figure})

    monkeypatch.setitem(registry._declared, (registry.Repair, "mine"), registry.Repair("mine", mine))
    figure: Any = torch.tensor(0.5)
    with pytest.raises(InputError, match=r"returned the figure tensor\(0.5000\) of 1; allowed: a number"):
        repair(model, [IDS], [1], "mine")
    figure = np.float32(0.5)
    with repair(model, [IDS], [1], "mine"):
        assert json.dumps(repair_of(model)["cuts"]) == '{"1": 0.5}'


def test_an_exception_in_somebody_elses_repair_is_told_as_theirs(
    tiny_llava: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine(job: Any) -> Any:
        return job.nothing

    monkeypatch.setitem(registry._declared, (registry.Repair, "mine"), registry.Repair("mine", mine))
    model = tiny_llava(layers=3)
    before = fingerprint(model)
    with pytest.raises(
        OwnCodeError, match=r"repair 'mine', line \d+ of .*, failed: AttributeError: "
    ) as told:
        repair(model, [IDS], [1], "mine")
    assert fingerprint(model) == before and "return job.nothing" in told.value.trace
    assert isinstance(told.value.__cause__, AttributeError)


@pytest.mark.parametrize("method", ["linear", "rescale"])
def test_an_exported_repair_loads_in_plain_transformers(
    method: str, tiny_llava: Make, embedded_processor: LlavaProcessor, tmp_path: Path
) -> None:
    model = tiny_llava(layers=6)
    plan = plan_for(model, embedded_processor, method)
    dense = logits(model)
    deletion = apply_plan(model, embedded_processor, plan)
    folder = export(model, embedded_processor, plan, tmp_path / "repaired")
    loaded, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not {key: keys for key, keys in report.items() if keys}
    assert torch.equal(logits(loaded), logits(model))
    assert type(loaded) is type(model) and not (folder / "mergekit.yaml").exists()
    card = (folder / "README.md").read_text()
    assert f"| repair method | {method} |" in card and "were re" in card
    assert PruningPlan.load(folder / "plan.json") == plan
    with pytest.raises(InputError, match=f"the plan has a {method} repair, which needs the layers"):
        load_pruned(folder, plan)
    deletion.restore()
    assert torch.equal(logits(model), dense)
    with delete_layers(model, plan.dropped):
        assert not torch.equal(logits(model), logits(loaded))


def test_plan_and_model_must_agree_on_the_repair(
    tiny_llava: Make, embedded_processor: LlavaProcessor, samples: Sequence[Sample], tmp_path: Path
) -> None:
    model = tiny_llava(layers=6)
    plan, plain = (plan_for(model, embedded_processor, method) for method in ("linear", "none"))
    with delete_layers(model, plan.dropped), pytest.raises(InputError, match="the plan has a linear repair"):
        export(model, None, plan, tmp_path / "a")
    with (
        apply_plan(model, embedded_processor, plan),
        pytest.raises(InputError, match="the plan has no repair"),
    ):
        export(model, None, plain, tmp_path / "b")
    by_hand = repair(model, samples[:8], plan.dropped, processor=embedded_processor)
    with by_hand, pytest.raises(InputError, match="the plan has no repair"):
        export(model, None, plain, tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_a_plan_file_redoes_its_repair_or_refuses(
    tiny_llava: Make, embedded_processor: LlavaProcessor, samples: Sequence[Sample], tmp_path: Path
) -> None:
    model = tiny_llava(layers=6)
    plan = plan_for(model, embedded_processor)
    with apply_plan(model, embedded_processor, plan):
        repaired = fingerprint(model)
    plan.save(tmp_path / "plan.json")
    for given in ("none", "linear"):
        again = make_plan(
            model,
            embedded_processor,
            PruningOptions(plan=str(tmp_path / "plan.json"), repair=given),
            name="x",
        )
        assert again == plan
        with apply_plan(model, embedded_processor, again):
            assert fingerprint(model) == repaired
    other = PruningOptions(plan=str(tmp_path / "plan.json"), repair="rescale")
    with pytest.raises(OptionError, match="repair is 'rescale', but the plan says 'linear'"):
        make_plan(model, embedded_processor, other, name="x")
    with pytest.raises(InputError, match="fitted to calibration samples with fingerprint"):
        apply_plan(model, embedded_processor, plan, samples=samples[:8])
    newer = replace(plan, repair={**plan.repair, "version": 99})
    with pytest.raises(InputError, match="the plan's repair is of version 99"):
        apply_plan(model, embedded_processor, newer)
    changed = replace(plan, repair={**plan.repair, "code": "0123456789abcdef"})
    with pytest.raises(InputError, match="the plan's repair was made by other code than is here now"):
        apply_plan(model, embedded_processor, changed)
    with pytest.raises(InputError, match="the plan's repair lacks fingerprint"):
        replace(plan, repair={k: v for k, v in plan.repair.items() if k != "fingerprint"})


def test_a_repair_has_names_of_its_own(
    tiny_llava: Make, embedded_processor: LlavaProcessor, tmp_path: Path
) -> None:
    """Plans, folders of a sweep and labels: nothing repaired passes for unrepaired, or for another repair."""
    model = tiny_llava(layers=6)
    plans = [plan_for(model, embedded_processor, method) for method in ("none", "linear", "rescale")]
    plans.append(plan_for(model, embedded_processor, seed=1))
    assert len({plan.dropped for plan in plans}) == 1
    for name in (lambda p: p.hash, SweepFolder(tmp_path).evaluation):
        assert len({name(plan) for plan in plans}) == 4
    assert plan_label(plans[0]) == "uniform 34 %"
    assert plan_label(plans[1]) == "uniform repair=linear 34 %"
    assert "linear repair" in str(plans[1]) and "repair" not in str(plans[0])


def test_a_sweep_plans_the_same_repair(tiny_llava: Make, embedded_processor: LlavaProcessor) -> None:
    model = tiny_llava(layers=6)
    for criterion in ("uniform", "cosine"):
        wanted = PruningOptions(**{**OPTIONS, "criterion": criterion, "repair": "linear"})
        (found,) = Planner("dense", model, embedded_processor).plans([wanted])
        alone = make_plan(model, embedded_processor, wanted, name="dense", progress=False)
        assert found.hash == alone.hash and found.repair == alone.repair


def test_nothing_deleted_is_nothing_repaired(tiny_llava: Make, embedded_processor: LlavaProcessor) -> None:
    model = tiny_llava(layers=6)
    plan = plan_for(model, embedded_processor, sparsity=0.0)
    assert not plan.dropped and not plan.repair
    before = fingerprint(model)
    with apply_plan(model, embedded_processor, plan):
        assert fingerprint(model) == before
    with pytest.raises(OptionError, match="repair is 'magic'; allowed: linear, none, rescale"):
        PruningOptions(repair="magic")


@pytest.mark.parametrize(
    ("method", "limit", "passes"),
    [("linear", 2**31, 1), ("linear", 1, 3), ("rescale", 2**31, 1), ("rescale", 1, 3)],
)
def test_one_pass_serves_the_repairs_of_many_plans_as_far_as_memory_goes(
    method: str, limit: int, passes: int, tiny_llava: Make, embedded_processor: LlavaProcessor
) -> None:
    """Overlapping cuts too; the weights are those of a pass for each plan alone."""
    model = tiny_llava(layers=6)
    plans = [
        plan_for(model, embedded_processor, method, sparsity=0.0, layers=text) for text in ("2-3", "3", "2+4")
    ]
    alone = []
    for plan in plans:
        with apply_plan(model, embedded_processor, plan):
            alone.append(fingerprint(model))
    assert len(set(alone)) == 3
    sums, sets = KnownSums(limit), CalibrationSets()
    announce(((plan.dropped, plan.repair) for plan in plans), sums)
    for plan, expected in zip(plans, alone, strict=True):
        with apply_plan(model, embedded_processor, plan, calibrations=sets, sums=sums):
            assert fingerprint(model) == expected
    assert sums.passes == passes


def _found(*cuts: range, width: int = 4, projected: bool = True) -> dict[range, CutSums]:
    def of(cut: range) -> CutSums:
        line, square = torch.full((width,), float(cut.start)).double(), torch.ones(width, width).double()
        return CutSums(line, line, line.sum(), *((square, square) if projected else ()))

    return {cut: of(cut) for cut in cuts}


@pytest.mark.parametrize("projected", [True, False])
def test_sums_of_several_passes_are_kept_up_to_the_limit(projected: bool) -> None:
    """Whatever the kind of sums, those go first that were not asked for longest; what is needed now stays."""
    size = CutSums.size_of(4, projected=projected)
    assert {sums.size for sums in _found(range(2), projected=projected).values()} == {size}
    known, kind, cuts = KnownSums(limit=3 * size), ("set", projected), [range(i, i + 1) for i in range(1, 8)]

    def kept() -> list[range]:
        return [cut for _, _, cut in known.sums]

    known.put(kind, _found(*cuts[:2], projected=projected), cuts[:1])
    known.put(kind, _found(cuts[2], projected=projected), cuts[2:3])
    assert kept() == cuts[:3] and known.passes == 2
    known.announce(kind, cuts)
    assert known.others(kind, cuts[3:4], size) == cuts[4:6]
    assert known.missing(kind, [cuts[0], cuts[3]]) == [cuts[3]]
    known.put(kind, _found(cuts[3], projected=projected), [cuts[0], cuts[3]])
    assert kept() == [cuts[2], cuts[0], cuts[3]]
    known.put(("other", projected), _found(*cuts[:4], projected=projected), cuts[:4])
    assert set(known.sums) == {("other", projected, cut) for cut in cuts[:4]}
