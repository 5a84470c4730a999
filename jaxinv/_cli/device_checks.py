"""Checks of this device: each computes on the device what NumPy computes in float64, and returns its worst error ratio.

The ratios are in the units of rounding (see `_accuracy`): a few at most where all is well, above `LIMIT` where not.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import DTypeLike, NDArray

import jaxinv
from jaxinv._cli.accuracy import derivative_ratio, in_double, inverse_ratio
from jaxinv._cli.bench_rivals import in_mode


def run_check(name: str) -> float:
    """The worst error ratio of the check of that name in `CHECKS`, at most `LIMIT` where it passes."""
    return CHECKS[name]()


def _accuracy(dtype: str, sizes: tuple[int, ...]) -> float:
    return max(_inverse_ratio(jax.jit(jaxinv.inv), _hard_matrices(n, dtype)) for n in sizes)


def _eager(dtype: str) -> float:
    return max(_inverse_ratio(jaxinv.inv, _hard_matrices(n, dtype)[0]) for n in (1, 9))


def _gradient(dtype: str) -> float:
    X, G, Y = _regular(4, dtype)
    pullback = jax.jit(lambda X, G: jax.vjp(jaxinv.inv, X)[1](G)[0])
    return _derivative_ratio(pullback(X, G), -Y.T @ in_double(G) @ Y.T, X)


def _forward_mode(dtype: str) -> float:
    X, dX, Y = _regular(4, dtype)
    _, dY = jax.jit(lambda X, dX: jax.jvp(jaxinv.inv, (X,), (dX,)))(X, dX)
    return _derivative_ratio(dY, -Y @ in_double(dX) @ Y, X)


def _second_order(second: Callable[..., Callable[..., Array]]) -> float:
    """d2L / dX_kl dX_mn = P_kn Y_lm + P_ml Y_nk with P = Y^T G Y^T, for L = sum(G * Y)."""
    X, G, Y = _regular(3, "float64")
    P = Y.T @ in_double(G) @ Y.T
    hessian = np.einsum("kn,lm->klmn", P, Y) + np.einsum("ml,nk->klmn", P, Y)
    return _derivative_ratio(jax.jit(second(_loss))(X, G), hessian, X)


def _tensor() -> float:
    X, _, Y = _regular(4, "float64")
    return _derivative_ratio(jaxinv.inv_jacobian(X), -np.einsum("ik,lj->ijkl", Y, Y), X)


def _vmap() -> float:
    X = _hard_matrices(3, "float32")[:6].reshape(2, 3, 3, 3)
    mapped = jax.vmap(jax.vmap(jaxinv.inv, in_axes=2, out_axes=1), in_axes=1)  # batch axes in odd places
    Y = jax.jit(mapped)(_on_device(X.transpose(2, 0, 3, 1)))  # axes: first batch, row, second batch, column
    return inverse_ratio(X, in_double(Y).transpose(0, 2, 1, 3), _eps("float32"))


def _vmap_gradient() -> float:
    X, G, Y = _regular(5, "float64", 3)
    Yt = Y.swapaxes(-2, -1)
    return _derivative_ratio(jax.jit(jax.vmap(jax.grad(_loss)))(X, G), -Yt @ in_double(G) @ Yt, X)


def _scan_gradient() -> float:
    """Through three inverses in a scan, of which two undo each other: the rounding of three."""
    X, G, Y = _regular(4, "float64")

    def loss(X: Array, G: Array) -> Array:
        return jnp.sum(G * jax.lax.scan(lambda Z, _: (jaxinv.inv(Z), None), X, None, length=3)[0])

    return _derivative_ratio(jax.jit(jax.grad(loss))(X, G), -Y.T @ in_double(G) @ Y.T, X) / 3


def _singular() -> float:
    """A singular matrix gives nothing finite, and changes no bit of the others' inverses and gradients."""
    inverse_and_gradient = jax.jit(lambda X: (jaxinv.inv(X), jax.vjp(jaxinv.inv, X)[1](X)[0]))
    others = np.array([0, 1, 3])
    for n in (2, 3, 20):
        X = np.asarray(_regular(n, "float32", 4)[0])
        planted = X.copy()
        planted[2, -1] = 0.0
        before, after = ([np.asarray(A) for A in inverse_and_gradient(_on_device(B))] for B in (X, planted))
        same = all(np.array_equal(b[others], a[others]) for b, a in zip(before, after, strict=True))
        if not same or np.all(np.isfinite(after[0][2])):
            return float("inf")
    return 0.0


def _large_batch(n: int) -> float:
    """Batches beyond 2^16 once gave silently wrong results on XLA:CPU (jax#39103), and larger ones have own kernels."""
    X, G, Y = _regular(n, "float32", 65537)
    Yt = Y.swapaxes(-2, -1)
    inverse, X_bar = jax.jit(in_mode("gradient", jaxinv.inv))(X, G)
    ratio = inverse_ratio(np.asarray(X), np.asarray(inverse), _eps("float32"))
    return max(ratio, _derivative_ratio(X_bar, -Yt @ in_double(G) @ Yt, X))


CHECKS: dict[str, Callable[[], float]] = {
    "accuracy float32": partial(_accuracy, "float32", (2, 3, 17, 64)),
    "accuracy float64": partial(_accuracy, "float64", (4, 33)),
    "accuracy complex64": partial(_accuracy, "complex64", (3, 17)),
    "accuracy complex128": partial(_accuracy, "complex128", (2,)),
    "accuracy bfloat16": partial(_accuracy, "bfloat16", (3,)),
    "eager": partial(_eager, "float32"),
    "batch of 65537": partial(_large_batch, 3),
    "batch of 65537, n = 9": partial(_large_batch, 9),
    "gradient float32": partial(_gradient, "float32"),
    "gradient float64": partial(_gradient, "float64"),
    "gradient complex128": partial(_gradient, "complex128"),
    "jvp float64": partial(_forward_mode, "float64"),
    "jvp complex128": partial(_forward_mode, "complex128"),
    "hessian": partial(_second_order, jax.hessian),
    "reverse over reverse": partial(_second_order, lambda f: jax.jacrev(jax.grad(f))),
    "Jacobian tensor": _tensor,
    "vmap of vmap": _vmap,
    "vmap of grad": _vmap_gradient,
    "grad of scan": _scan_gradient,
    "singular stays alone": _singular,
}


def _loss(X: Array, G: Array) -> Array:
    return jnp.sum(G * jaxinv.inv(X))


def _inverse_ratio(inv: Callable[[Array], Array], X: NDArray) -> float:
    return inverse_ratio(X, np.asarray(inv(_on_device(X))), _eps(X.dtype))


def _derivative_ratio(value: Array, reference: NDArray, X: Array) -> float:
    return derivative_ratio(np.asarray(value), reference, np.asarray(X), _eps(X.dtype))


def _eps(dtype: DTypeLike) -> float:
    return float(jnp.finfo(dtype).eps)


def _on_device(A: NDArray) -> Array:
    jax.config.update("jax_enable_x64", A.dtype in (np.float64, np.complex128))
    return jnp.asarray(A)


def _regular(n: int, dtype: str, *batch: int) -> tuple[Array, Array, NDArray]:
    """X, permuted identities with noise; another such G; and the inverse of X in float64."""
    rng = np.random.default_rng(n)
    X, G = (np.roll(np.eye(n), 1, axis=0) + _noise(rng, (*batch, n, n), dtype) / (3 * n) for _ in range(2))
    X, G = X.astype(dtype), G.astype(dtype)
    return _on_device(X), _on_device(G), np.linalg.inv(in_double(X))


def _hard_matrices(n: int, dtype: str) -> NDArray:
    """Random, triangular, graded, of condition sqrt(0.1 / eps), nearly of rank one, and scaled by 2^30 and 2^-30."""
    rng = np.random.default_rng(n)
    random = _noise(rng, (7, n, n), dtype)
    left, right = np.linalg.qr(random[0])[0], np.linalg.qr(random[1])[0]
    kappa = np.sqrt(0.1 / _eps(dtype))
    values = np.geomspace(1.0, 1.0 / kappa, n)
    rank_one = np.append(1.0, np.full(n - 1, 1.0 / kappa))
    kinds = [
        random[2] + 2 * np.eye(n)[rng.permutation(n)],
        np.triu(random[3]) / n + np.eye(n),
        random[4] / n * np.geomspace(1e-3, 1.0, n) + np.diag(np.geomspace(1e-3, 1.0, n)),
        (left * values) @ right,
        (left * rank_one) @ right,
        2.0**30 * (left * values[::-1]) @ right,
        2.0**-30 * (right * values) @ left,
    ]
    return np.stack(kinds).astype(jnp.dtype(dtype))


def _noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray:
    Z = rng.uniform(-1.0, 1.0, shape)
    return Z + 1j * rng.uniform(-1.0, 1.0, shape) if jnp.dtype(dtype).kind == "c" else Z
