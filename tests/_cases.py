"""Matrices with a prescribed condition number, the float64 oracle and its bound, and the comparison of trees."""

import contextlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np

COND = 10.0
BATCHES = [(), (0,), (1,), (5,), (3, 1, 2), (17,)]


def matrices(n, batch=(), *, dtype=np.float64, cond=COND, seed=0):
    """Random matrices of shape batch + (n, n), singular values from 1 down to 1 / cond in equal ratios."""
    rng = np.random.default_rng([seed, n, zlib.crc32(repr(batch).encode())])
    values = np.geomspace(1, 1 / cond, n)
    X = _orthogonal(rng, n, batch, dtype) @ (values[:, None] * _orthogonal(rng, n, batch, dtype))
    return X.astype(dtype)


def _orthogonal(rng, n, batch, dtype):
    Z = rng.standard_normal((*batch, n, n))
    if np.issubdtype(dtype, np.complexfloating):
        Z = Z + 1j * rng.standard_normal((*batch, n, n))
    return np.linalg.qr(Z)[0] if Z.size else Z


def assert_is_inverse(Y, X, *, cond=COND):
    """Each matrix of Y is the inverse of that of X: the error is below c n eps cond of its Frobenius norm, c = 1.

    Elimination with partial pivoting has an error of about growth * sqrt(n) * eps * cond, and the growth is a small
    power of n for matrices like these. Half precision is computed in float32 and rounded once, which adds half an eps
    of its own.
    """
    error, bound = inverse_error(Y, X), inverse_bound(Y.dtype, Y.shape[-1], cond)
    assert np.all(error <= bound), f"error {np.max(error):.2e} above {bound:.2e}"


def inverse_error(Y, X):
    """Frobenius norm of Y - X^-1 over that of X^-1, a number a matrix."""
    wide = np.complex128 if jnp.issubdtype(Y.dtype, jnp.complexfloating) else np.float64
    oracle = np.linalg.inv(np.asarray(X).astype(wide))
    difference = np.linalg.norm(np.asarray(Y).astype(wide) - oracle, axis=(-2, -1))
    return difference / np.maximum(np.linalg.norm(oracle, axis=(-2, -1)), np.finfo(wide).tiny)


def inverse_bound(dtype, n, cond=COND):
    eps = float(jnp.finfo(dtype).eps)
    if jnp.finfo(dtype).bits >= 32:
        return n * eps * cond
    return n * float(jnp.finfo(jnp.float32).eps) * cond + eps / 2


def assert_trees_close(ours, theirs, rtol):
    """Same structure, shapes and dtypes; each leaf within rtol of its largest entry."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        error, scale = np.max(np.abs(x - y), initial=0), np.max(np.abs(y), initial=0)
        assert error <= rtol * scale, f"error {error:.2e} above {rtol:.0e} of {scale:.2e}"


@contextlib.contextmanager
def x64_off():
    """64-bit types off, as JAX starts."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
