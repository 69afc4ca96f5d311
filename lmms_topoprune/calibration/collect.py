"""One forward pass over the calibration set: hidden states, sums over tokens, nothing else."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lmms_topoprune._util.progress import progress_bar
from lmms_topoprune.calibration.decoder import Decoder, Listener, StopForward, last_logits
from lmms_topoprune.calibration.norms import NormCounts
from lmms_topoprune.calibration.prompts import RET_MARKER, Prompter
from lmms_topoprune.calibration.recorder import Recorder, View
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.states import HiddenStates, TokenSums
from lmms_topoprune.calibration.tokens import Draw, Misaligned, Points, Tokens, check_tokens, image_token_ids
from lmms_topoprune.errors import InputError, out_of_memory
from lmms_topoprune.surgery import decoder_layers

log = logging.getLogger(__name__)


def collect(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    *,
    token: str = "last",
    states: tuple[str, ...] = ("residual",),
    sums: tuple[str, ...] = (),
    batch_size: int = 8,
    progress: bool = False,
    between: Callable[[], None] = lambda: None,
) -> Collected:
    """`collect_views` for one token.

    Args:
        token: which token stands for a sample, as in PruningOptions.
        states: "residual" and/or "norm".
    """
    views = [View(state, token) for state in states]
    return collect_views(
        model, Prompter(processor), samples, views, sums, marked=token == "ret", batch_size=batch_size,
        progress=progress, between=between,
    )  # fmt: skip


@dataclass(frozen=True)
class Collected:
    """What one pass over N samples through L decoder layers found.

    Attributes:
        layers: L.
        vectors: a view -> (L + 1, N, d), or (L + 1, P, d) for a cloud of P points, in the
            model's precision, on the CPU.
        sums: means over all tokens that are not padding.
        points: which tokens the points of a cloud are; their vectors are in this order.
        norms: what was counted of all tokens' norms; None if no sample passed.
    """

    layers: int
    vectors: Mapping[View, torch.Tensor] = field(default_factory=dict)
    sums: TokenSums = field(default_factory=TokenSums)
    points: Mapping[Draw, Points] = field(default_factory=dict)
    norms: NormCounts | None = None

    def states(self, *views: View) -> dict[str, HiddenStates]:
        """What was kept of these views, all of one token; by default of all."""
        found = {view: self.vectors[view] for view in views or self.vectors if view in self.vectors}
        return {view.state: HiddenStates(view.state, values) for view, values in found.items()}


def collect_views(
    model: Any,
    prompter: Prompter,
    samples: Sequence[Sample],
    views: Sequence[View],
    sums: Sequence[str] = (),
    *,
    marked: bool = False,
    batch_size: int = 8,
    progress: bool = False,
    between: Callable[[], None] = lambda: None,
    numbers: Sequence[int] | None = None,
) -> Collected:
    """Pass every sample once through the model and keep one vector per sample and view.

    Nothing depends on `batch_size` beyond rounding: batches hold samples of like length, padding is
    on the right and never read, and the result is in the order of `samples`.

    Args:
        model: any Hugging Face vision-language or causal language model.
        prompter: words the samples for it.
        samples: N samples.
        views: the states to keep, and which token stands for a sample in each.
        sums: "token_cosine", "relative_magnitude".
        marked: the prompts end in the mark that token "ret" reads.
        batch_size: samples in one forward pass; halved whenever memory runs out.
        progress: show a bar.
        between: called after every batch; what it raises stops the pass.
        numbers: of the samples in the whole calibration set, of which these may be a share.

    Returns:
        Vectors (L + 1, N, d) in the model's precision, N x (L + 1) x d numbers a view.

    Raises:
        ValueError: token "ret" is to be read from prompts without its mark.
        InputError: a state is not finite, the family has no such norm or token or takes no such sample,
            one sample alone does not fit into memory.
    """
    tokens = {view.token for view in views}
    if "ret" in tokens and not marked:
        raise ValueError("views ask for token 'ret'; allowed: only with marked=True")
    check_tokens(model, samples, tokens)
    layers = decoder_layers(model)
    prompter = prompter.with_suffix(RET_MARKER) if marked else prompter
    spans = [prompter.span(sample) for sample in samples] if any(view.draw for view in views) else []
    recorder = Recorder(Decoder.of(model, layers), views, sums, len(samples), spans, numbers)
    with _listening(model, recorder), progress_bar("calibrating", len(samples), progress) as advance:
        for count in _batches(model, prompter, samples, recorder, batch_size):
            advance(count)
            between()
    vectors, points = recorder.found()
    norms = recorder.norms if recorder.tokens_seen else None
    return Collected(len(layers), vectors, TokenSums(recorder.means(), recorder.tokens_seen), points, norms)


def one_pass(
    model: Any,
    prompter: Prompter,
    samples: Sequence[Sample],
    recorder: Listener,
    *,
    batch_size: int = 8,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Pass every sample once through the model while a recorder listens; batches as in `collect`.

    Args:
        recorder: hears every batch; its hooks may raise StopForward.
        advance: told after each batch how many samples it held.
    """
    with _listening(model, recorder):
        for count in _batches(model, prompter, samples, recorder, batch_size):
            advance(count)


@contextmanager
def _listening(model: nn.Module, recorder: Listener) -> Iterator[None]:
    """Inference that records states and makes no logits but the last position's."""
    with recorder.listening(), evaluation_mode(model), torch.no_grad(), last_logits(model):
        yield


def _batches(
    model: nn.Module,
    prompter: Prompter,
    samples: Sequence[Sample],
    recorder: Listener,
    limit: int,
) -> Iterator[int]:
    """Pass the samples batch by batch, and say how many each held; batches shrink when memory runs out."""
    image_ids = image_token_ids(model, prompter.processor)
    special = prompter.tokenizer.all_special_ids
    waiting = by_length(prompter, samples, limit)[::-1]
    while waiting:
        batch = waiting.pop()
        if len(batch) > limit:
            waiting += [batch[i : i + limit] for i in range(0, len(batch), limit)][::-1]
            continue
        inputs = prompter.encode([samples[i] for i in batch])
        recorder.start(Tokens.of(inputs, image_ids, special), batch)
        try:
            with suppress(StopForward):
                forward(model, inputs)
            recorder.finish()
        except Misaligned:
            limit = 1
            waiting.append(batch)
        except (RuntimeError, MemoryError) as error:
            limit = halved(error, len(batch), f"calibration sample {batch[0]}")
            waiting.append(batch)
        else:
            yield len(batch)


def halved(error: Exception, size: int, one: str) -> int:
    """The next batch size after a failed batch of that size.

    Raises:
        InputError: one sample, named so, was too much.
        Exception: the error, if it is not about memory.
    """
    if not out_of_memory(error):
        raise error
    if size == 1:
        raise InputError(f"{one} alone does not fit into memory") from None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    log.warning("out of memory with %d calibration samples at once; going on with %d", size, size // 2)
    return size // 2


def by_length(prompter: Prompter, samples: Sequence[Sample], size: int) -> list[list[int]]:
    """Batches of sample indices of like length, longest first, images, videos and text apart."""
    found = []
    for kind in ("image", "video", "text"):
        group = [i for i, sample in enumerate(samples) if sample.kind == kind]
        group.sort(key=lambda i: (-prompter.length(samples[i]), i))
        found += [group[i : i + size] for i in range(0, len(group), size)]
    return found


def forward(model: nn.Module, inputs: Any) -> Any:
    """Run the model on a batch without a KV cache."""
    parameters = inspect.signature(model.forward).parameters
    takes_cache = "use_cache" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return model(**to_device(model, inputs), **({"use_cache": False} if takes_cache else {}))


def to_device(model: nn.Module, inputs: Any) -> dict[str, Any]:
    """The inputs on the model's device; pixels and the like in its precision."""
    # Offloaded weights are on "meta"; accelerate moves the inputs of such a model by itself.
    device = next((p.device for p in model.parameters() if p.device.type != "meta"), torch.device("cpu"))
    moved = {k: v.to(device) if torch.is_tensor(v) else v for k, v in inputs.items()}
    dtype = getattr(model, "dtype", torch.float32)
    return {k: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in moved.items()}


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """No dropout inside; the mode before after."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
