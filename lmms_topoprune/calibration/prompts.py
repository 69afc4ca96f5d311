"""From samples to model inputs, for any Hugging Face vision-language or text-only model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from transformers import BatchFeature, PreTrainedTokenizerBase

from lmms_topoprune._util.signals import errors_kept
from lmms_topoprune.calibration.media_files import downscaled, processor_pixels, read_frames
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.errors import InputError, one_line

# Appended for token="ret": every sample then ends in the same token, which has read all the others.
RET_MARKER = " [RET]"
# Put before a template that names today's date, so that plans are the same tomorrow: Llama 3.2's own default.
DAY = (
    "{%- macro strftime_now(format) -%}{{ format"
    "|replace('%d', '26')|replace('%b', 'Jul')|replace('%B', 'July')|replace('%m', '07')"
    "|replace('%Y', '2024') }}{%- endmacro -%}"
)


class Prompter:
    """Words samples as the model's own chat template does and turns them into padded tensors.

    Args:
        processor: an `AutoProcessor`, or a tokenizer for a text-only model.
        suffix: text appended behind every prompt.
    """

    def __init__(self, processor: Any, suffix: str = "") -> None:
        self.processor, self.suffix = processor, suffix
        self._most_pixels: int | None = None
        self._prompts: dict[int, tuple[Sample, str]] = {}  # by id: images cannot be hashed
        self.text_only = isinstance(processor, PreTrainedTokenizerBase)
        self.tokenizer = processor if self.text_only else processor.tokenizer

    @property
    def has_template(self) -> bool:
        return bool(getattr(self.processor, "chat_template", None) or self.tokenizer.chat_template)

    @property
    def media_settings(self) -> dict[str, str]:
        """What the processor does to images and videos: sizes, normalization, patches."""
        parts = ("image_processor", "video_processor")
        found = {name: getattr(self.processor, name, None) for name in parts}
        return {name: _settings(part) for name, part in found.items() if part is not None}

    @property
    def image_token(self) -> str:
        """What stands for an image in a prompt; empty where the processor puts images in front by itself."""
        fuyu = type(self.processor).__name__ == "FuyuProcessor"
        if self.text_only or fuyu or getattr(self.processor, "num_query_tokens", None):
            return ""
        token = getattr(self.processor, "image_token", None) or "<image>"
        return str(getattr(token, "content", token))

    def instruction(self, sample: Sample) -> str:
        """A sample's instruction; where it holds the marks of an image or video, without them.

        The processor would look for an image for each.
        """
        text = sample.instruction
        for mark in (self.image_token, getattr(self.processor, "video_token", None)):
            text = (
                text.replace(str(getattr(mark, "content", mark)), "").strip()
                if mark and mark in text
                else text
            )
        return text

    def with_suffix(self, suffix: str) -> Prompter:
        """One that appends this text; both remember the same prompts."""
        other = Prompter(self.processor, suffix)
        other._prompts, other._most_pixels = self._prompts, self._most_pixels
        return other

    def prompt(self, sample: Sample) -> str:
        """The prompt up to where the model starts to answer; worded once for each sample."""
        if id(sample) not in self._prompts:
            self._prompts[id(sample)] = sample, self._word(sample)
        return self._prompts[id(sample)][1] + self.suffix

    def span(self, sample: Sample) -> tuple[int, int]:
        """How many tokens of a prompt are the instruction, and how many follow it.

        Told by what the tokenizer makes of the prompt's beginnings; where a token spans a border, by one
        token too many or too few.
        """
        prompt, text = self.prompt(sample), self.instruction(sample).strip()
        start = prompt.rfind(text)
        through = self._count(prompt[: start + len(text)])
        return through - self._count(prompt[:start]), self._count(prompt) - through

    def _count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _word(self, sample: Sample) -> str:
        kind = sample.kind
        if sample.image is not None and sample.video is not None:
            raise InputError("a calibration sample has an image and a video; allowed: one of them")
        if self.text_only and kind != "text":
            what = {"image": "an image", "video": "a video"}[kind]
            raise InputError(f"a calibration sample has {what}, but the model has only a tokenizer")
        if kind == "video" and not hasattr(self.processor, "video_processor"):
            raise InputError(
                f"a calibration sample has a video, but {type(self.processor).__name__} takes none; "
                "allowed for this model: images and text alone"
            )
        return self._templated(sample) if self.has_template else self._as_text(sample)

    def worded(self, text: str, kinds: Sequence[str]) -> str:
        """A user's turn, images ("image") and videos ("video") before the text, to where answers start.

        Raises:
            InputError: the model's chat template words it neither way.
        """
        parts = [{"type": "text", "text": text}]
        if not kinds:
            found = self._worded(text, parts, text) if self.has_template else text
        else:
            marks = {"image": self.image_token, "video": getattr(self.processor, "video_token", "")}
            found = marked = "".join(f"{marks[kind]}\n" for kind in kinds if marks[kind]) + text
            if self.has_template:
                bare = self._worded(text, parts)
                found = self._worded(text, [*({"type": kind} for kind in kinds), *parts])
                if found is None or found == bare:
                    found = self._worded(text, marked)
        if found is None:
            raise InputError("the chat template of this model cannot word a question")
        return found

    def conversation(self, messages: Sequence[dict[str, Any]]) -> str:
        """Turns of parts ({"type": "text", "text": ...}, {"type": "image"}) to where the answer starts.

        Templates of a tokenizer alone often take only text: they get the marks of images in it.
        """
        if getattr(self.processor, "chat_template", None):
            return self._render([*messages])
        marks = {"image": self.image_token, "video": getattr(self.processor, "video_token", "")}
        texts = [
            "".join(marks.get(part["type"]) or part.get("text", "") for part in turn["content"])
            for turn in messages
        ]
        if not self.has_template:
            return "\n".join(texts)
        turns = zip(messages, texts, strict=True)
        return self._render([{"role": turn["role"], "content": text} for turn, text in turns])

    def _as_text(self, sample: Sample) -> str:
        marks = {"text": "", "image": self.image_token, "video": getattr(self.processor, "video_token", "")}
        mark = marks[sample.kind]
        return f"{mark}\n{self.instruction(sample)}" if mark else self.instruction(sample)

    def _templated(self, sample: Sample) -> str:
        """Content as a list of parts; as one string for older templates, which can do no other."""
        said = self.instruction(sample)
        text = {"type": "text", "text": said}
        if sample.kind == "text":
            found = self._worded(said, [text], said)
        else:
            bare = self._worded(said, [text])
            found = self._worded(said, [{"type": sample.kind}, text])
            # What an image is called differs between families; that it changes the prompt does not.
            if found is None or found == bare:
                found = self._worded(said, self._as_text(sample))
        if found is None:
            raise InputError("the chat template of this model cannot word a calibration sample")
        return found

    def _worded(self, instruction: str, *forms: Any) -> str | None:
        """The prompt from the first form of the content that the template can word."""
        for content in forms:
            with errors_kept():  # a template may fail in any way on a form it was not written for
                found = self._render([{"role": "user", "content": content}])
                if instruction.strip() in found and "{'type'" not in found:
                    return found
        return None

    def _render(self, messages: list[dict[str, Any]]) -> str:
        holder = self.processor if getattr(self.processor, "chat_template", None) else self.tokenizer
        given: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
        if isinstance(template := holder.chat_template, str) and "strftime_now" in template:
            given["chat_template"] = DAY + template
        return str(holder.apply_chat_template(messages, **given))

    def encode(self, samples: Sequence[Sample], side: str = "right") -> BatchFeature:
        """Tensors of a batch whose samples are all of one kind.

        Right padding is the default: under causal attention what follows a token cannot change it, so
        a sample gets the same positions and the same states alone and in a batch.

        Raises:
            InputError: the samples are of several kinds, or the processor refuses one.
        """
        prompts = [self.prompt(sample) for sample in samples]
        if len({sample.kind for sample in samples}) > 1:
            raise InputError("a calibration batch mixes samples with an image, with a video and without")
        with padded(self.tokenizer, side):
            media = self._media(samples)
            try:
                return aligned(self._processed(prompts, media), side)
            except ValueError as error:  # such as an image two hundred times as wide as high
                raise InputError(f"the processor refuses a calibration sample: {one_line(error)}") from error

    def _processed(self, prompts: Sequence[str], media: Mapping[str, Any]) -> BatchFeature:
        options: dict[str, Any] = {"padding": True, "return_tensors": "pt", **media}
        if self.tokenizer.bos_token and prompts[0].startswith(self.tokenizer.bos_token):
            options["add_special_tokens"] = False  # the template has put it there already
        found: BatchFeature = self.processor(text=prompts, **options)
        return found

    def _media(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What a processor takes besides text for samples of one kind; no image is larger than it need be."""
        if samples[0].kind == "image":
            images = (sample.pixels() for sample in samples)
            most = partial(self._processor_pixels, samples[0])
            return {"images": [[downscaled(image, most)] for image in images if image is not None]}
        if samples[0].kind == "video":
            videos, facts = zip(*(read_frames(s.video) for s in samples if s.video), strict=True)
            return {"videos": list(videos), "video_metadata": list(facts), "do_sample_frames": False}
        return {}

    def _processor_pixels(self, sample: Sample) -> int:
        """The pixels that the processor hands on of an image at most, told by a prompt with an image."""
        if self._most_pixels is None:
            prompt = [self.prompt(sample)]
            self._most_pixels = processor_pixels(lambda image: self._processed(prompt, {"images": [[image]]}))
        return self._most_pixels

    def encode_texts(self, texts: Sequence[str]) -> BatchFeature:
        """Plain texts without template or image, padded on the right."""
        with padded(self.tokenizer, "right"):
            return self.tokenizer(list(texts), padding=True, return_tensors="pt")

    def length(self, sample: Sample) -> int:
        """Roughly how many tokens a sample takes; only for putting samples of like length together."""
        width, height = sample.image.size if sample.image is not None else (0, 0)
        return len(self.tokenizer(sample.instruction).input_ids) + width * height // 28**2


def _settings(part: Any) -> str:
    values = part.to_dict() if hasattr(part, "to_dict") else vars(part)
    return json.dumps({k: v for k, v in values.items() if v is not None}, sort_keys=True, default=_named)


def _named(value: Any) -> str:
    """A function by its name: its text has an address (lmms-eval's Gemma 4 sets sample_frames)."""
    return str(getattr(value, "__qualname__", value))


def aligned(batch: BatchFeature, side: str) -> BatchFeature:
    """The batch with its padding moved to that side.

    InstructBLIP's processor puts image tokens in front of rows that are padded already: left padding
    then stands between image and text and shifts the distance between them. It pads the text for the
    Q-Former on the same side, which has learned positions and wants the text at the first ones.
    """
    batch.pop("labels", None)  # PaliGemma's processor always makes some, for training
    names = [name for name in batch if per_token(name)]
    _moved(batch, "attention_mask", names, side)
    _moved(batch, "qformer_attention_mask", ["qformer_input_ids", "qformer_attention_mask"], "right")
    return batch


def _moved(batch: BatchFeature, mask: str, names: list[str], side: str) -> None:
    if mask in batch:
        order = batch[mask].argsort(dim=1, descending=side == "right", stable=True)  # (B, T)
        for name in names:
            batch[name] = batch[name].gather(1, order)


def per_token(name: str) -> bool:
    """Whether a model input of that name has one number a token (B, T)."""
    return name in ("input_ids", "attention_mask") or name.endswith("token_type_ids")


@contextmanager
def padded(tokenizer: PreTrainedTokenizerBase, side: str) -> Iterator[None]:
    """Pad on that side, with a padding token, and leave the tokenizer as it was."""
    before = tokenizer.padding_side, tokenizer.pad_token
    tokenizer.padding_side = side
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    try:
        yield
    finally:
        tokenizer.padding_side = before[0]
        if before[1] is None:
            tokenizer.pad_token = None
