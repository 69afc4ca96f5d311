"""What deleting layers saves: latency, throughput and memory against the ideal.

    python benchmarks/surgery.py --out surgery.json

On a GPU the model is LLaVA-1.5-7B in bfloat16, on a CPU a LLaVA of 0.6 billion parameters in float32, both
with random weights. The ideal is layers kept / layers; embeddings, head and vision tower stay whole.
On a busy CPU use one thread (OMP_NUM_THREADS=1) and --clock cpu, which counts this process's time only.
"""

from __future__ import annotations

import argparse
import inspect
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from lmms_topoprune._util import files
from lmms_topoprune.surgery import decoder_layers, delete_layers

SPARSITIES = (0.0, 0.1, 0.3, 0.5)
IMAGE_TOKEN = 5
_ARGUMENTS = inspect.signature(LlavaForConditionalGeneration.forward).parameters
CACHE = "cache" if "cache" in _ARGUMENTS else "past_key_values"  # transformers renamed it
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
Row = dict[str, float]


@dataclass(frozen=True)
class Load:
    """What a run computes: prompt tokens besides the image, new tokens, and the clock it is timed with."""

    text: int
    new: int
    rounds: int
    clock: str


def llava(size: str) -> LlavaConfig:
    """LLaVA-1.5-7B, models of 1.2, 2.3 and 4.5 GB in bfloat16, or a toy to try the script."""
    vision, text = {
        "7b": ((24, 1024, 16, 336, 14), (32, 4096, 32, 11008, 32064)),
        "1gb": ((2, 256, 4, 64, 16), (20, 1536, 12, 4096, 8000)),
        "2gb": ((2, 256, 4, 64, 16), (40, 1536, 12, 4096, 8000)),
        "4gb": ((2, 256, 4, 64, 16), (28, 2560, 20, 6912, 8000)),
        "toy": ((2, 64, 2, 64, 16), (10, 64, 2, 128, 500)),
    }[size]
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            num_hidden_layers=vision[0],
            hidden_size=vision[1],
            intermediate_size=4 * vision[1],
            num_attention_heads=vision[2],
            image_size=vision[3],
            patch_size=vision[4],
        ),
        text_config=LlamaConfig(
            num_hidden_layers=text[0],
            hidden_size=text[1],
            num_attention_heads=text[2],
            num_key_value_heads=text[2],
            intermediate_size=text[3],
            vocab_size=text[4],
        ),
        image_token_index=IMAGE_TOKEN,
    )


def build(size: str, device: str, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlavaForConditionalGeneration(llava(size)).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def dropped(layers: int, sparsity: float) -> tuple[int, ...]:
    """The block before the last layer; only the number of layers matters for speed."""
    count = round(sparsity * layers)
    return tuple(range(layers - 1 - count, layers - 1))


def prompt(model: LlavaForConditionalGeneration, text_tokens: int) -> dict[str, torch.Tensor]:
    """One image and `text_tokens` arbitrary tokens."""
    vision = model.config.vision_config
    image = [IMAGE_TOKEN] * (vision.image_size // vision.patch_size) ** 2
    ids = torch.tensor([image + list(range(10, 10 + text_tokens))], device=model.device)
    shape = (1, 3, vision.image_size, vision.image_size)
    return {"input_ids": ids, "pixel_values": torch.zeros(shape, device=model.device, dtype=model.dtype)}


def seconds(work: Callable[[], Any], clock: str) -> tuple[float, Any]:
    wait = torch.cuda.synchronize if torch.cuda.is_available() else int
    wait()
    start = CLOCKS[clock]()
    result = work()
    wait()
    return CLOCKS[clock]() - start, result


@torch.no_grad()
def prefill_and_decode(model: LlavaForConditionalGeneration, load: Load) -> tuple[float, float]:
    """Seconds for the prompt, and for the single-token steps after it."""
    inputs = prompt(model, load.text)
    prefill, output = seconds(lambda: model(**inputs, use_cache=True, logits_to_keep=1), load.clock)

    def decode() -> None:
        cache, token = output[CACHE], output.logits[:, -1:].argmax(-1)
        for _ in range(load.new):
            step = model(input_ids=token, **{CACHE: cache}, use_cache=True)
            cache, token = step[CACHE], step.logits[:, -1:].argmax(-1)

    return prefill, seconds(decode, load.clock)[0]


def measure(model: LlavaForConditionalGeneration, load: Load) -> list[Row]:
    """One row a sparsity; the rounds take them in turn, so that a busy machine slows all alike."""
    layers = len(decoder_layers(model))
    times: dict[float, list[tuple[float, float]]] = {sparsity: [] for sparsity in SPARSITIES}
    prefill_and_decode(model, load)
    for _ in range(load.rounds):
        for sparsity in SPARSITIES:
            with delete_layers(model, dropped(layers, sparsity)):
                times[sparsity].append(prefill_and_decode(model, load))
    rows = []
    for sparsity, pairs in times.items():
        prefill, decode = (statistics.median(column) for column in zip(*pairs, strict=True))
        rows.append(
            {
                "sparsity": sparsity,
                "ideal": 1 - len(dropped(layers, sparsity)) / layers,
                "prefill_s": prefill,
                "decode_tokens_per_s": load.new / decode,
            }
        )
    for row in rows:
        row["prefill_ratio"] = row["prefill_s"] / rows[0]["prefill_s"]
        row["decode_ratio"] = rows[0]["decode_tokens_per_s"] / row["decode_tokens_per_s"]
    return rows


def measure_memory(model: LlavaForConditionalGeneration, rows: list[Row], load: Load) -> None:
    """Bytes of weights and, on a GPU, the peak during an answer; deletes more and more layers, for good."""
    layers = len(decoder_layers(model))
    for row in rows:
        surplus = len(decoder_layers(model)) - (layers - len(dropped(layers, row["sparsity"])))
        last = len(decoder_layers(model)) - 1
        delete_layers(model, range(last - surplus, last))
        row["weights_bytes"] = sum(p.numel() * p.element_size() for p in model.parameters())
        row["weights_ratio"] = row["weights_bytes"] / rows[0]["weights_bytes"]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            prefill_and_decode(model, load)
            row["peak_bytes"] = torch.cuda.max_memory_allocated()
            row["peak_ratio"] = row["peak_bytes"] / rows[0]["peak_bytes"]


def peak_bytes() -> int:
    """The largest resident size of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss it does not start at the size of the process that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['model']} on {result['machine']['device']}; every ratio is to the dense model")
    if "rows" in result:
        print("sparsity  ideal  prefill  decode  tokens/s  weights   peak")
    for row in result.get("rows", ()):
        print(
            f"{row['sparsity']:8.0%} {row['ideal']:6.2f} {row['prefill_ratio']:8.2f}",
            f"{row['decode_ratio']:7.2f} {row['decode_tokens_per_s']:9.1f} {row['weights_ratio']:8.2f}",
            f"{row['peak_ratio']:6.2f}" if "peak_ratio" in row else "     -",
        )


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--size", choices=("7b", "1gb", "toy"), default="7b" if cuda else "1gb")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--text-tokens", type=int, default=48)
    parser.add_argument("--new-tokens", type=int, default=64 if cuda else 8)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()
    load = Load(args.text_tokens, args.new_tokens, args.rounds, args.clock)
    result: dict[str, Any] = {"model": f"LLaVA {args.size}, random weights", "load": asdict(load)}
    result["machine"] = machine()
    model = build(args.size, "cuda" if cuda else "cpu", torch.bfloat16 if cuda else torch.float32)
    result["rows"] = measure(model, load)
    measure_memory(model, result["rows"], load)
    show(result)
    if args.out:
        files.write_json(args.out, result)


if __name__ == "__main__":
    main()
