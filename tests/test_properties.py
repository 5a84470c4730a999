"""Identities of the inverse, for matrices that hypothesis draws from the catalogue and from small integers.

Every bound follows from LAPACK's test ratio alone, which all kernels keep (test_catalogue.py): Y = (I + E) A^-1 with

    |E| <= 30 n eps |A| |Y|    in the 1-norm

and carries the condition number of what was drawn. Few shapes, since each is compiled once for each dtype.
"""

import jax.numpy as jnp
import numpy as np
from _accuracy import norm
from _matrices import MATRICES, batch_of
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import jaxinv

settings.register_profile(
    "fixed", deadline=None, derandomize=True, database=None, max_examples=60, suppress_health_check=list(HealthCheck)
)
each = settings(settings.get_profile("fixed"))
SHAPES = [(1, 1), (2, 2), (5, 5), (9, 9), (17, 3, 3)]
DTYPES = [np.float32, np.float64, np.complex128]
# Where products of matrices, or of their norms, overflow in float32.
OVERFLOW = {"huge", "tiny", "lapack 10: near underflow", "lapack 11: near overflow"}
NAMES = tuple(MATRICES)
TAME = tuple(name for name in MATRICES if name not in OVERFLOW)


@st.composite
def drawn(draw, names=NAMES, count=1):
    """As many matrices, or batches of them, of one shape and dtype."""
    shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    out = []
    for _ in range(count):
        if draw(st.booleans()):
            entries = rng.integers(-3, 4, shape).astype(dtype)
        else:
            batch = shape[0] if len(shape) == 3 else 1
            entries = batch_of(draw(st.sampled_from(names)), shape[-1], batch, rng, dtype).reshape(shape)
        out.append(entries)
    return out[0] if count == 1 else out


tame, two_tame = drawn(names=TAME), drawn(names=TAME, count=2)


def inv(A):
    Y = np.asarray(jaxinv.inv(A))
    assert (Y.shape, Y.dtype) == (A.shape, A.dtype)
    assume(np.isfinite(Y).all())  # singular integers
    return Y


def wide(A):
    return A.astype(np.complex128)


def ratio(A):
    """What 30 n eps is for A."""
    return 30 * A.shape[-1] * np.finfo(A.dtype).eps


def assert_close(got, want, bound):
    assert (norm(wide(got) - wide(want)) <= bound).all()


@each
@given(tame)
def test_inverse_of_the_inverse_is_the_matrix(A):
    """Z Y = I + E1 and Y A = I + E2 give Z - A = E1 A - Z E2."""
    Y = inv(A)
    Z = inv(Y)
    assert_close(Z, A, 2 * ratio(A) * norm(wide(A)) * norm(wide(Y)) * norm(wide(Z)))


@each
@given(two_tame)
def test_inverse_of_a_product_is_the_product_of_the_inverses(matrices):
    """With the product exact: inv(AB) - inv(B) inv(A) = (E - Eb - inv(B) Ea B) (A B)^-1, each E by the ratio."""
    A, B = (wide(Z).round() for Z in matrices)  # integers, and products of them that are representable
    assume(max(np.abs(A).max(), np.abs(B).max()) < 1e6)
    Ya, Yb, Y = (inv(Z.astype(np.complex128)) for Z in (A, B, A @ B))
    residuals = norm(A @ B) * norm(Y) + norm(B) * norm(Yb) + norm(Yb) * norm(A) * norm(Ya) * norm(B)
    eps = ratio(Y) * residuals
    exact = norm(Y) / np.maximum(1 - eps, 0.1)  # of (A B)^-1, where eps is below one
    assume((eps < 0.5).all())
    assert_close(Y, Yb @ Ya, eps * exact)


@each
@given(tame)
def test_inverse_of_the_transpose_is_the_transpose(A):
    """(W A^T)^T = A W^T = I + E1^T, whose 1-norm is at most n times that of E1; Y A = I + E2."""
    Y, W = inv(A), inv(np.ascontiguousarray(A.swapaxes(-1, -2)))
    n, A_T = A.shape[-1], A.swapaxes(-1, -2)
    e1, e2 = ratio(A) * norm(wide(A_T)) * norm(wide(W)), ratio(A) * norm(wide(A)) * norm(wide(Y))
    assert_close(W.swapaxes(-1, -2), Y, (n * e1 + e2) * (1 + n * e1) * norm(wide(Y)) / np.maximum(1 - e2, 0.1))


@each
@given(tame, st.integers(-20, 20))
def test_power_of_two_scales_the_inverse_exactly(A, k):
    np.testing.assert_array_equal(inv(A * A.real.dtype.type(2.0**k)), inv(A) * A.real.dtype.type(2.0**-k))


@each
@given(drawn(), st.randoms(use_true_random=False))
def test_permuted_rows_and_columns_permute_the_inverse(A, random):
    """P A Q has the inverse Q^T Y P^T, both within the ratio of the exact one; permutations change no 1-norm."""
    n = A.shape[-1]
    p, q = random.sample(range(n), n), random.sample(range(n), n)
    Y, W = inv(A), inv(np.ascontiguousarray(A[..., p, :][..., q]))
    error = ratio(A) * norm(wide(A)) * np.maximum(norm(wide(Y)), norm(wide(W)))
    assert_close(W, Y[..., q, :][..., p], 2 * error * norm(wide(Y)) / np.maximum(1 - error, 0.1))


@each
@given(drawn())
def test_inv_ex_is_inv_with_its_condition_number(A):
    Y, rcond, singular = (np.asarray(Z) for Z in jaxinv.inv_ex(A))
    plain = np.asarray(jaxinv.inv(A))
    np.testing.assert_array_equal(singular, ~np.isfinite(plain).all((-2, -1)))
    np.testing.assert_array_equal(Y, np.where(singular[..., None, None], 0, plain))
    exact = 1 / np.where(singular, np.inf, norm(wide(A))) / np.where(singular, np.inf, norm(wide(Y)))
    np.testing.assert_allclose(rcond, exact, rtol=8 * A.shape[-1] * np.finfo(A.dtype).eps)


@each
@given(tame, st.integers(0, 8))
def test_log_determinant_of_multiples_transposes_and_inverses(A, k):
    """Elimination is exact for A + D with |D| <= 30 n eps |A|, so log det is off by n |D| |A^-1| or less."""
    n, Y = A.shape[-1], inv(A)
    _, sign, logabsdet = (np.asarray(Z) for Z in jaxinv.inv_logdet(A))
    error = n * ratio(A) * norm(wide(A)) * norm(wide(Y))
    assume((error < 0.1).all())
    bound = 4 * n * error + 4 * n * np.finfo(A.dtype).eps * (np.abs(logabsdet) + 8 * n)
    np.testing.assert_allclose(np.abs(sign), 1, rtol=4 * n * np.finfo(A.dtype).eps)
    of = lambda Z: np.asarray(jaxinv.inv_logdet(jnp.asarray(Z)).logabsdet)
    assert (np.abs(of(A.swapaxes(-1, -2)) - logabsdet) <= bound).all()
    assert (np.abs(of(A * A.real.dtype.type(2.0**k)) - logabsdet - n * k * np.log(2)) <= bound).all()
    assert (np.abs(of(Y) + logabsdet) <= bound).all()


@each
@given(tame)
def test_control_bounds_refuse_one_percent(A):
    """On what is far from singular, as half of the matrices drawn are."""
    Y = inv(A)
    bound = 2 * ratio(A) * norm(wide(A)) * norm(wide(Y)) ** 2
    assume((ratio(A) * norm(wide(A)) * norm(wide(Y)) < 1e-3).all())
    assert (norm(wide(1.01 * Y) - wide(Y)) > bound).all()
