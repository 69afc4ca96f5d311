"""A criterion gets what it declared, and nothing else; its scores as JSON."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from lmms_topoprune import registry
from lmms_topoprune._util.references import told_as_own
from lmms_topoprune.calibration.loss import LossOracle
from lmms_topoprune.calibration.norms import TokenNorms
from lmms_topoprune.calibration.states import DecoderLayers, HiddenStates, TokenSums
from lmms_topoprune.errors import InputError, unknown
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.selection import LayerScores, PairScores


def no_model() -> LossOracle:
    """What stands for the oracle where there is no model.

    Raises:
        InputError: whenever it is called.
    """
    raise InputError("this criterion needs the model itself, not only its hidden states")


@dataclass
class Measurements:
    """All that one calibration pass makes available.

    Attributes:
        layers: of the decoder.
        states: "residual" and/or "norm" -> the points of every state.
        sums: means over all tokens.
        norms: of all tokens; None where no pass was run.
        loss: makes the model's loss oracle on the calibration texts, or returns the one there is.
    """

    layers: DecoderLayers
    states: Mapping[str, HiddenStates] = field(default_factory=dict)
    sums: TokenSums = field(default_factory=TokenSums)
    norms: TokenNorms | None = None
    loss: Callable[[], LossOracle] = no_model

    def state(self, name: str) -> HiddenStates:
        """The points of one kind of state.

        Raises:
            InputError: the pass did not record that kind.
        """
        if name not in self.states:
            raise InputError(
                f"state is {name!r}; kept in this calibration: {', '.join(self.states) or 'none'}"
            )
        return self.states[name]


def score(found: Measurements, options: PruningOptions) -> LayerScores | PairScores:
    """The criterion's scores; `options` as `resolved` returns them.

    A criterion's function names what it takes: `states: HiddenStates`, `sums: TokenSums`,
    `loss: LossOracle`, `layers: DecoderLayers`, `options: PruningOptions`. It gets those of them that it
    declared.

    Raises:
        InputError: the function takes something that the criterion did not declare, or returns no scores,
            or those of another number of layers.
        OwnCodeError: it is somebody else's function and raises an exception.
    """
    criterion = registry.get(options.criterion)
    if criterion.score is None:
        raise unknown("criterion", criterion.name, registry.scoring_names())
    taken, given = inspect.signature(criterion.score).parameters, _declared(criterion, found, options)
    if undeclared := [name for name in taken if name not in given]:
        raise InputError(
            f"criterion {options.criterion!r} takes {undeclared[0]!r}; declared for it: {', '.join(given)}"
        )
    measured = {name: given[name]() for name in taken}
    with told_as_own(f"criterion {options.criterion!r}", criterion.score):
        scores: LayerScores | PairScores = criterion(**measured)
    if scores.layers != found.layers.count:
        raise InputError(
            f"criterion {options.criterion!r} scores {scores.layers} layers; the model has "
            f"{found.layers.count}"
        )
    return scores


def _declared(
    criterion: registry.Criterion, found: Measurements, options: PruningOptions
) -> dict[str, Callable[[], Any]]:
    """What a criterion may take by name, each made when it is taken."""
    given: dict[str, Callable[[], Any]] = {"layers": lambda: found.layers, "options": lambda: options}
    if criterion.state != "none":
        given["states"] = lambda: _enough(found.state(options.state), options)
    if criterion.sums:
        given["sums"] = lambda: found.sums.only(criterion.sums)
    if criterion.loss:
        given["loss"] = found.loss
    return given


def _enough(states: HiddenStates, options: PruningOptions) -> HiddenStates:
    count = states.values.shape[1]
    if (
        options.points == "tokens"
        and "k" in registry.get(options.criterion).parameters
        and count <= max(options.ks)
    ):
        raise InputError(
            f"k is {options.k!r}, but the calibration samples have only {count} tokens to draw from"
        )
    return states


def check_samples(options: PruningOptions, count: int) -> None:
    """Refuse to look for k neighbors among too few samples.

    Raises:
        InputError: there are not more samples than neighbors.
    """
    if options.points == "samples" and count <= max(options.ks):
        raise InputError(f"k is {options.k!r}, but there are only {count} calibration samples")


def score_parameters(options: PruningOptions) -> dict[str, Any]:
    """What the scores depend on, beside the model and the calibration set.

    Raises:
        OptionError: the criterion names an option that there is not.
    """
    criterion = registry.get(options.criterion)
    allowed = [one.name for one in fields(options)]
    for name in criterion.parameters:
        if name not in allowed:
            raise unknown(f"one of parameters of criterion {options.criterion!r}", name, allowed)
    code = {} if criterion.code is None else {"code": criterion.code}
    return {"version": criterion.version, **code, **{n: getattr(options, n) for n in criterion.parameters}}


def scores_to_json(scores: LayerScores | PairScores) -> dict[str, Any]:
    found = {"kind": type(scores).__name__, "name": scores.name, "values": scores.values.tolist()}
    return found | ({"barcodes": list(scores.barcodes)} if scores.barcodes else {})


def scores_from_json(data: Mapping[str, Any]) -> LayerScores | PairScores:
    kind = PairScores if data["kind"] == "PairScores" else LayerScores
    return kind(np.array(data["values"]), data["name"], tuple(data.get("barcodes", ())))
