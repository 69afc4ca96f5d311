"""Point clouds: what is allowed as one, and their inner products with an error bound."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmms_topoprune.errors import InputError, OptionError, unknown

MOST = 8  # beyond it memory traffic decides


def thread_count() -> int:
    """OMP_NUM_THREADS if it is set to a number, else the processors this process may use; at most 8."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return min(int(asked), MOST)
    try:
        return min(len(os.sched_getaffinity(0)), MOST)
    except AttributeError:  # not on Linux
        return min(os.cpu_count() or 1, MOST)


Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
METRICS = ("euclidean", "cosine")
UNIT = 2.0**-24  # rounding error of float32
_tf32 = threading.Lock()


def checked(states: Any, k: int, metric: str) -> Any:
    """The states as they are used.

    Raises:
        InputError: they are no array (S, N, d) of real numbers.
        OptionError: there is no such metric, or k is not between 1 and N - 1.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if isinstance(states, list | tuple) and states and all(hasattr(s, "detach") for s in states):
        import torch

        if len({(s.shape, s.dtype, s.device) for s in states}) > 1:
            raise InputError(
                "states differ in shape, type or device; allowed: (states, points, width) of one type"
            )
        states = torch.stack(list(states))
    if hasattr(states, "detach"):
        if states.is_complex() or str(states.dtype) == "torch.bool":
            raise InputError(f"states hold {states.dtype}; allowed: real numbers")
    else:
        try:
            states = np.asarray(states)
        except ValueError:
            raise InputError("states have different shapes; allowed: (states, points, width)") from None
        if states.dtype.kind not in "fiu":
            raise InputError(f"states hold {states.dtype}; allowed: real numbers")
    if states.ndim != 3 or 0 in states.shape:
        raise InputError(f"states has shape {tuple(states.shape)}; allowed: (states, points, width), none 0")
    if not whole(k) or not 1 <= k < states.shape[1]:
        raise OptionError(
            f"k is {k} for {states.shape[1]} points; allowed: whole numbers from 1 to points - 1 "
            f"({states.shape[1] - 1})"
        )
    return states


def whole(number: object) -> bool:
    """Whether it is a whole number, which True and 1.0 are not."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def to_numpy(points: Any) -> Floats:
    """float32 and float64 stay as they are; 16-bit floats fit into float32, whole numbers into float64."""
    if isinstance(points, np.ndarray):
        if points.dtype in (np.float32, np.float64):
            return np.ascontiguousarray(points)
        return points.astype(np.float32 if points.dtype == np.float16 else np.float64)
    points = points.detach()
    return to_numpy((points if points.element_size() >= 4 else points.float()).cpu().numpy())


@dataclass(frozen=True)
class Cloud:
    """The N points of one state, ready for distances.

    Attributes:
        points: (N, d) as given; point n is weight[n] * points[n].
        weight: (N,) 1 for "euclidean"; for "cosine" what gives each point length one.
        middle: (d,) what was taken from every point, in units of 2 ** exponent.
        exponent: 0, unless float32 could not hold the squared lengths.
        centered: (N, d) float32, (points - middle) * 2 ** -exponent.
        length: (N,) a bound on the centered points' lengths.
        device: where inner products are computed; None for NumPy.
    """

    points: Floats
    weight: Doubles
    middle: Doubles
    exponent: int
    centered: NDArray[np.float32]
    square: Doubles
    length: Doubles
    device: Any

    @classmethod
    def of(cls, given: Any, state: int, metric: str, space: NDArray[np.float32] | None = None) -> Cloud:
        """`space` (N, d) is scratch memory: fresh pages for each state would cost as much as BLAS.

        Raises:
            InputError: a point is not finite, or is zero where the metric is "cosine".
        """
        device = None if isinstance(given, np.ndarray) else given.device
        points = to_numpy(given)
        space = np.empty(points.shape, dtype=np.float32) if space is None else space
        weight = np.ones(len(points)) if metric == "euclidean" else _directions(points, state)
        exponent, (middle, square) = 0, _centered(points, weight, 0, space)
        if not 1e-20 < square.max() < 1e30:  # not a number is refused below
            if len(bad := np.flatnonzero(~np.isfinite(points).all(1))):
                raise _not_finite(bad[0], state)
            exponent = int(np.clip(np.frexp((np.abs(points).max(1) * weight).max())[1], -1000, 1000))
            middle, square = _centered(points, weight, exponent, space)
        length = np.sqrt(square)
        if points.dtype == np.float64 or metric == "cosine":  # float64 rounds before the middle is taken off
            largest = np.ldexp(np.abs(points).max(1) * weight, -exponent)
            length = length + 2.0**-26 * np.sqrt(points.shape[1]) * largest
        return cls(points, weight, middle, exponent, space, square, length, device)


def _not_finite(sample: int, state: int) -> InputError:
    return InputError(
        f"sample {sample} of state {state} holds NaN or infinite numbers; allowed: finite numbers"
    )


def _directions(points: Floats, state: int) -> Doubles:
    """(N,): factors that give each point length one."""
    largest = np.abs(points).max(1).astype(np.float64)
    if len(bad := np.flatnonzero(~np.isfinite(largest))):
        raise _not_finite(bad[0], state)
    if (largest < np.finfo(float).tiny).any():
        raise InputError(
            f"sample {np.argmin(largest)} of state {state} is zero or nearly so and has no direction; "
            "allowed with metric 'cosine': non-zero samples"
        )
    scaled = points / largest[:, None]
    return 1 / (largest * np.sqrt(np.einsum("nd,nd->n", scaled, scaled)))


def _centered(
    points: Floats, weight: Doubles, exponent: int, space: NDArray[np.float32]
) -> tuple[Doubles, Doubles]:
    """Fill `space`; the vector that was taken off, and the squared lengths that are left.

    Subtracting one vector from all and multiplying all by one number moves no neighbor.
    """
    from lmms_topoprune.topology._kernels.nearest import center  # compiled on import

    weight, square = np.ldexp(weight, -exponent), np.empty(len(points))
    with np.errstate(over="ignore", invalid="ignore"):
        middle = (weight.astype(points.dtype) @ points / len(points)).astype(np.float64)
    middle = np.where(np.isfinite(middle), middle, 0.0)
    center(points, weight, middle, space, square)
    return middle, square


def inner_products(one: Cloud, other: Cloud) -> NDArray[np.float32]:
    """(N, N) float32, wrong by at most `slack` times the product of the lengths."""
    device = one.device
    if device is not None and device.type == "cuda":
        return _cuda_products(one.centered, other.centered, device)
    return one.centered @ other.centered.T


def slack(width: int) -> float:
    """Relative error bound of twice an inner product of `width` products, in whatever order they are added.

    Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1; the rest covers the rounding of
    the points.
    """
    return (2.1 * width + 40) * UNIT


def _cuda_products(one: NDArray[np.float32], other: NDArray[np.float32], device: Any) -> NDArray[np.float32]:
    import torch

    # The error bound is float32's. The switch belongs to the whole process, so one thread at a time.
    with _tf32, torch.autocast(device.type, enabled=False):
        allowed = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            there = torch.from_numpy(one).to(device)
            others = there if other is one else torch.from_numpy(other).to(device)
            return (there @ others.T).cpu().numpy()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = allowed
