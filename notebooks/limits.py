"""Kernels of the inverse, and forms of the products in its derivatives, beside each other and the builtin.

    python limits.py --n 9 12 --batch 10 --dtype float64 --products dots rows "sums in two loops"
    python limits.py --n 20 --batch 100 1000 --mode forward --kernels "batched LU" "panel Gauss-Jordan"

So the limits in `jaxinv/_kernel_names.py` and `jaxinv/_product_names.py` can be measured again, on another machine or
with another JAX. `table` is what they choose. Each result is checked, then all are timed in turns, in one process: the
median over rounds of that of some calls, and quartiles. Before jaxlib 0.11 the builtin, which can hang, is left out.
"""

import argparse
import time
from contextlib import contextmanager
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

import jaxinv
from jaxinv import _kernels, _products
from jaxinv._lapack import LAPACK_BATCH_IS_SERIAL

DTYPES = ("float32", "float64", "complex64", "complex128")
PAUSE = 0.002  # seconds before a round of one form: the threads of the form before go to sleep


@contextmanager
def taken(kernel, form):
    """Whatever the tables say, this kernel and this form of products, if they are given."""
    before = _kernels.kernel_name, _products.product_name
    try:
        if kernel:
            _kernels.kernel_name = lambda *_: kernel
        if form:
            _products.product_name = lambda *_: form
        yield
    finally:
        _kernels.kernel_name, _products.product_name = before


def compiled(inv, mode, X):
    def gradient(X):
        Y, pullback = jax.vjp(inv, X)
        return Y, pullback(X)[0]

    f = {"forward": inv, "gradient": gradient, "jvp": lambda X: jax.jvp(inv, (X,), (X,))}[mode]
    jax.clear_caches()
    return jax.jit(lambda X: f(X)).lower(X).compile()


def seconds(call, X, calls):
    time.sleep(PAUSE)
    jax.block_until_ready(call(X))
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(call(X))
        times.append(time.perf_counter() - start)
    return np.median(times)


def exact(mode, X):
    """By NumPy, with the cotangent or tangent X."""
    X = np.asarray(X).astype(np.result_type(X.dtype, np.float64))
    Y = np.linalg.inv(X)
    return {"forward": [Y], "gradient": [Y, -Y.mT @ (X @ Y.mT)], "jvp": [Y, -Y]}[mode]


def error(out, exact):
    """Of all arrays, the largest, in units of their largest entries."""
    pairs = zip(jax.tree.leaves(out), exact, strict=True)
    return max(np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in pairs)


def measured(n, batch, dtype, mode, kernels, forms, rounds, calls):
    """Prints a line for each way to compute a case."""
    X = np.random.default_rng(0).standard_normal((2, batch, n, n))
    X = jnp.asarray(X[0] + 1j * X[1] if dtype.startswith("complex") else X[0], dtype)
    X = X[0] if batch == 1 else X
    ways = {"builtin": compiled(jnp.linalg.inv, mode, X)} if LAPACK_BATCH_IS_SERIAL else {}
    ways["table"] = compiled(jaxinv.inv, mode, X)
    for kernel, form in product(kernels, forms):
        if kernel or form:
            with taken(kernel, form):
                ways[", ".join(filter(None, (kernel, form)))] = compiled(jaxinv.inv, mode, X)
    right = exact(mode, X)
    errors = {way: error(call(X), right) for way, call in ways.items()}
    times = {way: [] for way in ways}
    for _ in range(rounds):
        for way, call in ways.items():
            times[way].append(seconds(call, X, calls))
    table = np.median(times["table"])
    for way in ways:
        low, middle, high = np.percentile(times[way], [25, 50, 75]) * 1e6
        print(
            f"{n:5} {batch:8}  {dtype:10}  {mode:8}  {middle:10.1f} us  {low:10.1f} .. {high:<10.1f}"
            f"  {middle / table / 1e6:6.2f}  {errors[way]:8.1e}  {way}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", required=True)
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="1, the default, is one matrix without axes")
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", default=["float32"])
    parser.add_argument("--mode", choices=("forward", "gradient", "jvp"), nargs="+", default=["gradient"])
    parser.add_argument("--kernels", choices=_kernels.KERNELS, nargs="+", default=[None], metavar="KERNEL")
    parser.add_argument("--products", choices=_products.PRODUCTS, nargs="+", default=[None], metavar="FORM")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=5, help="in a round")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print("    n    batch  dtype       mode            median     quartiles                 / table   error   way")
    for case in product(options.n, options.batch, options.dtype, options.mode):
        measured(*case, options.kernels, options.products, options.rounds, options.calls)


if __name__ == "__main__":
    main()
