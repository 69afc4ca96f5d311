"""Repair by a linear map: what the projection before a cut adds is mapped so that it adds the block as well.

The least-squares form of ReplaceMe (Shopkhoev et al., NeurIPS 2025, arXiv 2505.02819).
"""

from __future__ import annotations

from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.plan import format_layers
from lmms_topoprune.registry import repair
from lmms_topoprune.repair.job import Job
from lmms_topoprune.repair.weights import NewWeights, linear_map, mapped, missed

RIDGE = 1e-2
"""Weight of the pull towards no repair, relative to the mean square of what the projection adds."""


@repair(
    "linear",
    card="""\
The weights before each deleted block were repaired without training: what the last linear map before the
cut adds to the hidden states is mapped, by least squares over calibration tokens, so that the sum comes
closest to what the block would have given (ReplaceMe, [arXiv:2505.02819](https://arxiv.org/abs/2505.02819)).
These weights are not the original ones.
""",
    figure="still missed behind the cut at",
    paper="Shopkhoev et al., ReplaceMe: Network Simplification via Depth Pruning, NeurIPS 2025",
    address="https://arxiv.org/abs/2505.02819",
    projected=True,
    ridge=RIDGE,
    version=2,
)
def linear(job: Job) -> tuple[NewWeights, dict[str, float]]:
    """New projections, and the share of each block that is still missed.

    Raises:
        SurgeryError: no layer before a cut can take it up.
    """
    if job.cuts[0].start == 0:
        raise SurgeryError("layer 0 is deleted, and no layer before it could take it up; keep layer 0")
    projections = job.projections_before(job.cuts)
    found: NewWeights = {}
    left = {}
    for cut, sums in job.sums(projected=True).items():
        assert sums.gram is not None and sums.cross is not None
        best = linear_map(sums.gram, sums.cross, job.facts["ridge"])
        found[projections[cut].module] = mapped(projections[cut].module, best)
        left[format_layers(cut)] = round(missed(sums.gram, sums.cross, float(sums.change), best), 4)
    return found, left
