"""Samples are worded as each model's own processor words them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM

from lmms_topoprune.calibration.collect import collect
from lmms_topoprune.calibration.prompts import RET_MARKER, Prompter
from lmms_topoprune.calibration.samples import Sample, fingerprint
from lmms_topoprune.errors import InputError

STRING_ONLY = "{{ 'Q: ' + messages[0]['content'] }}{% if add_generation_prompt %} A:{% endif %}"


def _with_template(processor, template):
    changed = copy.deepcopy(processor)
    changed.chat_template = changed.tokenizer.chat_template = template
    return changed


def test_the_chat_template_words_the_prompt(embedded_processor, samples):
    prompt = Prompter(embedded_processor).prompt(samples[0])
    assert prompt == f"USER: <image>\n{samples[0].instruction} ASSISTANT:"
    marked = Prompter(embedded_processor, RET_MARKER).prompt(samples[0])
    assert marked == prompt + RET_MARKER


def test_a_template_that_takes_only_text_gets_text(embedded_processor, samples):
    prompter = Prompter(_with_template(embedded_processor, STRING_ONLY))
    assert prompter.prompt(samples[0]) == f"Q: <image>\n{samples[0].instruction} A:"
    assert prompter.prompt(Sample("Why?")) == "Q: Why? A:"


def test_a_template_may_call_an_image_by_another_name(embedded_processor, samples):
    parts = "{% for p in messages[0]['content'] %}{{ p.text or '<start_of_image>' }}{% endfor %}"
    prompter = Prompter(_with_template(embedded_processor, parts))
    assert prompter.prompt(samples[0]) == f"<start_of_image>{samples[0].instruction}"


@pytest.mark.parametrize("what", ["processor", "tokenizer"])
def test_a_template_that_names_the_date_words_the_same_prompt_tomorrow(embedded_processor, what):
    """As those of Llama 3.2, Mistral and SmolLM3 do."""
    dated = "{{ 'Today is ' + strftime_now('%d %b %Y') + '. ' + messages[0]['content'] }}"
    processor = _with_template(embedded_processor, dated)
    prompter = Prompter(processor if what == "processor" else processor.tokenizer)
    assert prompter.prompt(Sample("Why?")) == "Today is 26 Jul 2024. Why?"


def test_without_a_template_the_prompt_is_plain(embedded_processor, samples):
    prompter = Prompter(_with_template(embedded_processor, None))
    assert prompter.prompt(samples[0]) == f"<image>\n{samples[0].instruction}"
    assert prompter.prompt(Sample("Why?")) == "Why?"


def test_a_template_that_drops_the_question_is_refused(embedded_processor, samples):
    with pytest.raises(InputError, match="cannot word a calibration sample"):
        Prompter(_with_template(embedded_processor, "Hello")).prompt(samples[0])


def test_the_beginning_of_text_is_not_doubled(embedded_processor):
    processor = _with_template(embedded_processor, "{{ bos_token }}{{ messages[0]['content'] }}")
    tokenizer = processor.tokenizer
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    start = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = start
    assert tokenizer("<s>Why?").input_ids.count(tokenizer.bos_token_id) == 2
    ids = Prompter(processor).encode([Sample("Why?")])["input_ids"][0].tolist()
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_tokenizer_is_enough_for_a_text_only_model(embedded_processor):
    tokenizer = embedded_processor.tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
    )
    torch.manual_seed(0)
    texts = [Sample(f"How many objects are {word}?") for word in ("red", "small and blue", "left")]
    found = collect(LlamaForCausalLM(config), tokenizer, texts, batch_size=3)
    assert found.states()["residual"].values.shape == (5, 3, 32)


def test_a_tokenizer_cannot_take_images(embedded_processor, samples):
    with pytest.raises(InputError, match="has an image, but the model has only a tokenizer"):
        Prompter(embedded_processor.tokenizer).prompt(samples[0])


def test_a_video_is_refused_where_the_processor_takes_none(embedded_processor):
    with pytest.raises(InputError, match="has a video, but LlavaProcessor takes none; allowed"):
        Prompter(embedded_processor).prompt(Sample("What moves?", video=Path("clip.mp4")))


def test_a_missing_padding_token_is_lent_and_taken_back(embedded_processor):
    tokenizer = copy.deepcopy(embedded_processor.tokenizer)
    tokenizer.pad_token = None
    inputs = Prompter(tokenizer).encode([Sample("Why?"), Sample("Is there a red circle?")])
    assert inputs["attention_mask"][0].sum() < inputs["attention_mask"][1].sum()
    assert tokenizer.pad_token is None


def test_the_fingerprint_sees_words_pixels_and_order(samples):
    changed = samples[0].image.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    others = [
        [Sample(samples[0].instruction, changed), *samples[1:]],
        [Sample("Why?", samples[0].image), *samples[1:]],
        samples[::-1],
        samples[1:],
    ]
    assert len({fingerprint(samples), *(fingerprint(o) for o in others)}) == 5
    assert fingerprint(samples) == fingerprint([Sample(s.instruction, s.image.copy()) for s in samples])


def test_a_function_among_the_settings_is_known_by_its_name(embedded_processor):
    """lmms-eval's Gemma 4 puts a method of its own there, whose text has an address in it."""

    class Wrapper:
        def sample_frames(self):
            """As lmms-eval draws frames."""

    found = []
    for _ in range(2):
        processor = copy.deepcopy(embedded_processor)
        processor.image_processor.sample_frames = Wrapper().sample_frames
        found.append(Prompter(processor).media_settings)
    assert found[0] == found[1] and "Wrapper.sample_frames" in found[0]["image_processor"]


@pytest.mark.parametrize("template", ["its own", STRING_ONLY, None])
def test_the_processors_own_marker_in_an_instruction_stands_for_no_image(
    embedded_processor, samples, template
):
    processor = embedded_processor
    prompter = Prompter(processor if template == "its own" else _with_template(processor, template))
    plain, marked = (Sample(f"{mark}Why?", samples[0].image) for mark in ("", "<image>\n"))
    assert prompter.prompt(marked) == prompter.prompt(plain)
    assert prompter.encode([marked])["input_ids"].equal(prompter.encode([plain])["input_ids"])


def test_what_a_processor_refuses_is_one_sentence(embedded_processor, samples):
    class Refusing:
        def __getattr__(self, name):
            return getattr(embedded_processor, name)

        def __call__(self, **_):
            raise ValueError("absolute aspect ratio must be smaller than 200,\n got 2000")

    with pytest.raises(InputError, match=r"refuses a calibration sample: absolute aspect ratio .* got 2000"):
        Prompter(Refusing()).encode(samples[:1])
