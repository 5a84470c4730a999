"""Errors of computed inverses and derivatives, measured in float64 on the host."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

LIMIT = 30.0  # LAPACK's own threshold for its test ratios, LAPACK Working Note 41


def in_double(A: ArrayLike) -> NDArray:
    """`A` on the host, as float64 or complex128."""
    A = np.asarray(A)
    return A.astype(np.complex128 if A.dtype.kind == "c" else np.float64)


def one_norm(A: NDArray) -> NDArray:
    """The largest column sum of magnitudes, of each matrix (..., n, n)."""
    return np.abs(A).sum(-2).max(-1, initial=0.0)


def inverse_ratio(X: ArrayLike, Y: ArrayLike, eps: float) -> float:
    """The worst of three ratios over the inverses `Y` of the matrices `X`; at most `LIMIT` if they are right.

    |I - Y X| / (n eps |X| |Y|), the same with X Y, and the forward error |Y - R| / (n eps |X| |R|^2) against the
    float64 inverse R, in 1-norms. Inf if anything is not finite.
    """
    X, Y = in_double(X), in_double(Y)
    R = np.linalg.inv(X)
    n, identity = X.shape[-1], np.eye(X.shape[-1])
    unit = n * eps * one_norm(X)
    with np.errstate(all="ignore"):
        ratios = (
            one_norm(identity - Y @ X) / (unit * one_norm(Y)),
            one_norm(identity - X @ Y) / (unit * one_norm(Y)),
            one_norm(Y - R) / (unit * one_norm(R) ** 2),
        )
    return _worst(np.stack(ratios))


def derivative_ratio(value: ArrayLike, reference: ArrayLike, X: ArrayLike, eps: float) -> float:
    """max |value - reference| / max |reference| in units of n eps cond(X), for derivatives at one matrix or a batch."""
    X = in_double(X)
    unit = X.shape[-1] * eps * np.max(one_norm(X) * one_norm(np.linalg.inv(X)))
    return relative_error(value, reference) / float(unit)


def relative_error(value: ArrayLike, reference: ArrayLike) -> float:
    """max |value - reference| / max |reference|; inf if `value` is not finite or has another shape."""
    value, reference = in_double(value), in_double(reference)
    if value.shape != reference.shape:
        return float("inf")
    return _worst(np.abs(value - reference) / np.max(np.abs(reference)))


def frobenius_error(value: ArrayLike, reference: ArrayLike) -> float:
    """The largest |value - reference| / |reference| of a batch of matrices, in Frobenius norms; inf if not finite."""
    value, reference = in_double(value), in_double(reference)
    with np.errstate(all="ignore"):
        errors = np.linalg.norm(value - reference, axis=(-2, -1)) / np.linalg.norm(reference, axis=(-2, -1))
    return _worst(errors)


def _worst(ratios: NDArray) -> float:
    return float(np.max(np.where(np.isfinite(ratios), ratios, np.inf), initial=0.0))
