"""What every family can do, as the tests find it; docs/models.md shows this table.

python tests/harness/support.py    # prints the table
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Support:
    """One family of plugin.toml, or a model behind `huggingface`.

    Attributes:
        name: of the family.
        made: name of the builder of its tiny model.
        images: several images in one question; False says that a run with them ends in a sentence.
        video: a video; False says that a run with one ends in a sentence.
        batch: batches answer like single requests; False says that only batch_size=1 is possible.
        likelihood: likelihoods with images, in batches too.
        processes: several processes, on a CPU too, where each loads the whole model.
        quantized: what a quantized folder says of its layers is said of those that are left.
        export: a folder that answers like the pruned model.
        repair: linear maps for the deleted layers, which the exported folder has too.
        kinds: prompts that lmms-eval's wrapper has.
        note: what else is to be said.
    """

    name: str
    made: str
    images: bool = True
    video: bool = False
    batch: bool = True
    likelihood: bool = True
    processes: bool = True
    quantized: bool = True
    export: bool = True
    repair: bool = True
    kinds: tuple[str, ...] = ("chat",)
    note: str = ""


REPEATS = "its answers repeat the question, dense and pruned alike"
LIBROSA = "needs `librosa`"
GLM = "GLM-4V and its mixtures; the class is the one config.json names"
SIMPLE, BOTH = ("simple",), ("simple", "chat")
SUPPORT = (
    Support("llava", "llava", kinds=BOTH, note="LLaVA 1.5"),
    Support("llava_next", "llava_next", kinds=BOTH, note="LLaVA 1.6, llama3 8B among them"),
    Support("llava_onevision", "llava_onevision", video=True, kinds=BOTH),
    Support("qwen2_vl", "qwen2_vl", video=True, kinds=SIMPLE),
    Support("qwen2_5_vl", "qwen2_5_vl", video=True, kinds=BOTH),
    Support("qwen3_vl", "qwen3_vl", video=True, kinds=BOTH),
    Support("qwen3_5", "qwen3_5", video=True, kinds=BOTH, note="layers with linear attention"),
    Support("internvl", "internvl_hf", video=True, batch=False),
    Support("gemma3", "gemma3", repair=False, video=True, kinds=SIMPLE),
    Support("gemma4", "gemma4", repair=False, video=True, kinds=SIMPLE),
    Support("mistral3_vl", "mistral3_vl", video=True, kinds=SIMPLE, note="Mistral Small 3.1, Ministral 3"),
    Support("llama4_scout", "llama4_scout", video=True, kinds=SIMPLE),
    Support("lfm2_5_vl", "lfm2_5_vl", images=False),
    Support("aria", "aria", video=True, kinds=SIMPLE),
    Support("idefics2", "idefics2", video=True, kinds=SIMPLE),
    Support("llama_vision", "llama_vision", video=True, kinds=SIMPLE, note="answers one by one"),
    Support("instructblip", "instructblip", images=False, batch=False, kinds=SIMPLE, note=REPEATS),
    Support("glm4v", "glm4v", repair=False, kinds=SIMPLE, note=GLM),
    Support("fuyu", "fuyu", images=False, kinds=SIMPLE),
    Support("video_llava", "video_llava", video=True, kinds=SIMPLE),
    Support(
        "phi4_multimodal",
        "phi4_multimodal",
        video=True,
        kinds=BOTH,
        note=LIBROSA,
    ),
    Support("qwen2_5_omni", "qwen2_5_omni", video=True, kinds=BOTH, note=f"{LIBROSA}; answers in text"),
    Support("huggingface", "paligemma", note="PaliGemma"),
    Support("huggingface", "smolvlm", video=True, note="SmolVLM; needs `num2words`"),
    Support("huggingface", "mistral3_vl", note="Mistral 3"),
    Support("huggingface", "lfm2_5_vl", note="LFM2-VL"),
)


def columns() -> tuple[list[str], list[str]]:
    """What some families cannot do, and what all can."""
    marks = [field.name for field in fields(Support) if field.type == "bool"]
    differ = [name for name in marks if not all(getattr(row, name) for row in SUPPORT)]
    return differ, [name for name in marks if name not in differ]


def table() -> str:
    """The table of docs/models.md: what all families can do is no column."""
    shown, _ = columns()
    lines = ["| family | model | prompts | " + " | ".join(shown) + " | |", "|" + "---|" * (len(shown) + 4)]
    for row in SUPPORT:
        marks = " | ".join("yes" if getattr(row, name) else "no" for name in shown)
        lines.append(f"| `{row.name}` | {row.made} | {', '.join(row.kinds)} | {marks} | {row.note} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
