"""Repair by a scale: the layers behind a cut add less, as the hidden states before it are shorter.

The compensation of magnitudes of Prune&Comp (Chen et al., AAAI 2026, arXiv 2507.18212).
"""

from __future__ import annotations

import math
from contextlib import ExitStack

from torch import nn

from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.plan import format_layers
from lmms_topoprune.registry import repair
from lmms_topoprune.repair.job import Job
from lmms_topoprune.repair.probes import LogitsProbe, Probe
from lmms_topoprune.repair.weights import (
    NewWeights,
    divided,
    doubled_input,
    magnitude,
    multiplied,
    outer_projections,
)
from lmms_topoprune.surgery import identity_layers

_SAME = 0.01


@repair(
    "rescale",
    card="""\
The weights behind each deleted block were rescaled without training, to make up for the length that the block
would have given the hidden states (Prune&Comp, [arXiv:2507.18212](https://arxiv.org/abs/2507.18212)). These
weights are not the original ones.
""",
    figure="length factor of the cut at",
    paper="Chen et al., Prune&Comp: Free Lunch for Layer-Pruned LLMs, AAAI 2026",
    address="https://arxiv.org/abs/2507.18212",
    version=2,
)
def rescale(job: Job) -> tuple[NewWeights, dict[str, float]]:
    """Projections that add less behind each cut, and the factors.

    Raises:
        SurgeryError: the model's logits depend on the length of its hidden states.
    """
    behind = frozenset(range(job.cuts[0].stop, len(job.decoder.layers))) - job.dropped
    if not behind:
        return {}, {}  # only the final norm follows, which does not see the length
    probe = Probe(job.decoder, behind, outer_projections)
    job.passes.run(probe, peek=True)
    _check_norms(job, min(behind), [module for found in probe.found.values() for module in found])
    sums = job.sums()
    factors = {cut: magnitude(sums[cut].before, sums[cut].after) for cut in job.cuts}
    found: NewWeights = {}
    for layer in sorted(behind):
        factor = math.prod(value for cut, value in factors.items() if cut.stop <= layer)
        found.update({module: divided(module, factor) for module in probe.found[layer]})
    return found, {format_layers(cut): round(value, 6) for cut, value in factors.items()}


def _check_norms(job: Job, first: int, projections: list[nn.Linear]) -> None:
    """Hidden states twice as long, to which twice as much is added, have to give the same logits."""
    logits = []
    for factor in (1.0, 2.0):
        probe = LogitsProbe(job.model)
        with ExitStack() as stack:
            stack.enter_context(identity_layers(job.model, job.dropped))
            if factor != 1:
                stack.enter_context(doubled_input(job.decoder.layers[first]))
                stack.enter_context(multiplied(projections, factor))
            job.passes.run(probe, peek=True)
        assert probe.value is not None
        logits.append(probe.value)
    plain, scaled = logits
    if not (scaled - plain).norm() <= _SAME * (plain - plain.mean()).norm():
        raise SurgeryError(
            f"from layer {first} on its logits depend on the length of the hidden states, "
            "or a layer adds to them through something else than the linear maps of its parts"
        )
