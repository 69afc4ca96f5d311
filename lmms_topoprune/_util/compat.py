"""Every patch of transformers and torch, and what is touched of them that they do not promise.

`TOUCHED` lists it with the version it was made for and what breaks without it;
tests/util/test_library_compat.py fails with that sentence when one is gone. The same for lmms-eval is
harness/compat.py.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

_ABSENT = object()


@dataclass(frozen=True)
class Touched:
    """Something of another library that it may change without notice.

    Attributes:
        where: "module" or "module:Class".
        name: an attribute of it; of a class also one that its own code sets on instances.
        version: of the library, that this was made for.
        without: what breaks when it is gone.
    """

    where: str
    name: str
    version: str
    without: str

    def problem(self) -> str | None:
        """One sentence if it is gone, else None."""
        module, _, kind = self.where.partition(":")
        try:
            owner: Any = importlib.import_module(module)
            owner = getattr(owner, kind) if kind else owner
        except (ImportError, AttributeError):
            return f"{self.where} is gone (made for {self.version}); {self.without}"
        if hasattr(owner, self.name) or (kind and _sets(owner, self.name)):
            return None
        return f"{self.where} has no {self.name} (made for {self.version}); {self.without}"


def _sets(kind: type, name: str) -> bool:
    """Whether a class's own code sets an attribute of that name on its instances."""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        return False
    return f"self.{name}" in source or f'"{name}"' in source


_TRANSFORMERS = "transformers 5.24"
TOUCHED = (
    Touched(
        "transformers:PreTrainedModel",
        "from_pretrained",
        _TRANSFORMERS,
        "a model is never loaded without the layers that its plan drops",
    ),
    Touched(
        "transformers.core_model_loading",
        "_materialize_copy",
        _TRANSFORMERS,
        "loading without the dropped layers reads the first page of each of their tensors",
    ),
    Touched(
        "transformers.modeling_utils:PreTrainedModel",
        "_from_config",
        _TRANSFORMERS,
        "no weightless model can be built, so no layer can be deleted",
    ),
    Touched(
        "transformers.modeling_utils:PreTrainedModel",
        "_no_split_modules",
        _TRANSFORMERS,
        "the layers of a model on several devices are not told apart",
    ),
    Touched(
        "transformers.configuration_utils:PretrainedConfig",
        "_attn_implementation",
        _TRANSFORMERS,
        "a plan's run section does not say which attention answered",
    ),
    Touched(
        "transformers:AutoModelForImageTextToText",
        "_model_mapping",
        _TRANSFORMERS,
        "the family `huggingface` cannot tell models with and without eyes apart",
    ),
    Touched(
        "transformers.video_processing_utils:VideoProcessorMixin",
        "fetch_videos",
        _TRANSFORMERS,
        "chat models open no videos where torchcodec is not installed",
    ),
    Touched(
        "transformers.dynamic_module_utils",
        "TIME_OUT_REMOTE_CODE",
        _TRANSFORMERS,
        "a checkpoint with code of its own leads to a question on standard output",
    ),
    Touched(
        "torch.distributed.distributed_c10d",
        "_get_default_store",
        "torch 2.14",
        "several processes do not hear of each other's failures",
    ),
)


@contextmanager
def replaced(owner: object, **values: Any) -> Iterator[None]:
    """Within this block the owner's attributes have these values."""
    before = {name: vars(owner).get(name, _ABSENT) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            if value is not _ABSENT:
                setattr(owner, name, value)
            elif name in vars(owner):
                delattr(owner, name)


@contextmanager
def replaced_names(**values: Any) -> Iterator[None]:
    """`replaced` by dotted names of modules' attributes: replaced_names(**{"package.module.name": value})."""
    with ExitStack() as stack:
        for path, value in values.items():
            module, _, name = path.rpartition(".")
            stack.enter_context(replaced(importlib.import_module(module), **{name: value}))
        yield


@contextmanager
def loading_through(load: Callable[..., Any]) -> Iterator[None]:
    """Within this block transformers' `Class.from_pretrained(...)` is load(original, Class, ...).

    Wrappers of lmms-eval load their model in their own constructor, in many ways; without this a model is
    loaded with the layers that its plan drops. Made for transformers 5.24.

    Args:
        load: gets the bound original, the class, and what from_pretrained was given.
    """
    from transformers import PreTrainedModel

    original = PreTrainedModel.__dict__["from_pretrained"].__func__

    def from_pretrained(kind: Any, *given: Any, **named: Any) -> Any:
        return load(partial(original, kind), kind, *given, **named)

    with replaced(PreTrainedModel, from_pretrained=classmethod(from_pretrained)):
        yield


@contextmanager
def meta_tensors_unread() -> Iterator[None]:
    """Within this block from_pretrained makes up what goes to the meta device from its shape and type.

    By itself it takes the tensor out of the file first. That reads its first page, and with it as much as the
    system reads ahead: 128 kB on most disks, megabytes on some. Made for transformers 5.24; a version that
    loads in another way goes on as it does.
    """
    import torch
    from transformers import core_model_loading

    take_out = getattr(core_model_loading, "_materialize_copy", None)
    if take_out is None:
        yield
        return

    def take(tensor: Any, device: Any = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        if str(device) == "meta" and hasattr(tensor, "get_shape") and dtype is not None:
            return torch.empty(tensor.get_shape(), dtype=dtype, device="meta")
        found: torch.Tensor = take_out(tensor, device, dtype)
        return found

    with replaced(core_model_loading, _materialize_copy=take):
        yield


def llama4_can_answer() -> None:
    """Give the outputs of Llama 4's decoder the field that its own model reads from them.

    Without it every forward pass of Llama4ForConditionalGeneration ends in an AttributeError; made for
    transformers 5.24.
    """
    from transformers.modeling_outputs import MoeCausalLMOutputWithPast

    if not hasattr(MoeCausalLMOutputWithPast, "image_outputs"):
        MoeCausalLMOutputWithPast.image_outputs = None


def never_ask_for_code() -> None:
    """Refuse a checkpoint's own code where nobody said anything about it, instead of asking.

    transformers 5.24 waits 15 seconds for an answer on standard input; without this a "y" that was meant for
    something else runs the code, and the question stands in what --json prints.
    """
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


def default_store() -> Any:
    """torch.distributed's key-value store, which every launched process shares; made for torch 2.14."""
    import torch.distributed as dist

    return dist.distributed_c10d._get_default_store()


def open_videos_with(reader: Callable[[str], Any]) -> None:
    """Let transformers and qwen_vl_utils open videos with this reader where they cannot.

    transformers 5.24 takes torchcodec or a part of torchvision that is gone, qwen_vl_utils 0.0.14 that part
    too; without either every video ends in an ImportError.

    Args:
        reader: makes what has `len()`, `get_avg_fps()`, `get_frame_timestamp(i)` and `get_batch(indices)`.
    """
    import torchvision.io
    from transformers import video_processing_utils as videos

    if not hasattr(torchvision.io, "read_video"):
        torchvision.io.read_video = partial(_frames_between, reader)
    if _decodes_by_itself(videos) or hasattr(videos.VideoProcessorMixin, "topoprune"):
        return

    def fetch_videos(self: Any, given: Any, sample_indices_fn: Any = None) -> Any:
        if isinstance(given, list):
            return list(zip(*(self.fetch_videos(one, sample_indices_fn) for one in given), strict=True))
        return _sampled(reader(given), sample_indices_fn)

    videos.VideoProcessorMixin.fetch_videos = fetch_videos
    videos.VideoProcessorMixin.topoprune = True


def _decodes_by_itself(videos: ModuleType) -> bool:
    """Whether transformers has torchcodec; 5.20, the last for Python 3.10, does not ask if it works."""
    if usable := getattr(videos, "is_torchcodec_usable", None):
        return bool(usable(decode="video"))
    return bool(getattr(videos, "is_torchcodec_available", bool)())


def _sampled(film: Any, choose: Callable[..., Any] | None) -> tuple[Any, Any]:
    """Frames (T, H, W, C) that a video processor chooses, and what it wants to know about them."""
    from transformers.video_utils import VideoMetadata

    count, rate = len(film), film.get_avg_fps()
    height, width = film[0].shape[:2]
    facts = VideoMetadata(
        total_num_frames=count,
        fps=rate,
        duration=count / rate,
        video_backend="pyav",
        height=height,
        width=width,
    )
    indices = list(range(count)) if choose is None else list(choose(metadata=facts))
    facts.frames_indices = indices
    return film.get_batch(indices).asnumpy(), facts


def _frames_between(
    reader: Callable[[str], Any],
    filename: str,
    start_pts: float = 0.0,
    end_pts: float | None = None,
    pts_unit: str = "sec",
    output_format: str = "THWC",
) -> tuple[Any, Any, dict[str, float]]:
    """What torchvision.io.read_video was: frames between two moments, no sound, and the frame rate."""
    import torch

    film, end = reader(filename), float("inf") if end_pts is None else end_pts
    chosen = [n for n in range(len(film)) if start_pts <= film.get_frame_timestamp(n)[0] <= end]
    frames = torch.from_numpy(film.get_batch(chosen).asnumpy())  # (T, H, W, C)
    frames = frames.permute(0, 3, 1, 2) if output_format == "TCHW" else frames
    return frames, torch.empty(0), {"video_fps": film.get_avg_fps()}
