"""The measurement of one case: first the answer is checked, then it is timed beside its rivals."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxinv._cli.accuracy import frobenius_error, in_double
from jaxinv._cli.bench_cases import Case
from jaxinv._cli.bench_rivals import (
    Contender,
    builtin,
    copy_of,
    cupy_contender,
    lapack_contenders,
    matmul,
    ours,
    separate,
    torch_contender,
    without_structure,
)
from jaxinv._kernel_names import kernel_name
from jaxinv._structure import projection

# Of calls before a sample: OpenBLAS, which JAX calls on CPU, has its threads spin for 100 ms after they were used.
SETTLE_SECONDS = 0.15
SAMPLE_SECONDS = 2e-3  # a sample is as many calls as fill this
# Elsewhere the calls of a sample are queued, so that the device does not wait for Python: on an NVIDIA H200 a call that
# was waited for took 0.3 to 0.5 ms more.
SAMPLE_SECONDS_OF_QUEUE = 2e-2
CASE_SECONDS = 10.0  # after three rounds, no further one once they took this
ORACLE_FLOPS = 2e10  # of a larger batch, as many matrices are checked
ORACLE_FLOPS_OF_CALL = 4e4  # as long as NumPy takes for a matrix of one row
PERMUTATIONS = 2**16  # in turn, in larger batches


def measure(case: Case, rivals: Sequence[str], repeats: int) -> dict[str, Any]:
    """The error of our function on a case and, where that is small, the times of it and of `rivals` in turns.

    Returns:
        A dictionary for JSON: `error` and `error_limit`, relative, in the Frobenius norm; `kernel`; and under `times`
        for "ours" and each rival that there is: the median of the seconds a matrix, the ratio rival / ours as quartiles
        over the rounds, seconds to compile, bytes of temporary memory. No `times` where the error is too large.
    """
    prepared = _prepare(case)
    products_follow = case.mode in ("gradient", "jvp")
    kernel = kernel_name(case.n, case.batch, case.dtype, jax.default_backend(), case.assume_a, products_follow)
    result = {"error": prepared.error, "error_limit": prepared.error_limit, "kernel": kernel}
    if not prepared.error <= prepared.error_limit:
        return result
    contenders = {"ours": prepared.ours} | _contenders(case, prepared, rivals)
    rounds = interleave(contenders, repeats)
    ours = np.array(rounds["ours"])
    times = {}
    for name, contender in contenders.items():
        seconds = np.array(rounds[name])
        times[name] = {
            "seconds_per_matrix": float(np.median(seconds)),
            "ratio": [float(q) for q in np.quantile(seconds / ours, (0.25, 0.5, 0.75))],
            "compile_seconds": contender.compile_seconds,
            "temp_bytes": contender.temp_bytes,
            "rounds": [float(s) for s in seconds],
        }
    return result | {"times": times}


class _Prepared(NamedTuple):
    host: tuple[NDArray, NDArray]
    device: tuple[Array, Array]
    ours: Contender
    error: float
    error_limit: float


@lru_cache(maxsize=1)
def _prepare(case: Case) -> _Prepared:
    jax.config.update("jax_enable_x64", case.dtype in ("float64", "complex128"))
    jax.config.update("jax_enable_compilation_cache", False)
    jax.clear_caches()
    jax.jit(lambda X: X + 1)(jnp.zeros(3)).block_until_ready()  # JAX itself is awake before the clock starts
    X, Z = matrices(case._replace(mode="forward"))
    on_device = jnp.asarray(X), jnp.asarray(Z)
    contender = compiled(ours(case), on_device, case)
    error = _error(case, X, Z, contender.call())
    return _Prepared((X, Z), on_device, contender, error, 100 * np.sqrt(case.n) * float(jnp.finfo(case.dtype).eps))


def _contenders(case: Case, prepared: _Prepared, rivals: Sequence[str]) -> dict[str, Contender]:
    X, Z = prepared.host
    makers: dict[str, Callable[[], Contender | None]] = {
        "copy": lambda: compiled(copy_of(case.mode), prepared.device, case),
        "matmul": lambda: compiled(matmul, prepared.device, case),
        "builtin": lambda: compiled(builtin(case), prepared.device, case),
        "torch": lambda: torch_contender(case, X, Z),
        "cupy": lambda: cupy_contender(case, X),
    }
    for name, function in (("general", without_structure(case)), ("separate", separate(case))):
        if function:
            makers[name] = partial(compiled, function, prepared.device, case)
    made = {name: makers[name]() for name in rivals if name in makers}
    lapack = lapack_contenders(case, X) if "lapack" in rivals else {}
    return {name: contender for name, contender in made.items() if contender} | lapack


def compiled(function: Callable[..., Any], arguments: tuple[Array, Array], case: Case) -> Contender:
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()
    return Contender(
        lambda: program(*arguments),
        case.batch,
        jax.block_until_ready,
        seconds,
        None if memory is None else int(memory.temp_size_in_bytes),
    )


def interleave(contenders: dict[str, Contender], repeats: int) -> dict[str, list[float]]:
    """Seconds a matrix of each contender in each round, A B C A B C ...: what disturbs one of them disturbs all."""
    calls = {name: _calls_per_sample(contender) for name, contender in contenders.items()}
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    start = time.perf_counter()
    for i in range(repeats):
        if i >= 3 and time.perf_counter() - start > CASE_SECONDS:
            break
        for name, contender in contenders.items():
            _settle(contender)
            rounds[name].append(_sample(contender, calls[name]))
    return rounds


def _settle(contender: Contender) -> None:
    """Calls until the threads of the contender before are asleep, which it has on CPU alone, and the caches its own."""
    seconds = SETTLE_SECONDS if jax.default_backend() == "cpu" else 0
    start = time.perf_counter()
    _sample(contender, 1)
    while time.perf_counter() - start < seconds:
        _sample(contender, 1)


def _calls_per_sample(contender: Contender) -> int:
    _sample(contender, 1)
    seconds = _sample(contender, 1) * contender.matrices
    fill = SAMPLE_SECONDS if jax.default_backend() == "cpu" else SAMPLE_SECONDS_OF_QUEUE
    return max(1, min(1000, int(fill / seconds)))


def _sample(contender: Contender, calls: int) -> float:
    """Seconds a matrix: on CPU of calls one after the other, elsewhere of as many in a queue."""
    in_turn = jax.default_backend() == "cpu"
    start = time.perf_counter()
    for k in range(calls):
        result = contender.call()
        if in_turn or k == calls - 1:
            contender.wait(result)
    return (time.perf_counter() - start) / (calls * contender.matrices)


@lru_cache(maxsize=1)
def matrices(case: Case) -> tuple[NDArray, NDArray]:
    """X, a random permutation with noise: of condition 4 or so, and a pivot search moves every row; and Z, noise.

    With a structure, X is the unit matrix with noise.
    """
    rng = np.random.default_rng(case.n)
    count, n = case.batch, case.n

    def noise() -> NDArray:
        Z = np.zeros((count, n, n), case.dtype)
        Z.real = rng.random(Z.shape, np.float32) * 2 - 1
        if np.iscomplexobj(Z):
            Z.imag = rng.random(Z.shape, np.float32) * 2 - 1
        return Z

    X = noise()
    X /= 2 * np.sqrt(n).astype(X.real.dtype)
    ones = np.argsort(rng.random((min(count, PERMUTATIONS), n)), axis=-1)
    ones = np.resize(ones, (count, n))[..., None]
    np.put_along_axis(X, ones, np.take_along_axis(X, ones, -1) + 1, -1)
    Z = noise()
    if case.assume_a != "general":  # both have it, and X the diagonal that keeps it well conditioned
        X, Z = (np.asarray(projection(jnp.asarray(A), case.assume_a)) for A in (noise() / np.sqrt(4 * n), Z))
        X = (X + np.eye(n)).astype(case.dtype)
    return X.reshape(case.shape), Z.reshape(case.shape)


def _error(case: Case, X: NDArray, Z: NDArray, result: Any) -> float:
    """The largest relative error of the results against the formulas in float64, over the batch or a part of it."""
    count = max(1, min(case.batch, int(ORACLE_FLOPS / (2 * case.n**3 + ORACLE_FLOPS_OF_CALL))))
    part = np.linspace(0, case.batch - 1, count).astype(int)

    def some(A: Any) -> NDArray:
        return in_double(np.asarray(A).reshape(-1, case.n, case.n)[part])

    Y = np.linalg.inv(some(X))
    if case.mode == "forward":
        return frobenius_error(some(result), Y)
    if case.mode == "logdet":
        scalars = zip(result[1:], np.linalg.slogdet(some(X)), strict=True)
        errors = [np.abs(in_double(np.asarray(r).reshape(-1)[part]) - s).max() for r, s in scalars]
        return max(frobenius_error(some(result[0]), Y), *errors)
    Yt = Y.swapaxes(-2, -1)
    derivative = -Yt @ (some(Z) @ Yt) if case.mode == "gradient" else -Y @ (some(Z) @ Y)
    if "triangular" in case.assume_a or case.assume_a == "diagonal":
        derivative = np.where(projection(jnp.ones((case.n, case.n)), case.assume_a), derivative, 0)
    return max(frobenius_error(some(result[0]), Y), frobenius_error(some(result[1]), derivative))
