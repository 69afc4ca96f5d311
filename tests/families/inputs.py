"""Random prompts for the tiny models, single and as a left-padded batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

Inputs = dict[str, torch.Tensor]
LENGTHS = (9, 6)
TOKEN_TYPES = {"token_type_ids", "mm_token_type_ids"}  # 1 for the token that stands for an image


def prompts(model: PreTrainedModel, kind: str) -> tuple[list[Inputs], Inputs]:
    """Single prompts (batch size 1) and one left-padded batch of the same prompts.

    Args:
        kind: name of a function here that makes a prefix of tokens and the tensors of its images.
    """
    generator = torch.Generator().manual_seed(1)
    prefix, images = KINDS[kind](model, generator)
    rows = [torch.cat([prefix, torch.randint(3, 90, (n,), generator=generator)]) for n in LENGTHS]
    singles = [_with_images(row[None], torch.ones(1, len(row), dtype=torch.long), images, 1) for row in rows]
    width = max(len(row) for row in rows)
    # A text encoder with learned positions (BART) is padded on the right.
    padded = [_pad(row, width, left=not model.config.is_encoder_decoder) for row in rows]
    ids, mask = (torch.stack(parts) for parts in zip(*padded, strict=True))
    batch = _with_images(ids, mask, images, len(rows))
    if kind == "git":  # counts positions from the padding on unless it is told
        batch["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return singles, batch


def _pad(row: torch.Tensor, width: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens padded with 0 to `width`, and the attention mask."""
    sides = (width - len(row), 0) if left else (0, width - len(row))
    return pad(row, sides), pad(torch.ones_like(row), sides)


def _with_images(ids: torch.Tensor, mask: torch.Tensor, images: Inputs, rows: int) -> Inputs:
    repeated = {key: torch.cat([value] * rows) for key, value in images.items()}
    inputs = {"input_ids": ids, "attention_mask": mask, **repeated}
    if "cross_attention_mask" in images:  # one entry a token
        inputs["cross_attention_mask"] = images["cross_attention_mask"].expand(rows, ids.shape[1], -1, -1)
    if "image_embeds_position_mask" in images:
        inputs["image_embeds_position_mask"] = ids == 99
    for key in TOKEN_TYPES & images.keys():
        inputs[key] = (ids == int(images[key])).long()
    if "qformer_input_ids" in images:
        inputs["qformer_attention_mask"] = torch.ones_like(inputs["qformer_input_ids"])
    return inputs


def text(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    return torch.tensor([1]), {}


def llava(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    image = torch.randn(1, 3, 28, 28, generator=generator)
    return torch.tensor([1] + [model.config.image_token_id] * 4), {"pixel_values": image}


def image(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    """As many image tokens as the model makes features of one image."""
    return _seen(model, {"pixel_values": torch.randn(1, 3, 28, 28, generator=generator)})


def small(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    """An image for models that make many tokens of it (Chameleon, Emu 3: a token for 2 x 2 pixels)."""
    return _seen(model, {"pixel_values": torch.randn(1, 3, 8, 8, generator=generator)})


def twice(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    """An image in a low and in a high resolution."""
    images = {
        "pixel_values": torch.randn(1, 3, 28, 28, generator=generator),
        "high_res_pixel_values": torch.randn(1, 3, 32, 32, generator=generator),
    }
    return _seen(model, images)


def tiles(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    """An image as a whole and in two tiles."""
    return _seen(model, {"pixel_values": torch.randn(1, 3, 3, 28, 28, generator=generator)})


def stack(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    """A prompt's images in a dimension of their own."""
    return _seen(model, {"pixel_values": torch.randn(1, 1, 3, 28, 28, generator=generator)})


def patches(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    """An image of 4 x 4 patches, and what the model has to be told of their places."""
    vision = getattr(model.config, "vision_config", model.config)  # Fuyu has no vision tower
    images = {
        "pixel_values": torch.randn(1, 16, 3 * vision.patch_size**2, generator=generator),
        "image_position_ids": torch.cartesian_prod(torch.arange(4), torch.arange(4))[None],
        "spatial_shapes": torch.tensor([[4, 4]]),
        "pixel_attention_mask": torch.ones(1, 16, dtype=torch.long),
        "image_token_pooling": torch.arange(16).view(4, 4),  # right for each row, as all have this image
        "image_grids": torch.tensor([[2, 2, 0, 0]]),
    }
    asked = inspect.signature(model.base_model.get_image_features).parameters
    return _seen(model, {key: value for key, value in images.items() if key in asked})


@torch.no_grad()
def _seen(model: PreTrainedModel, images: Inputs, start: tuple[int, ...] = ()) -> tuple[torch.Tensor, Inputs]:
    see = model.base_model.get_image_features
    if "image_sizes" in inspect.signature(see).parameters:
        images["image_sizes"] = torch.tensor([images["pixel_values"].shape[-2:]])
    found = see(**images)
    if isinstance(found, ModelOutput):
        found = found.last_hidden_state if found.pooler_output is None else found.pooler_output
    parts = found if isinstance(found, list | tuple) else [found]
    features = sum(part.numel() // part.shape[-1] for part in parts)
    token = _image_token(model.config)
    for key in TOKEN_TYPES & inspect.signature(model.forward).parameters.keys():
        images[key] = torch.tensor([token])
    return torch.tensor([1, *start] + [token] * features), images


def _image_token(config: PreTrainedConfig) -> int:
    if vocabulary := getattr(config, "vocabulary_map", None):
        return int(vocabulary["<image>"])
    return int(getattr(config, "image_token_id", None) or config.image_token_index)


def qwen_vl(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    config = model.config
    prefix = [1, config.vision_start_token_id] + [config.image_token_id] * 4 + [config.vision_end_token_id]
    images = {
        "pixel_values": torch.randn(16, 3 * 2 * 4 * 4, generator=generator),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "mm_token_type_ids": torch.tensor([config.image_token_id]),
    }
    return torch.tensor(prefix), images


def grid(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    """An image of 4 x 4 patches, for other families that take patches and their grid."""
    config, vision = model.config, model.config.vision_config
    width = 3 * getattr(vision, "temporal_patch_size", 1) * vision.patch_size**2
    images = {
        "pixel_values": torch.randn(16, width, generator=generator),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
    }
    if "image_merge_sizes" in inspect.signature(model.forward).parameters:
        images["image_merge_sizes"] = torch.tensor([2])
    starts = (getattr(config, f"{name}_start_token_id", None) for name in ("image", "vision"))
    return _seen(model, images, tuple(start for start in starts if start)[:1])


def paligemma(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    prefix, images = image(model, generator)
    return prefix, {**images, "token_type_ids": torch.tensor([-1])}  # all of it is the prompt


def mllama(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    images = {
        "pixel_values": torch.randn(1, 1, 4, 3, 28, 28, generator=generator),
        "aspect_ratio_ids": torch.tensor([[1]]),
        "aspect_ratio_mask": torch.tensor([[[1, 0, 0, 0]]]),
        "cross_attention_mask": torch.tensor([[[[1, 0, 0, 0]]]]),
    }
    return torch.tensor([1, 95]), images


def blip(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    shape = (1, 4, 3, 28, 28) if "Video" in type(model).__name__ else (1, 3, 28, 28)
    images = {"pixel_values": torch.randn(shape, generator=generator)}
    if "Instruct" in type(model).__name__:
        images["qformer_input_ids"] = torch.tensor([[5, 6, 7]])
    token = getattr(model.config, "image_token_index", None) or getattr(
        model.config, "video_token_index", None
    )
    return torch.tensor([token] * (16 if len(shape) == 5 else 4)), images


def kosmos2(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    images = {
        "pixel_values": torch.randn(1, 3, 28, 28, generator=generator),
        "image_embeds_position_mask": torch.tensor([True]),
    }
    return torch.tensor([1] + [99] * model.config.latent_query_num), images


def kosmos2_5(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    """4 x 4 patches, each after its row and its column."""
    config = model.config
    places = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    pixels = torch.randn(16, config.vision_config.patch_embed_hidden_size, generator=generator)
    images = {
        "flattened_patches": torch.cat([places, pixels], -1)[None],
        "image_embeds_position_mask": torch.tensor([True]),
    }
    return torch.tensor([1] + [99] * config.latent_query_num), images


def phi4(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    """An image as a whole and as one tile: a token and a line break each, and one between them."""
    images = {
        "image_pixel_values": torch.randn(1, 2, 3, 28, 28, generator=generator),
        "image_sizes": torch.tensor([[28, 28]]),
        "image_attention_mask": torch.ones(1, 2, 2, 2, dtype=torch.long),
    }
    return torch.tensor([1] + [model.config.vision_config.image_token_id] * 5), images


def granite(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    images = {
        "pixel_values": torch.randn(1, 2, 3, 28, 28, generator=generator),
        "image_sizes": torch.tensor([[28, 28]]),
    }
    return torch.tensor([1] + [model.config.image_token_id] * 3), images


def git(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    """The model itself puts the image before the prompt."""
    return torch.tensor([1]), {"pixel_values": torch.randn(1, 3, 28, 28, generator=generator)}


def hw_grid(model: PreTrainedModel, generator: torch.Generator) -> tuple[torch.Tensor, Inputs]:
    """An image of 4 x 4 patches, and its grid."""
    pixels = torch.randn(16, 3 * model.config.vision_config.patch_size**2, generator=generator)
    return _seen(model, {"pixel_values": pixels, "image_grid_hw": torch.tensor([[4, 4]])})


KINDS: dict[str, Callable[[PreTrainedModel, torch.Generator], tuple[torch.Tensor, Inputs]]] = {
    "text": text,
    "llava": llava,
    "image": image,
    "small": small,
    "twice": twice,
    "tiles": tiles,
    "stack": stack,
    "patches": patches,
    "qwen_vl": qwen_vl,
    "grid": grid,
    "mllama": mllama,
    "paligemma": paligemma,
    "blip": blip,
    "kosmos2": kosmos2,
    "kosmos2_5": kosmos2_5,
    "phi4": phi4,
    "granite": granite,
    "git": git,
    "hw_grid": hw_grid,
}


def decoder_start(model: PreTrainedModel, rows: int) -> dict[str, Any]:
    """What a text-to-text model needs for a forward pass."""
    if (
        not model.config.is_encoder_decoder
        and "T5" not in type(getattr(model, "language_model", None)).__name__
    ):
        return {}
    return {"decoder_input_ids": torch.tensor([[2, 7, 8]] * rows)}
