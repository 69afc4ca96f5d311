"""Calibration texts and a model's loss on them, for criteria that need more than hidden states."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from lmms_topoprune.calibration.collect import by_length, evaluation_mode, forward, to_device
from lmms_topoprune.calibration.decoder import Decoder, hooked, last_logits
from lmms_topoprune.calibration.prompts import Prompter, per_token
from lmms_topoprune.calibration.replay import Replay, is_repeatable
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.tokens import Tokens
from lmms_topoprune.errors import InputError
from lmms_topoprune.surgery import decoder_layers, identity_layers

ANSWER_TOKENS = 16
# A loss settles with fewer texts than a neighbor graph needs points (SLEB takes 128, Shortened LLaMA 10),
# and greedy search measures it some hundred times.
MAX_TEXTS = 64
IGNORE = -100
Answers = MutableMapping[tuple[bytes, ...], torch.Tensor]
"""Token ids (B, A) that the dense model answers with, by the digests of a batch's samples."""
NO_TOKEN = "the calibration texts hold no token whose loss could be measured"


@dataclass(frozen=True)
class Text:
    """A batch with targets: the last `window` positions hold every token whose loss counts.

    Attributes:
        inputs: what the model takes, with input_ids (B, T).
        labels: (B, window), the ids to predict, IGNORE elsewhere.
        answered: each row is one answer; else every token stands for itself.
    """

    inputs: Any
    labels: torch.Tensor
    answered: bool = False

    @property
    def window(self) -> int:
        return self.labels.shape[1]


@dataclass(frozen=True)
class Predictions:
    """What a model predicts of some texts.

    Attributes:
        loss: summed negative log-likelihood of the tokens that count.
        tokens: how many these are.
        kept: answers whose every token the whole model would choose as well; of a text that is no answer, its
            tokens of which that is so.
        answers: how many could be kept.
    """

    loss: float = 0.0
    tokens: int = 0
    kept: int = 0
    answers: int = 0

    @classmethod
    def total(cls, parts: Iterable[Predictions]) -> Predictions:
        """The sum; it is the same in every order of the parts.

        Raises:
            InputError: there is no token to predict.
        """
        parts = list(parts)
        tokens, kept, answers = (sum(getattr(p, n) for p in parts) for n in ("tokens", "kept", "answers"))
        if tokens == 0:
            raise InputError(NO_TOKEN)
        return cls(math.fsum(part.loss for part in parts), tokens, kept, answers)

    @property
    def mean(self) -> float:
        """Mean negative log-likelihood of a token."""
        return self.loss / self.tokens


@dataclass
class LossOracle:
    """A model and the calibration texts its loss is measured on, with any layers missing.

    Text-only samples are the texts themselves, as in the papers on language models. Instruction
    models are trained on answers, so a sample with an image or a video counts by the answer that the dense
    model itself gives greedily: no labels are needed.

    Attributes:
        measured: mean losses without some layers, and the seconds each took, by these layers: a higher
            sparsity asks for them again.
        reused_seconds: what the losses took that were asked for again.
        progress: show bars during long searches.
    """

    model: Any
    texts: tuple[Text, ...]
    measured: dict[frozenset[int], tuple[float, float]] = field(default_factory=dict)
    reused_seconds: float = 0.0
    progress: bool = False

    @classmethod
    def of(
        cls,
        model: Any,
        prompter: Prompter,
        samples: Sequence[Sample],
        batch_size: int,
        share: slice = slice(None),
        answers: Answers | None = None,
        progress: bool = False,
    ) -> LossOracle:
        """On the first MAX_TEXTS samples; arguments as for `answered_texts`, `share` for `chosen`."""
        texts = answered_texts(model, prompter, samples[:MAX_TEXTS], batch_size, share, answers)
        return cls(model, texts, progress=progress)

    def losses(self) -> Iterator[tuple[torch.Tensor, int]]:
        """Summed negative log-likelihood and number of tokens, text by text."""
        for text in self.texts:
            yield self._loss(text)

    def mean(self) -> float:
        """Mean negative log-likelihood of a token; its exponential is the perplexity.

        Raises:
            InputError: there is no token to predict.
        """
        with evaluation_mode(self.model), torch.no_grad():
            return _mean([(loss.item(), count) for loss, count in self.losses()])

    def without_one_more(
        self,
        skipped: Collection[int],
        more: Sequence[int],
        advance: Callable[[int], None] = lambda count: None,
    ) -> dict[int, float]:
        """Layer -> mean loss without `skipped` and that layer; arguments as for `measure`."""
        sets = {layer: frozenset([*skipped, layer]) for layer in more}
        known = [layer for layer in more if sets[layer] in self.measured]
        self.reused_seconds += sum(self.measured[sets[layer]][1] for layer in known)
        advance(len(known) * len(self.texts))
        self.measure(skipped, [layer for layer in more if layer not in known], advance)
        return {layer: self.measured[sets[layer]][0] for layer in more}

    def output_cosine(
        self,
        skipped: Collection[int],
        more: Sequence[int],
        advance: Callable[[int], None] = lambda count: None,
    ) -> dict[int, float]:
        """Layer -> how alike the decoder's output stays without `skipped` and that layer.

        The mean over all tokens of the cosine to the output of the whole decoder; arguments as for `measure`.
        """
        totals, tokens = dict.fromkeys(more, 0.0), 0
        with evaluation_mode(self.model), torch.no_grad():
            for text in self.texts:
                whole = self._output(text)
                mask = Tokens.of(text.inputs, set()).fitted(whole).mask
                trial = self._trials(text, skipped)
                for layer in more:
                    with trial(layer):
                        left = self._output(text)
                    totals[layer] += cosine_similarity(whole, left, dim=-1)[mask].double().sum().item()
                    advance(1)
                tokens += int(mask.sum())
        return {layer: total / max(tokens, 1) for layer, total in totals.items()}

    def _output(self, text: Text) -> torch.Tensor:
        """(B, T, d): what the last decoder layer returns, as float32."""
        decoder = Decoder.of(self.model, decoder_layers(self.model))
        found: list[torch.Tensor] = []

        def keep(_: nn.Module, args: Any, output: Any) -> None:
            found.append(decoder.hidden(output).float())

        with hooked([decoder.layers[-1].register_forward_hook(keep)]):
            self._logits(text)
        return found[-1]

    def measure(
        self,
        skipped: Collection[int],
        more: Sequence[int],
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Note in `measured` the mean loss without `skipped` and one more layer, for each of these.

        What comes before that layer is run once a text for all, which keeps the outputs of all layers for one
        batch: L x B x T x d numbers. Families that hand more than hidden states from layer to layer run all
        of it each time. Either way the losses are equal to the last bit.

        Args:
            skipped: layers that are replaced by the identity.
            more: layers, one of which at a time is replaced besides.
            advance: told how many of the len(more) x len(texts) losses are new.

        Raises:
            InputError: there is no token to predict.
        """
        if not more:
            return
        start = time.perf_counter()
        found: dict[int, list[tuple[float, int]]] = {layer: [] for layer in more}
        with evaluation_mode(self.model), torch.no_grad():
            for text in self.texts:
                trial = self._trials(text, skipped)
                for layer in more:
                    with trial(layer):
                        loss, count = self._loss(text)
                    found[layer].append((loss.item(), count))
                    advance(1)
        seconds = (time.perf_counter() - start) / len(more)
        for layer, losses in found.items():
            self.measured[frozenset([*skipped, layer])] = _mean(losses), seconds

    def predictions(self) -> list[Predictions]:
        """Of the model as it is now, text by text; ask for `whole` before it is changed."""
        whole = self.whole
        with evaluation_mode(self.model), torch.no_grad():
            return [self._compared(*each) for each in zip(self.texts, whole, strict=True)]

    def predictions_without(
        self, sets: Sequence[Collection[int]], advance: Callable[[int], None] = lambda count: None
    ) -> list[list[Predictions]]:
        """Of the model without each of these sets of layers, text by text.

        Every set is run from its first missing layer on; what comes before is kept for one batch at a time:
        L x B x T x d numbers. Where layers hand on more than hidden states, all of it runs each time.

        Args:
            sets: none of them empty.
            advance: told how many of the len(sets) x len(texts) measurements are new.
        """
        whole, layers = self.whole, list(decoder_layers(self.model))
        found: list[list[Predictions]] = [[] for _ in sets]
        if not sets:
            return found
        with evaluation_mode(self.model), torch.no_grad():
            for text, choices in zip(self.texts, whole, strict=True):
                replay = None
                if self._is_repeatable:
                    replay = Replay.of(layers, partial(self._logits, text))
                for missing, results in zip(sets, found, strict=True):
                    with (
                        replay.without(min(missing), missing)
                        if replay
                        else identity_layers(self.model, missing)
                    ):
                        results.append(self._compared(text, choices))
                    advance(1)
        return found

    @cached_property
    def whole(self) -> list[torch.Tensor]:
        """The first choices (B, window - 1) of the model at every text, as it is when this is first asked."""
        with evaluation_mode(self.model), torch.no_grad():
            return [self._logits(text)[:, :-1].argmax(-1) for text in self.texts]

    def _compared(self, text: Text, choices: torch.Tensor) -> Predictions:
        logits, targets = self._logits_and_targets(text)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
        counted = targets != IGNORE
        same = logits.argmax(-1) == choices.to(logits.device)
        if text.answered:
            asked = counted.any(1)
            same, counted_ones = (same | ~counted).all(1) & asked, asked
        else:
            same, counted_ones = same & counted, counted
        return Predictions(loss.item(), int(counted.sum()), int(same.sum()), int(counted_ones.sum()))

    def _trials(self, text: Text, skipped: Collection[int]) -> Callable[[int], AbstractContextManager[None]]:
        """A context without `skipped` and one more layer, by that layer."""
        if not self._is_repeatable:
            return lambda layer: identity_layers(self.model, [*skipped, layer])
        replay = Replay.of(list(decoder_layers(self.model)), lambda: self._logits(text), skipped)
        return lambda layer: replay.without(layer, skipped)

    @cached_property
    def _is_repeatable(self) -> bool:
        return is_repeatable(list(decoder_layers(self.model)), lambda: self._logits(self.texts[0]))

    def _logits_and_targets(self, text: Text) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, window - 1, vocabulary) and the ids they should predict, IGNORE where none counts."""
        logits = self._logits(text)[:, :-1].float()
        return logits, text.labels[:, 1:].to(logits.device)

    def _loss(self, text: Text) -> tuple[torch.Tensor, int]:
        logits, targets = self._logits_and_targets(text)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
        return loss, int((targets != IGNORE).sum())

    def _logits(self, text: Text) -> torch.Tensor:
        """(B, window, vocabulary)."""
        with last_logits(self.model, text.window):
            return forward(self.model, text.inputs).logits


def answered_texts(
    model: Any,
    prompter: Prompter,
    samples: Sequence[Sample],
    batch_size: int,
    chosen: slice = slice(None),
    answers: Answers | None = None,
) -> tuple[Text, ...]:
    """Batches of samples of like length; the model answers those with an image or a video.

    Args:
        model: the dense model.
        prompter: words the samples for it.
        samples: what is asked; the instruction of one without a picture is a text by itself.
        batch_size: samples in a batch.
        chosen: which of the batches are made.
        answers: those that are known, to which the new ones are added.
    """
    texts, answers = [], {} if answers is None else answers
    with evaluation_mode(model), torch.no_grad():
        for batch in by_length(prompter, samples, batch_size)[chosen]:
            asked = [samples[i] for i in batch]
            if asked[0].kind == "text":
                texts.append(_plain(prompter, asked))
            else:
                texts.append(_answered(model, prompter, asked, answers))
    return tuple(texts)


def _mean(found: Sequence[tuple[float, int]]) -> float:
    tokens = sum(count for _, count in found)
    if tokens == 0:
        raise InputError(NO_TOKEN)
    return sum(loss for loss, _ in found) / tokens


def _plain(prompter: Prompter, samples: list[Sample]) -> Text:
    """The instruction itself, without a chat template; every token but the first counts."""
    inputs = prompter.encode_texts([sample.instruction for sample in samples])
    labels = inputs["input_ids"].masked_fill(~inputs["attention_mask"].bool(), IGNORE)
    return Text(inputs, labels)


def _answered(model: Any, prompter: Prompter, samples: list[Sample], answers: Answers) -> Text:
    """The prompts, padded on the left, with the model's answers behind them; only these count."""
    inputs = prompter.encode(samples, side="left")
    prompt = inputs["input_ids"]
    key = tuple(sample.digest for sample in samples)
    if key not in answers:
        pad = prompter.tokenizer.pad_token_id or 0
        options = {"max_new_tokens": ANSWER_TOKENS, "do_sample": False, "pad_token_id": pad}
        full = model.generate(**to_device(model, inputs), **options).to(prompt.device)
        answers[key] = full[:, prompt.shape[1] :].clone()
    answer = answers[key]
    real = _up_to_end(answer, prompter.tokenizer.eos_token_id)
    extended = {k: _extended(k, v, answer.shape[1]) for k, v in inputs.items()}
    extended["input_ids"] = torch.cat([prompt, answer], 1)
    extended["attention_mask"] = torch.cat([inputs["attention_mask"], real.long()], 1)
    # One position before the answer predicts its first token.
    labels = torch.cat([torch.full_like(prompt[:, :1], IGNORE), answer.masked_fill(~real, IGNORE)], 1)
    return Text(type(inputs)(extended), labels, answered=True)


def _up_to_end(answer: torch.Tensor, end: int | None) -> torch.Tensor:
    """bool (B, A): the tokens up to and including the first end-of-text."""
    if end is None:
        return torch.ones_like(answer, dtype=torch.bool)
    ends = (answer == end).int()
    return ends.cumsum(1) - ends == 0


def _extended(name: str, value: torch.Tensor, count: int) -> torch.Tensor:
    """A model input for a prompt with `count` more tokens; ids and attention mask are replaced afterwards."""
    if name == "cross_attention_mask":  # (B, T, images, tiles): an answer sees what the prompt's end sees
        return torch.cat([value, value[:, -1:].expand(-1, count, -1, -1)], 1)
    if per_token(name):  # an answer's tokens are text, which is token type 0
        return torch.cat([value, value.new_zeros(len(value), count)], 1)
    return value
