"""A cheap check that a model may be evaluated: a broken one would only show up as a bad score.

A half-precision model that seems broken is looked at again in float32, in little more memory than it has.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from PIL import Image
from torch import nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from lmms_topoprune.errors import SelfTestError, one_line, reason_of
from lmms_topoprune.surgery.locate import DecoderLocation, count_of, locate, walk_configs
from lmms_topoprune.surgery.meta_model import build_meta_model, configs, differences

TEXT = "Describe what you see in one sentence."
TOKENS = 8
SIDE = 224


def text_prompt(model: PreTrainedModel, processor: Any = None) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask (1, T): a sentence if there is a tokenizer, arbitrary tokens otherwise.

    Where the model tells kinds of tokens apart, all are its text: PaliGemma lets a prompt see itself whole
    only if that is said.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    ids = tokenizer(TEXT).input_ids if callable(tokenizer) else arbitrary_tokens(model.config)
    input_ids = torch.tensor([ids], device=model.device)
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["token_type_ids"] = torch.zeros_like(input_ids)
    return inputs


def arbitrary_tokens(config: PreTrainedConfig) -> list[int]:
    """Evenly spread token ids, none of which the configuration gives a meaning."""
    special = set()
    for _, section in walk_configs(config):
        for key, value in vars(section).items():
            if "token" in key:
                special |= {value} if isinstance(value, int) else set()
    ordinary = [token for token in range(config.get_text_config().vocab_size) if token not in special]
    return ordinary[:: max(1, len(ordinary) // TOKENS)][1 : TOKENS + 1]


def image_prompt(model: PreTrainedModel, processor: Any) -> Mapping[str, Any] | None:
    """A gray image and a sentence; None if the processor takes no images."""
    if not hasattr(processor, "image_processor"):
        return None
    image = Image.new("RGB", (SIDE, SIDE), "gray")
    if getattr(processor, "chat_template", None):
        content = [{"type": "image", "image": image}, {"type": "text", "text": TEXT}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    else:
        inputs = processor(images=image, text=TEXT, return_tensors="pt")
    return inputs.to(model.device, model.dtype)


STEPS = 4
_NUMBER = re.compile("layer|idx|index")
# Distance of cached and uncached logits in units of their spread: rounding stays below it,
# a layer that reads another layer's keys and values does not.
_TOLERANCE = 0.01
# Half precision differs more: what is above this is looked at again in float32.
_TOLERANCE_HALF = 0.1
# Where that is impossible: a sound model of 18 layers in bfloat16 reached 0.12, a shared cache 0.17.
_TOLERANCE_HALF_ALONE = 0.15


def self_test(model: PreTrainedModel, processor: Any = None) -> None:
    """Check that layers, layer numbers and configuration agree, and that the model computes soundly.

    A prompt of a few words is continued by four tokens with the key-value cache and without it. A model
    that refuses text alone gets a small gray image as well. Where both differ by more in half precision than
    rounding mostly explains, float32 decides: layer by layer, in little more memory.

    Args:
        model: a model, pruned or not, on any device.
        processor: its processor; without one the prompt is a row of arbitrary tokens.

    Raises:
        SelfTestError: with the reason.
    """
    check_structure(model)
    with _evaluating(model):
        _check_generation(model, processor)


def check_structure(model: PreTrainedModel) -> None:
    """The layers are those that the configuration builds, and each is numbered by its position.

    Raises:
        SelfTestError: with the reason.
    """
    try:
        place = locate(model)
        expected = build_meta_model(model, model.config.to_dict())
        built = list(cast(nn.ModuleList, expected.get_submodule(place.path)))
    except Exception as error:  # a configuration class or a constructor objects to its own model
        said = f"{type(error).__name__}: {one_line(error)}"[:500]
        raise SelfTestError(f"the configuration does not describe the model: {said}") from error
    if len(built) != len(place.layers):
        raise SelfTestError(f"the model has {len(place.layers)} layers, its configuration {len(built)}")
    for number, (layer, expected_layer) in enumerate(zip(place.layers, built, strict=True)):
        _check_layer(number, layer, expected_layer)
    _check_copies(model, place)


def _check_layer(number: int, layer: nn.Module, built: nn.Module) -> None:
    modules = dict(built.named_modules())
    for name, module in layer.named_modules():
        if name not in modules:  # an adapter or a quantizer may add modules
            continue
        for key, (found, expected) in differences(module, modules[name]).items():
            if type(found) is int and type(expected) is int and _NUMBER.search(key):
                where = f"layer {number}" + (f", {name}" if name else "")
                raise SelfTestError(f"{where}: {key} is {found}, the configuration makes it {expected}")


def _check_copies(model: PreTrainedModel, place: DecoderLocation) -> None:
    """Every copy of the decoder's configuration that a module holds tells the same number of layers."""
    layers = len(place.layers)
    for name, module in model.named_modules():
        for config in configs(module).values():
            told = count_of(config, place.counts[0])
            if type(config) is type(place.config) and told not in (None, layers):
                raise SelfTestError(f"{name}.config says {told} layers, the model has {layers}")


def _check_generation(model: PreTrainedModel, processor: Any) -> None:
    inputs: Mapping[str, Any] = text_prompt(model, processor)
    try:
        cached = _generate(model, inputs, use_cache=True)
    except Exception as error:
        with_image = image_prompt(model, processor)
        if with_image is None:
            hint = "" if processor else " (with a processor an image is tried too)"
            raise SelfTestError(f"generation fails{hint}: {reason_of(error)[:500]}") from error
        inputs = with_image
        cached = _try_generate(model, inputs, use_cache=True)
    _check_finite(cached[1])
    uncached = _try_generate(model, inputs, use_cache=False)
    _check_finite(uncached[1])
    half = model.dtype in HALF
    reason = _difference(cached, uncached, _TOLERANCE_HALF if half else _TOLERANCE)
    if reason and half:
        again = _in_float32(model, inputs)
        reason = (
            _difference(*again, _TOLERANCE) if again else _difference(cached, uncached, _TOLERANCE_HALF_ALONE)
        )
    if reason:
        raise SelfTestError(reason)


Answer = tuple[list[int], list[torch.Tensor]]  # STEPS tokens, and the logits (V,) each was chosen from


def _generate(model: Any, inputs: Mapping[str, Any], use_cache: bool) -> Answer:
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        num_beams=1,
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        use_cache=use_cache,
        disable_compile=True,
        output_logits=True,
        return_dict_in_generate=True,
    )
    output = model.generate(**inputs, generation_config=settings)
    logits = [step[0].float() for step in output.logits]
    return output.sequences[0, -len(logits) :].tolist(), logits


def _try_generate(model: PreTrainedModel, inputs: Mapping[str, Any], use_cache: bool) -> Answer:
    try:
        return _generate(model, inputs, use_cache)
    except Exception as error:
        how = "with" if use_cache else "without"
        raise SelfTestError(f"generation {how} the cache fails: {reason_of(error)[:500]}") from error


def _in_float32(model: PreTrainedModel, inputs: Mapping[str, Any]) -> tuple[Answer, Answer] | None:
    """Both answers in float32; None where a part of the model computes in another precision regardless."""
    if getattr(model, "hf_quantizer", None) or model.config._attn_implementation not in ("eager", "sdpa"):
        return None
    try:
        with in_float32(model):
            return _generate(model, inputs, use_cache=True), _generate(model, inputs, use_cache=False)
    except Exception:  # such as weights that are fetched from the disk as they lie there
        return None


def _check_finite(logits: list[torch.Tensor]) -> None:
    for step, values in enumerate(logits):
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise SelfTestError(f"{bad} of {len(values)} logits of new token {step} are not finite")


def _difference(cached: Answer, uncached: Answer, tolerance: float) -> str | None:
    """Where logits of one step differ; after a tie was decided differently there is nothing to compare."""
    for step, (with_cache, without) in enumerate(zip(cached[1], uncached[1], strict=False)):
        distance = _distance(with_cache, without)
        if distance > tolerance:
            return (
                f"generation with and without the cache differ: the logits of new token {step} "
                f"are {distance:.2g} of their spread apart"
            )
        if cached[0][step] != uncached[0][step]:
            break
    return None


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    open_ = b > torch.finfo(torch.float16).min  # some models close tokens with a huge negative logit
    a, b = a[open_], b[open_]
    return float((a - b).norm() / (b - b.mean()).norm().clamp_min(1e-12))


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


HALF = (torch.bfloat16, torch.float16)


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Within this block the model computes in float32, and each of its weights afterwards is what it was.

    A decoder layer, or any other part, has float32 weights only while it computes: beside the model there is
    never more than one of them. Of a model of 7 billion parameters that is about one gigabyte for a layer and
    two for the embeddings.
    """
    parts = list(_parts(model, {*locate(model).layers}))
    inside = {id(tensor) for part in parts for tensor in _tensors(part)}
    with ExitStack() as undone:
        undone.callback(_narrow, _widened([t for t in _tensors(model) if id(t) not in inside]))
        for part in parts:
            for handle in _listening(part):
                undone.callback(handle.remove)
        yield


def _parts(module: nn.Module, layers: set[nn.Module]) -> Iterator[nn.Module]:
    """The decoder layers, and the largest modules that hold none; lists of modules are never called."""
    for child in module.children():
        above = isinstance(child, nn.ModuleList | nn.ModuleDict) or not layers.isdisjoint(child.modules())
        if child not in layers and above:
            yield from _parts(child, layers)
        else:
            yield child


def _listening(part: nn.Module) -> Iterator[Any]:
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def before(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        kept.extend(_widened(_tensors(part)))
        return tuple(map(_float, given)), {name: _float(value) for name, value in named.items()}

    def after(*_: Any) -> None:
        _narrow(kept)
        kept.clear()

    yield part.register_forward_pre_hook(before, with_kwargs=True)
    yield part.register_forward_hook(after, always_call=True)


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _widened(tensors: list[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Give half-precision tensors float32 data; returns them with what they had."""
    kept = [(tensor, tensor.data) for tensor in tensors if tensor.dtype in HALF]
    for tensor, data in kept:
        tensor.data = data.float()
    return kept


def _narrow(kept: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for tensor, data in kept:
        tensor.data = data


def _float(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_float, value))
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in HALF else value
