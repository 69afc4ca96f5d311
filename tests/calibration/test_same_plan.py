"""The plan depends on nothing but what it records: not on threads, batches or where the weights lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from threadpoolctl import threadpool_limits
from transformers import LlavaForConditionalGeneration

from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import make_plan
from lmms_topoprune.plan import PruningPlan

CRITERIA = ("topology", "block_influence")
PARTS = ("model.vision_tower", "model.multi_modal_projector", "lm_head")
DECODER = ("embed_tokens", "norm", "rotary_emb")


@pytest.fixture(scope="module")
def folder(tiny_llava: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("llava")
    tiny_llava(layers=6).save_pretrained(found)
    return found


@pytest.fixture
def plan_of(embedded_processor, samples) -> Callable[..., PruningPlan]:
    def make(model: Any, criterion: str = "topology", **changes: Any) -> PruningPlan:
        given = {"samples": 32, "k": "3", "sparsity": 0.3, "selection": "rank", **changes}
        options = PruningOptions(criterion=criterion, **given)
        shared = {"name": "tiny", "samples": samples, "progress": False, "cache": Cache(None)}
        return make_plan(model, embedded_processor, options, **shared)

    return make


@pytest.fixture
def expected(folder, plan_of, criterion) -> PruningPlan:
    return plan_of(loaded(folder), criterion)


def loaded(folder: Path, **given: Any) -> Any:
    return LlavaForConditionalGeneration.from_pretrained(folder, **given).eval()


def assert_same(one: PruningPlan, other: PruningPlan) -> None:
    assert (one.dropped, one.hash) == (other.dropped, other.hash)
    assert one.scores == pytest.approx(other.scores, abs=1e-6)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (2, 8)])
def test_threads_and_batches(folder, plan_of, criterion, expected, threads, batch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            assert_same(plan_of(loaded(folder), criterion, calibration_batch=batch), expected)
    finally:
        torch.set_num_threads(before)


def _mapped(folder: Path, place: Path) -> Any:
    """Every other layer on the disk, as device_map="auto" does it with a model that is too large."""
    decoder = "model.language_model"
    devices = dict.fromkeys([*PARTS, *(f"{decoder}.{name}" for name in DECODER)], "cpu")
    devices |= {f"{decoder}.layers.{i}": ("disk" if i % 2 else "cpu") for i in range(6)}
    return loaded(folder, device_map=devices, offload_folder=place)


def _offloaded_to_cpu(folder: Path, place: Path) -> Any:
    return cpu_offload(loaded(folder), execution_device="cpu")


def _offloaded_to_disk(folder: Path, place: Path) -> Any:
    return disk_offload(loaded(folder), place, execution_device="cpu")


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("spread", [_mapped, _offloaded_to_cpu, _offloaded_to_disk])
def test_weights_that_are_fetched_when_needed(folder, plan_of, tmp_path, spread, criterion, expected):
    model = spread(folder, tmp_path / "offload")
    assert any(parameter.device.type == "meta" for parameter in model.parameters())
    assert_same(plan_of(model, criterion), expected)
