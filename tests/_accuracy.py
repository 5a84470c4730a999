"""The kernels, and how accurate they are on the catalogue of hard matrices."""

from functools import cache, partial

import jax
import numpy as np
from _matrices import MATRICES, batch_of, exact_inverse

from jaxinv import _kernel_names, _kernels
from jaxinv._large_lu import Cuts, large_lu_inverse
from jaxinv._lu import turned_lu_inverse
from jaxinv._row_lu import row_lu_inverse

# Each kernel at both ends of its sizes, and where its panels do not fit n.
KERNELS = {
    "reciprocal": (1,),
    "fused LU": (2, 3, 4, 6, 8),
    "row LU": (3, 4, 5, 8),
    "panel Gauss-Jordan": (7, 9, 13, 24, 28, 36, 44),
    "blocked LU": (19, 33),
    "large LU": (33,),
    "batched LU": (2, 9, 20),
    "library LU": (9,),
    "turned LU": (9, 20),
    "LU in turn": (9, 33),
    "elementwise LU": (2, 4, 8),
    "elementwise Gauss-Jordan": (7, 9, 13),
    "LU and product": (9, 16, 32),
    "LU and blocks": (33, 40),
}
ONLY_ON_CPU = ("fused LU", "row LU", "panel Gauss-Jordan", "blocked LU", "large LU", "turned LU", "LU in turn")
DTYPES = (np.float32, np.float64, np.complex64, np.complex128)
DRAWS = 192  # of each matrix: whole tiles of each kernel, and enough to know a quantile of 0.9 within 2
CUTS = Cuts(4, 9, block_of_L=4, block_of_U=5, piece=20, group=3)  # of "large LU"
AS_THEY_ARE = 16  # of these; the rows of the others are scaled at random, so that a fixed matrix is drawn anew too


def is_tested(kernel, n, dtype):
    """Whether the table of kernels gives it matrices like these, and LAPACK by batches cannot wait for itself."""
    if kernel in ("batched LU", "library LU"):  # which differ for complex matrices
        return _kernel_names.LAPACK_BATCH_IS_SERIAL and (kernel == "batched LU" or np.dtype(dtype).kind == "c")
    platforms = (("cpu", batch) for batch in (1, 16, 1000, 10**6)), (("gpu", 10**6),)
    used = {_kernel_names.kernel_name(n, batch, dtype, platform) for each in platforms for platform, batch in each}
    if kernel == "elementwise Gauss-Jordan":  # where JAX has one device
        return n <= _kernel_names.GAUSS_JORDAN_UP_TO[np.dtype(dtype).name]
    if kernel == "row LU":  # where JAX has one device, of few matrices at least
        is_real = np.dtype(dtype).kind == "f"
        return n <= (_kernel_names.UNROLLED_UP_TO if is_real else _kernel_names.UNROLLED_COMPLEX_UP_TO)
    used |= {"fused LU"} if "row LU" in used else set()  # where JAX has several devices
    return (
        kernel in ("LU in turn", "turned LU")
        or kernel in used
        or (kernel == "large LU" and np.dtype(dtype).kind == "f")
    )


CASES = [
    (kernel, n, dtype) for kernel in KERNELS for n in KERNELS[kernel] for dtype in DTYPES if is_tested(kernel, n, dtype)
]


def inverse(kernel, X):
    """By a kernel of the CPU there, also where JAX has a GPU."""
    with jax.default_device(jax.devices("cpu")[0] if kernel in ONLY_ON_CPU else None):
        return _inverse(kernel, X)


@partial(jax.jit, static_argnums=0)
def _inverse(kernel, X):
    if kernel == "large LU":  # of much larger ones
        return large_lu_inverse(X, cuts=CUTS)[0]
    if kernel == "turned LU":  # of one, much larger
        return jax.lax.map(lambda X: turned_lu_inverse(X)[0], X)
    if kernel == "row LU":  # of one device
        return row_lu_inverse(X, with_factors=False)[0]
    return _kernels.KERNELS[kernel](X, with_factors=False)[0]


def relative_error(Y, exact):
    return np.abs(Y - exact).max((-2, -1)) / np.abs(exact).max((-2, -1))


def norm(M):
    """The 1-norm of each matrix."""
    return np.abs(M).sum(-2).max(-1)


def lapack_ratios(A, Y):
    """LAPACK's test ratios of an inverse, left and right: ||I - Y A|| / (n ||A|| ||Y|| eps), in the 1-norm."""
    n, eps = A.shape[-1], np.finfo(A.dtype).eps
    wide = {4: np.float64, 8: np.longdouble}[np.finfo(A.dtype).dtype.itemsize]
    wide = np.result_type(A.dtype, wide)
    A, Y = A.astype(wide), Y.astype(wide)
    scale = n * norm(A) * norm(Y) * eps
    return [norm(np.eye(n) - R) / scale for R in (Y @ A, A @ Y)]


def has_exact_inverse(kernel, n, dtype):
    """In exact arithmetic of some seconds; of larger complex matrices it takes minutes."""
    return n < 10 or (n < 40 and np.dtype(dtype).kind == "f")


@cache
def _exact_inverse(entries, dtype, n):
    return exact_inverse(np.frombuffer(entries, dtype).reshape(n, n))


class Measured:
    """The whole catalogue through a kernel: `A` and `Y`, arrays (DRAWS, n, n) by the names of the matrices."""

    def __init__(self, kernel, n, dtype):
        rng = np.random.default_rng(n)
        self.kernel, self.n, self.eps = kernel, n, np.finfo(dtype).eps
        self.A = {}
        for name in MATRICES:
            A = batch_of(name, n, DRAWS, rng, dtype)
            A[AS_THEY_ARE:] *= rng.uniform(0.5, 2, (DRAWS - AS_THEY_ARE, n, 1)).astype(A.real.dtype)
            self.A[name] = A
        self.whole = np.concatenate(list(self.A.values()))
        self.has_exact_inverse = has_exact_inverse(kernel, n, dtype)
        self.inverse = partial(inverse, kernel)
        self.Y = dict(zip(self.A, np.split(np.asarray(self.inverse(self.whole)), len(self.A)), strict=True))

    def is_invertible(self, name, margin=10):
        """Where the condition number is below 1 / (margin eps): 0.1 / eps, the last of LAPACK's types."""
        return np.linalg.cond(self.A[name].astype(complex), 1) < 1 / (margin * self.eps)

    def ratios(self, name):
        return [ratio.max() for ratio in lapack_ratios(self.A[name][:AS_THEY_ARE], self.Y[name][:AS_THEY_ARE])]

    def exact(self, name):
        """The inverse of the first draw."""
        A = self.A[name][0]
        return _exact_inverse(A.tobytes(), A.dtype, self.n)

    def error(self, name):
        """The error of the first draw over n eps cond, in the 1-norm."""
        A, Y, exact = self.A[name][0], self.Y[name][0], self.exact(name)
        return norm(Y - exact) / norm(exact) / (self.n * self.eps * norm(A.astype(exact.dtype)) * norm(exact))
