"""Seconds per stage of making a plan, as ratios to a plain forward pass over the same batches.

    python benchmarks/calibration.py --samples 64,512 --layers 8,24 --out calibration.json

Prints a table and writes JSON. The models are randomly initialized in the embedded architecture, or
with --llava7b in LLaVA-1.5-7B's own size in bfloat16 (needs a GPU with 24 GB). "plain" encodes the
prompts and runs the model without a hook on the decoder, "collect" does the same and keeps the states;
--rounds repeats both in turns and the fastest of each counts.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lmms_topoprune import files
from lmms_topoprune.calibration.collect import by_length, collect, evaluation_mode, forward
from lmms_topoprune.calibration.decoder import last_logits
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.criteria.topology import pairwise
from lmms_topoprune.embedded import build
from lmms_topoprune.embedded.data import calibration_samples
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.selection import select

BATCH = 8


def main() -> None:
    arguments = parse()
    rows = []
    for layers in arguments.layers:
        model, processor = llava_7b() if arguments.llava7b else embedded(layers)
        for count in arguments.samples:
            samples = (calibration_samples() * (1 + count // 512))[:count]
            rows.append(measure(model, processor, samples, arguments.k, arguments.rounds, arguments.clock))
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


def embedded(layers: int) -> tuple[Any, Any]:
    processor = build.build_processor()
    return build.build_model(processor, build.Size(layers=layers), seed=0).eval(), processor


def llava_7b() -> tuple[Any, Any]:
    """Random weights in the size of llava-hf/llava-1.5-7b-hf; prompts through the embedded tokenizer."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

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
    """One row: seconds of each stage, and the kept states' bytes."""
    prompter, evidence = Prompter(processor), []
    plain, kept, encode = [], [], []
    for _ in range(rounds):
        encode.append(seconds(lambda: list(batches(prompter, samples)), clock))
        plain.append(seconds(lambda: plain_pass(model, batches(prompter, samples)), clock))
        kept.append(
            seconds(lambda: evidence.append(collect(model, processor, samples, batch_size=BATCH)), clock)
        )
    options = PruningOptions(sparsity=0.3, state="residual", k=k, samples=len(samples))
    scores: list[Any] = []
    states = evidence[-1].states["residual"]
    return {
        "samples": len(samples),
        "states": states.shape[0],
        "width": states.shape[2],
        "state_bytes": states.numel() * states.element_size(),
        "encode": min(encode),
        "plain": min(plain),
        "collect": min(kept),
        "topology": seconds(lambda: scores.append(pairwise(evidence[-1], options)), clock),
        "select": seconds(lambda: select(scores[0], options.drop_count(states.shape[0] - 1)), clock),
    }


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
    stages = ("encode", "plain", "collect", "topology", "select")
    parts = [f"N={row['samples']:5d} S={row['states']:3d} d={row['width']}"]
    parts += [f"{name} {row[name]:7.2f} s ({row[name] / row['plain']:5.2f}x)" for name in stages]
    return "  ".join([*parts, f"states {row['state_bytes'] / 2**20:.1f} MiB"])


def device_name() -> str:
    return (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine()
    )


if __name__ == "__main__":
    main()
