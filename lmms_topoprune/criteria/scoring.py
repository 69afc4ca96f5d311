"""Scores from evidence, as one number a layer, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmms_topoprune import registry
from lmms_topoprune.calibration.evidence import Evidence
from lmms_topoprune.errors import InputError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.selection import LayerScores, PairScores


def score(evidence: Evidence, options: PruningOptions) -> LayerScores | PairScores:
    """The criterion's scores; `options` as `resolved` returns them."""
    if "samples" in evidence.calibration:
        check_samples(options, evidence.calibration["samples"])
    return registry.get(options.criterion)(evidence, options)


def check_samples(options: PruningOptions, count: int) -> None:
    """Refuse to look for k neighbors among too few samples."""
    if count <= max(options.ks):
        raise InputError(f"k is {options.k!r}, but there are only {count} calibration samples")


def score_parameters(options: PruningOptions) -> dict[str, Any]:
    """What the scores depend on, beside the model and the calibration set."""
    criterion = registry.get(options.criterion)
    code = {} if criterion.code is None else {"code": criterion.code}
    return {"version": criterion.version, **code, **{n: getattr(options, n) for n in criterion.parameters}}


def scores_to_json(scores: LayerScores | PairScores) -> dict[str, Any]:
    found = {"kind": type(scores).__name__, "name": scores.name, "values": scores.values.tolist()}
    return found | ({"barcodes": list(scores.barcodes)} if scores.barcodes else {})


def scores_from_json(data: Mapping[str, Any]) -> LayerScores | PairScores:
    kind = PairScores if data["kind"] == "PairScores" else LayerScores
    return kind(np.array(data["values"]), data["name"], tuple(data.get("barcodes", ())))
