"""Point clouds as arrays, and their Gram matrices with an error bound."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError

Floats = NDArray[np.floating]
UNIT = 2.0**-24  # rounding error of float32
_tf32 = threading.Lock()


def to_numpy(points: Any) -> Floats:
    """float32 and float64 stay as they are; 16-bit floats fit into float32, whole numbers into float64."""
    if isinstance(points, np.ndarray):
        if points.dtype in (np.float32, np.float64):
            return points
        return points.astype(np.float32 if points.dtype == np.float16 else np.float64)
    points = points.detach()
    return to_numpy((points if points.element_size() >= 4 else points.float()).cpu().numpy())


def exact_points(points: Floats, scale: Floats) -> NDArray[np.float64]:
    return points.astype(np.float64) * scale[..., None]


def scales(points: Floats, state: int, metric: str) -> NDArray[np.float64]:
    """(N,): factors that give each sample length one for "cosine", else 1."""
    with np.errstate(invalid="ignore", over="ignore"):
        suspicious = not np.isfinite(points.sum(0)).all()  # quicker than to look at every number
    if suspicious and len(bad := np.flatnonzero(~np.isfinite(points).all(1))):
        raise InputError(
            f"sample {bad[0]} of state {state} holds NaN or infinite numbers; allowed: finite numbers"
        )
    if metric == "euclidean":
        return np.ones(len(points))
    largest = np.abs(points).max(1).astype(np.float64)
    if (largest < np.finfo(float).tiny).any():
        raise InputError(
            f"sample {np.argmin(largest)} of state {state} is zero or nearly so and has no direction; "
            "allowed with metric 'cosine': non-zero samples"
        )
    scaled = points.astype(np.float64) / largest[:, None]
    return 1 / (largest * np.sqrt((scaled * scaled).sum(1)))


def gram_matrix(
    points: Floats, scale: NDArray[np.float64], device: Any, space: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """Inner products of the centered samples, and the relative error bound of distances from them.

    Subtracting one vector from all and multiplying all by one number moves no neighbor. Sums of d products
    are off by at most d * UNIT * |a| |b| in any order (Higham, "Accuracy and Stability", section 3.1), so
    |a|^2 + |b|^2 - 2ab by 2 d * UNIT * (|a|^2 + |b|^2); the rest covers the rounding of the samples.
    """
    simple = points.dtype == np.float32 and bool((scale == 1).all())
    if simple:
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(points, points.mean(0, dtype=np.float32), out=space)
    if not simple or not _within_range(space):
        exact = exact_points(points, scale)
        exact -= exact.mean(0)
        exact /= max(float(np.abs(exact).max()), np.finfo(float).tiny)
        space[:] = exact
    slack = (2.1 * points.shape[1] + 40) * UNIT
    if device is not None and device.type == "cuda":
        return _cuda_gram(space, device), slack
    return space @ space.T, slack


def _within_range(centered: NDArray[np.float32]) -> bool:
    """Whether squared lengths neither overflow nor vanish in float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        longest = float(np.einsum("nd,nd->n", centered, centered).max())
    return 1e-20 < longest < 1e30


def _cuda_gram(centered: NDArray[np.float32], device: Any) -> NDArray[np.float32]:
    import torch

    # The error bound is float32's. The switch belongs to the whole process, so one thread at a time.
    with _tf32, torch.autocast(device.type, enabled=False):
        allowed = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            there = torch.from_numpy(centered).to(device)
            return (there @ there.T).cpu().numpy()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = allowed
