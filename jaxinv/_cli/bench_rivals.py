"""What `inv`, or `inv_logdet` in the mode `logdet`, is measured against.

torch, CuPy and SciPy are optional: their rivals are absent where they are not installed.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

import jaxinv
from jaxinv._cli.bench_cases import Case
from jaxinv._cli.environment import thread_count

RIVALS = ("builtin", "copy", "matmul", "general", "separate", "torch", "cupy", "lapack")


class Contender(NamedTuple):
    """A call, the matrices that it treats, what waits for the work of a result, and what compiling it cost."""

    call: Callable[[], Any]
    matrices: int
    wait: Callable[[Any], object] = lambda _: None
    compile_seconds: float | None = None
    temp_bytes: int | None = None


def in_mode(mode: str, inv: Callable[..., Any]) -> Callable[..., Any]:
    """The function of (X, Z) that a mode computes with an inverse: Z is the cotangent G or the tangent dX."""

    def gradient(X: Array, G: Array) -> tuple[Array, Array]:
        Y, pullback = jax.vjp(inv, X)
        return Y, pullback(G)[0]

    def jvp(X: Array, dX: Array) -> tuple[Array, Array]:
        return jax.jvp(inv, (X,), (dX,))

    return {"gradient": gradient, "jvp": jvp}.get(mode, lambda X, _: inv(X))


def ours(case: Case) -> Callable[..., Any]:
    f = jaxinv.inv_logdet if case.mode == "logdet" else jaxinv.inv
    return in_mode(case.mode, f if case.assume_a == "general" else partial(f, assume_a=case.assume_a))


def builtin(case: Case) -> Callable[..., Any]:
    """`jnp.linalg.inv`, with the log-determinant `jnp.linalg.slogdet` beside it."""
    both = lambda X: (jnp.linalg.inv(X), *jnp.linalg.slogdet(X))
    return in_mode(case.mode, both if case.mode == "logdet" else jnp.linalg.inv)


def separate(case: Case) -> Callable[..., Any] | None:
    """Instead of `inv_logdet`, our inverse and `jnp.linalg.slogdet`."""
    if case.mode != "logdet":
        return None
    inv = jaxinv.inv if case.assume_a == "general" else partial(jaxinv.inv, assume_a=case.assume_a)
    return lambda X, _: (inv(X), *jnp.linalg.slogdet(X))


def without_structure(case: Case) -> Callable[..., Any] | None:
    """Ours, of the same matrices as if they were general."""
    return None if case.assume_a == "general" else ours(case._replace(assume_a="general"))


def copy_of(mode: str) -> Callable[..., Any]:
    """As many bytes read and written as the mode has to."""
    return (lambda X, _: X + 1) if mode in ("forward", "logdet") else (lambda X, Z: (X + 1, Z + 1))


def matmul(X: Array, _: Array) -> Array:
    return jnp.matmul(X, X, precision=lax.Precision.HIGHEST)


def torch_contender(case: Case, X: NDArray, Z: NDArray) -> Contender | None:
    """`torch.linalg.inv` with as many threads as JAX, on a GPU where JAX is on one."""
    platform = jax.default_backend()
    if not find_spec("torch") or platform not in ("cpu", "gpu") or case.mode == "logdet":
        return None
    import torch

    if platform == "gpu" and not torch.cuda.is_available():
        return None
    torch.set_num_threads(thread_count())
    place = "cuda" if platform == "gpu" else "cpu"
    x, z = (torch.from_numpy(A.copy()).to(place) for A in (X, Z))
    leaf = x.clone().requires_grad_()

    def gradient() -> Any:
        y = torch.linalg.inv(leaf)
        return y, torch.autograd.grad(y, leaf, z)

    calls: dict[str, Callable[[], Any]] = {
        "forward": lambda: torch.linalg.inv(x),
        "gradient": gradient,
        "jvp": lambda: torch.func.jvp(torch.linalg.inv, (x,), (z,)),
    }
    wait = (lambda _: torch.cuda.synchronize()) if place == "cuda" else (lambda _: None)
    return Contender(calls[case.mode], case.batch, wait)


def cupy_contender(case: Case, X: NDArray) -> Contender | None:
    """`cupy.linalg.inv`, on a GPU, the inverse alone."""
    if not find_spec("cupy") or jax.default_backend() != "gpu" or case.mode != "forward":
        return None
    import cupy

    x = cupy.asarray(X)
    return Contender(lambda: cupy.linalg.inv(x), case.batch, lambda _: cupy.cuda.Device().synchronize())


def lapack_contenders(case: Case, X: NDArray) -> dict[str, Contender]:
    """SciPy's `inv`, and a loop over LAPACK's getrf and getri: the inverse alone, over some 20 ms of the batch."""
    if not find_spec("scipy") or case.mode != "forward" or jax.default_backend() != "cpu":
        return {}
    import scipy.linalg

    seconds = 3e-6 + 2 * case.n**3 / 5e9  # a guess for one matrix
    some = X.reshape(-1, case.n, case.n)[: max(1, int(0.02 / seconds))]
    getrf, getri, workspace = scipy.linalg.get_lapack_funcs(("getrf", "getri", "getri_lwork"), (some,))
    lwork = int(np.real(workspace(case.n)[0]))

    def loop() -> None:
        for A in some:
            lu, pivots, _ = getrf(A)
            getri(lu, pivots, lwork=lwork, overwrite_lu=True)

    return {
        "scipy": Contender(lambda: scipy.linalg.inv(some, check_finite=False), len(some)),
        "getri": Contender(loop, len(some)),
    }
