"""Taylor importance: how much the loss would change, to first order, if a layer's weights were zero.

Kim et al., "Shortened LLaMA: Depth Pruning for Large Language Models with Comparison of Retraining
Methods" (arXiv 2402.02834), equation 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmms_topoprune.registry import criterion
from lmms_topoprune.selection import LayerScores

if TYPE_CHECKING:
    from torch import nn

    from lmms_topoprune.calibration.loss import LossOracle


@criterion(
    "taylor",
    summary="weights times gradients of the loss",
    paper="Kim et al., Shortened LLaMA: Depth Pruning for Large Language Models",
    address="https://arxiv.org/abs/2402.02834",
    state="none",
    loss=True,
)
def score(loss: LossOracle) -> LayerScores:
    """-sum over a layer's weight matrices of |w dL/dw|, L the mean loss over the calibration texts."""
    from lmms_topoprune.surgery import decoder_layers

    model = loss.model
    matrices = [[p for p in layer.parameters() if p.dim() >= 2] for layer in decoder_layers(model)]
    before = {p: p.requires_grad for p in model.parameters()}
    wanted = {p for layer in matrices for p in layer}
    try:
        for parameter in before:
            parameter.requires_grad_(parameter in wanted)
        _backward(loss)
        values = [sum(_importance(p) for p in layer) for layer in matrices]
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)
            parameter.grad = None
    return LayerScores(-np.array(values), "taylor")


def _backward(oracle: LossOracle) -> None:
    """Accumulate the gradient of the mean loss, one text at a time."""
    import torch

    from lmms_topoprune.calibration.collect import evaluation_mode
    from lmms_topoprune.calibration.loss import IGNORE

    tokens = sum(int((text.labels[:, 1:] != IGNORE).sum()) for text in oracle.texts)
    with evaluation_mode(oracle.model), torch.enable_grad():
        for loss, _ in oracle.losses():
            torch.autograd.backward(loss / tokens)


def _importance(parameter: nn.Parameter) -> float:
    if parameter.grad is None:
        return 0.0
    return (parameter.detach().float() * parameter.grad.float()).abs().sum().item()
