"""A seeded grammar of model_args strings: right and wrong names, values, combinations and punctuation."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from lmms_topoprune.options import PruningOptions
from lmms_topoprune.plan import PruningPlan

MODELS = (
    "topopruned_llava", "dense_llava", "cosine_pruned_llava", "gardinazzi_pruned_llava",
    "greedy_pruned_llava", "taylor_pruned_llava", "angular_pruned_llava", "random_pruned_llava",
    "topovlm_pruned_llava",
)  # fmt: skip

# Fits no option, whatever its type.
ODD = (
    "", " ", "nan", "-nan", "inf", "-inf", "NaN", "None", "null", "true", "False", "yes", "off", "-1",
    "-0", "0", "1e309", "-1e309", "1e-320", "9" * 25, "9" * 400, "9" * 5000, "0x10", "1_0", "1e3", "1.5",
    "+5", "5+", "٣", "²", "½", "Ⅷ", "五", "naïve", "🦙", "ﬁ", "\u202e", "a b", "a\tb", "a\nb", "\\", "'",
    '"', "'x'", '"x"', '"a,b"', "'a,b'", "[1,2]", "{a,b}", '{"a":1}', "[", "}", "a=b", "=", "==", "a;b",
    "a|b", "$HOME", "%s", "{}", "{0}", "~", "~nobody-here", "..", "/", "/dev/null", "/proc/self/mem",
    "x" * 300, "x/" * 2500, "\x00", "a\x00b", "\udc80", "__import__('os')",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """What the strings may refer to: a model folder and files beside it, right and wrong ones."""

    model: Path
    files: Path

    @classmethod
    def make(cls, model: Path, files: Path) -> World:
        """Write plans of other models, broken plans and calibration files into `files`."""
        files.mkdir(parents=True, exist_ok=True)
        PruningPlan("another", "", 7, (2,), "given").save(files / "seven.json")
        PruningPlan("another", "0" * 16, 6, (2,), "given").save(files / "foreign.json")
        whole = (files / "foreign.json").read_text()
        (files / "cut.json").write_text(whole[: len(whole) // 2])
        (files / "edited.json").write_text(whole.replace('"given"', '"taken"'))
        (files / "list.json").write_text("[]")
        rows = [f'{{"instruction": "What is {n} plus {n}?"}}' for n in range(8)]
        (files / "texts.jsonl").write_text("\n".join(rows))
        (files / "few.jsonl").write_text(rows[0])
        (files / "broken.jsonl").write_text("\n".join(rows[:4] + ["{"] * 4))
        (files / "empty.jsonl").write_text("")
        (files / "bytes.jsonl").write_bytes(bytes(range(256)))
        (files / "nothing").mkdir(exist_ok=True)
        (files / "images").mkdir(exist_ok=True)
        (files / "images" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        return cls(model, files)

    def values(self) -> dict[str, tuple[str, ...]]:
        """Values that are right, or nearly so, by argument."""
        at = str(self.files)
        return {
            "pretrained": (str(self.model), "./nowhere", at, "no/such-model", "a/b/c", "embeded",
            f"{at}/cut.json"),
            "sparsity": ("0.3", "0.5", "0", "0.17", "0.99", "1", "1.5", "-0.1", "30%", "0,3", ".3", "3e-1",
            "1/3", "auto"),
            "drop": ("2", "1", "0", "9", "2.5", "-1"),
            "parameters": ("1e12", "1e3", "-1", "0", "many"),
            "tolerance": ("0.1", "5%", "-1", "101%", "little"),
            "trials": ("2", "0", "-1", "10001", "1.5"),
            "layers": (
                "2", "1-3", "1+3", "0-5", "0-4", "3-1", "99", "2+99", "-1", "1,2", "[1,2]", "1-", "1--3",
                "2+2", "1 - 3",
                "0-999999999999", f"0-{'9' * 5000}", "none", "5",
            ),
            "plan": (*(f"{at}/{n}.json" for n in ("seven", "foreign", "cut", "edited", "list", "no")), at,
            f"{at}/few.jsonl"),
            "criterion": (
                "topology", "cosine", "dense", "greedy", "topologie", "Topology", "reverse:cosine",
                "reverse:",
                "reverse:reverse:cosine", "reverse:" * 2000 + "cosine", "reverse:dense", "random", "last_n",
                "uniform",
            ),
            "selection": ("auto", "rank", "block", "path", "threshold", "Rank", "paths"),
            "dimension": ("0", "1", "2", "-1", "1.0", "H1"),
            "k": ("3", "5", "2+3", "5+10", "0", "12", "100", "-3", "3,5", "3++5", "2.5"),
            "metric": ("euclidean", "cosine", "manhattan", "l2"),
            "alpha": ("0", "1", "-1", "0.5", "1e300", "-1e300", "500"),
            "eps": ("0.9", "1", "0", "-0.5", "2", "1e-300"),
            "state": ("auto", "residual", "norm", "hidden"),
            "token": ("last", "ret", "mean", "mean_image", "mean_text", "first"),
            "calibration": (
                *(f"{at}/{n}.jsonl" for n in ("texts", "few", "broken", "empty", "bytes", "gone")),
                "embedded", at,
                f"{at}/nothing", f"{at}/images", "hf:", f"hf:{at}/gone", f"hf:{at}/nothing", "task:",
                "task:mmme",
                "ftp:x", "embedded:train",
            ),
            "samples": ("12", "3", "8", "2", "0", "513", "12.0", "9" * 20),
            "calibration_batch": ("1", "4", "0", "9" * 20),
            "seed": ("0", "7", "9" * 20, "-1", "1.0"),
            "protect_first": ("0", "1", "6", "9" * 20, "-1"),
            "protect_last": ("0", "1", "6", "9" * 20, "-1"),
            "on_error": ("raise", "record", "ignore"),
            "self_test": ("True", "False", "1", "no"),
            "batch_size": ("1", "4", "0", "auto", "-1", "1.5", "9" * 20),
            "device": ("cpu", "cuda", "cuda:99", "cpu:0", "meta", "gpu", "0", "0.5", "mps", "xla", "vulkan"),
            "device_map": ("cpu", "auto", "balanced", "sideways", "cuda:99", '{"":"cpu"}', "meta"),
            "dtype": ("float32", "auto", "bfloat16", "float16", "float64", "int8", "torch.float32", "16"),
            "attn_implementation": ("eager", "sdpa", "flash_attention_2", "fast"),
            "use_cache": ("True", "False", "maybe", "2"),
            "trust_remote_code": ("False", "True", "maybe"),
            "revision": ("main", "no-such", "5"),
            "max_frames_num": ("8", "0", "many"),
            "chat_template": ("{{ 1 }}", "{% for %}", f"{at}/gone.jinja"),
        }  # fmt: skip


WRONG_NAMES = (
    "sparsty", "layer", "Sparsity", "pretraned", "kwargs", "self", "args", "__class__", "options",
    "wrapped", "", "k ", " k", "ключ", "model", "cache", "plan.json", "torch_dtype", "tp_plan",
    "max_batch_size", "--sparsity", "k[0]",
)  # fmt: skip


def strings(world: World, count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(model, model_args), the same ones for the same seed; about a third describe a run that works."""
    rng = random.Random(seed)
    return [(rng.choice(MODELS), _string(rng, world.values())) for _ in range(count)]


def _string(rng: random.Random, values: dict[str, tuple[str, ...]]) -> str:
    right = rng.random() < 0.4
    names = rng.sample(sorted(values.keys() - {"pretrained"}), rng.randint(0, 4))
    pairs = {n: values[n][0] if right and rng.random() < 0.9 else rng.choice(values[n]) for n in names}
    pairs = {"pretrained": values["pretrained"][0], "samples": "12", **pairs}
    if rng.random() < 0.5 and not {"layers", "plan"} & pairs.keys():
        pairs.setdefault("sparsity", "0.4")
    if not right:
        _spoil(rng, pairs, values)
    parts = [f"{name}={value}" for name, value in pairs.items()]
    if not right and rng.random() < 0.3:
        parts = _punctuate(rng, parts)
    if rng.random() < 0.2:
        rng.shuffle(parts)
    return ",".join(parts)


def _spoil(rng: random.Random, pairs: dict[str, str], values: dict[str, tuple[str, ...]]) -> None:
    """Put an odd value, a wrong name or a wrong model in."""
    kind = rng.randrange(5)
    if kind < 3:
        pairs[rng.choice(sorted({*PruningOptions.names(), *values}))] = rng.choice(ODD)
    elif kind == 3:
        pairs[rng.choice(WRONG_NAMES)] = rng.choice((*ODD, "1"))
    else:
        pairs["pretrained"] = rng.choice(values["pretrained"])


def _punctuate(rng: random.Random, parts: list[str]) -> list[str]:
    """Break the punctuation between or around the pairs."""
    parts, place = list(parts), rng.randrange(len(parts))
    broken = rng.choice(
        (
            parts[place].replace("=", ""), parts[place].replace("=", " = "), parts[place].replace("=", "=="),
            parts[place].upper(), f"{parts[place]},{parts[place]}", f"{parts[place]},", f",,{parts[place]}",
            f"'{parts[place]}'", f"{{{parts[place]}", f"{parts[place]}]", parts[place].partition("=")[0], "=",
            f" {parts[place]} ", f"\n{parts[place]}\n", f'"{parts[place]}', parts[place].replace("=", ":"),
        )
    )  # fmt: skip
    parts[place] = broken
    return parts
