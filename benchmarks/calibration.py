"""Seconds per stage of making a plan, as ratios to a plain forward pass over the same batches.

    python benchmarks/calibration.py --samples 64,512 --layers 8,32 --clock cpu --out calibration.json

Prints a table and writes JSON. The models are randomly initialized in the embedded architecture, or
with --llava7b in LLaVA-1.5-7B's own size in bfloat16 (needs a GPU with 24 GB). "plain" encodes the
prompts and runs the model without a hook on the decoder, "collect" does the same and keeps the states,
"gather" puts the states of two processes together, "topology" makes the scores and "select" the plan's
layers. Plain and collect take turns; the fastest of --rounds counts, which other programs disturb least.
"extra" is how much higher the peak of tensor memory is with states kept, as a share of N x S x d numbers.
"""

from __future__ import annotations

import argparse
import pickle
import platform
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlavaForConditionalGeneration

from lmms_topoprune._util import files
from lmms_topoprune.calibration.collect import by_length, collect, evaluation_mode, forward
from lmms_topoprune.calibration.decoder import last_logits
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.ranks import merged
from lmms_topoprune.calibration.recorder import View
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.sources import load_samples
from lmms_topoprune.calibration.states import HiddenStates
from lmms_topoprune.criteria.topology import pairwise
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.selection import select

sys.path.append(str(Path(__file__).parents[1]))

from training.embedded import build

BATCH = 8
FEW = 256  # samples whose memory is looked at: every allocation is recorded


def main() -> None:
    arguments = parse()
    rows = []
    for layers in arguments.layers:
        made: list[Any] = []
        make = llava_7b if arguments.llava7b else partial(saved_and_loaded, layers)
        load = seconds(lambda: made.append(make()), arguments.clock)  # noqa: B023
        model, processor = made[0]
        for count in arguments.samples:
            samples = (load_samples("embedded", 512, 0) * (1 + count // 512))[:count]
            row = measure(model, processor, samples, arguments.k, arguments.rounds, arguments.clock)
            rows.append({**row, "load": load})
            print(line(rows[-1]), flush=True)
    machine = {"device": device_name(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    files.write_json(arguments.out, {"machine": machine, "rows": rows})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--samples", type=numbers, default=[64, 256, 512], help="comma-separated, 64..2048")
    parser.add_argument(
        "--layers", type=numbers, default=[8, 16, 24, 32], help="decoder layers, comma-separated"
    )
    parser.add_argument("--k", default="5", help="neighbors in the graph")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu on a busy machine")
    parser.add_argument(
        "--llava7b", action="store_true", help="LLaVA-1.5-7B's size on the GPU; ignores --layers"
    )
    parser.add_argument("--out", type=Path, default=Path("calibration.json"))
    arguments = parser.parse_args()
    if arguments.llava7b:
        arguments.layers = [32]
    return arguments


def saved_and_loaded(layers: int) -> tuple[Any, Any]:
    """A random model in the embedded architecture, in bfloat16 files, loaded as it is shipped."""
    processor = build.build_processor()
    with tempfile.TemporaryDirectory() as folder:
        build.build_model(processor, build.Size(layers=layers), seed=0).bfloat16().save_pretrained(folder)
        model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), processor


def llava_7b() -> tuple[Any, Any]:
    """Random weights in the size of llava-hf/llava-1.5-7b-hf; prompts through the embedded tokenizer."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    processor = build.build_processor()
    side = {"height": 336, "width": 336}
    processor.image_processor.size = processor.image_processor.crop_size = side
    processor.patch_size = 14
    tokenizer = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        image_size=336, patch_size=14, projection_dim=768,
    )  # fmt: skip
    text = LlamaConfig(vocab_size=32064, pad_token_id=tokenizer.pad_token_id, bos_token_id=None)
    image_id = tokenizer.convert_tokens_to_ids(build.IMAGE_TOKEN)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=image_id)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlavaForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    return model, processor


def measure(
    model: Any, processor: Any, samples: list[Sample], k: str, rounds: int, clock: str
) -> dict[str, Any]:
    """One row: seconds of each stage, the kept states' bytes, and the memory they take in a pass."""
    prompter, found, plain, kept = Prompter(processor), [], [], []

    def keep() -> None:
        found[:] = [collect(model, processor, samples, batch_size=BATCH)]

    keep()  # warms up
    for _ in range(rounds):
        plain.append(seconds(lambda: plain_pass(model, batches(prompter, samples)), clock))
        kept.append(seconds(keep, clock))
    options = PruningOptions(sparsity=0.3, state="residual", k=k, samples=len(samples))
    hidden = found[0].states()["residual"]
    scores: list[Any] = [pairwise(hidden, options)]  # compiles
    states, view = hidden.values, View("residual", "last")
    halves = [replace(found[0], vectors={view: states[:, rank::2].clone()}) for rank in (0, 1)]
    return {
        "samples": len(samples),
        "states": states.shape[0],
        "width": states.shape[2],
        "state_bytes": states.numel() * states.element_size(),
        "plain": min(plain),
        "collect": min(kept),
        "ratio": min(kept) / min(plain),
        "encode": seconds(lambda: list(batches(prompter, samples)), clock),
        "gather": seconds(lambda: merged([pickle.loads(pickle.dumps(half)) for half in halves]), clock),
        "topology": seconds(
            lambda: scores.append(pairwise(HiddenStates("residual", states), options)), clock
        ),
        "select": seconds(lambda: select(scores[0], options.drop_count(states.shape[0] - 1)), clock),
        "extra": extra_memory(model, processor, samples[:FEW], states.shape[0] * states.shape[2]),
    }


def extra_memory(model: Any, processor: Any, samples: list[Sample], numbers: int) -> float:
    """Peak tensor memory with states kept, beyond that of a plain pass, over N x S x d numbers."""
    prompter = Prompter(processor)
    plain = peak_bytes(lambda: plain_pass(model, batches(prompter, samples)))
    kept = peak_bytes(lambda: collect(model, processor, samples, batch_size=BATCH))
    return (kept - plain) / (len(samples) * numbers * model.dtype.itemsize)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that the storages of tensors made by `work` took at once, on any device."""
    with _Storages() as seen:
        result = work()
    del result
    return seen.peak


class _Storages(TorchDispatchMode):
    """Counts the bytes of storages from when an operation returns them until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: set[int] = set()
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)
        }
        for leaf in tree_leaves(result):
            if torch.is_tensor(leaf) and leaf.untyped_storage()._cdata not in given:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.alive:
            return
        self.alive.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size


def batches(prompter: Prompter, samples: list[Sample]) -> Iterator[Any]:
    return (prompter.encode([samples[i] for i in batch]) for batch in by_length(prompter, samples, BATCH))


def plain_pass(model: Any, encoded: Iterator[Any]) -> None:
    """The same prompts through the same model without any hook on the decoder."""
    with evaluation_mode(model), torch.no_grad(), last_logits(model):
        for inputs in encoded:
            forward(model, inputs)


def seconds(work: Callable[[], object], clock: str) -> float:
    now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
    start = now()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return now() - start


def line(row: dict[str, Any]) -> str:
    parts = [f"N={row['samples']:5d} S={row['states']:3d} d={row['width']}"]
    parts += [f"plain {row['plain']:7.2f} s", f"collect {row['ratio']:5.3f}x"]
    for name in ("load", "encode", "gather", "topology", "select"):
        parts.append(f"{name} {row[name] / row['plain']:6.3f}x")
    return "  ".join([*parts, f"states {row['state_bytes'] / 2**20:.1f} MiB", f"extra {row['extra']:.3f}"])


def device_name() -> str:
    return (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine()
    )


if __name__ == "__main__":
    main()
