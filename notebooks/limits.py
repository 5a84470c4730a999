"""Kernels of the inverse, and forms of the products in its derivatives, beside each other and the builtin.

    python limits.py --n 9 12 --batch 10 --dtype float64 --products dots rows "sums in two loops"
    python limits.py --n 20 --batch 100 1000 --mode forward --kernels "batched LU" "panel Gauss-Jordan"

So the limits in `jaxinv/_kernel_names.py` and `jaxinv/_product_names.py` can be measured again, on another machine or
with another JAX; those of general matrices, since kernels of other structures are wrong for these. `table` is what they
choose. Ways whose result is right are timed as by `python -m jaxinv bench`, in turns: median and quartiles of a call.
Before jaxlib 0.11 the builtin and LAPACK over a batch are left out: they can hang.
"""

import argparse
from contextlib import contextmanager
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

import jaxinv
from jaxinv import _kernels, _products
from jaxinv._cli.bench_cases import Case
from jaxinv._cli.bench_measure import compiled, interleave, matrices
from jaxinv._cli.bench_rivals import in_mode
from jaxinv._lapack import LAPACK_BATCH_IS_SERIAL

KERNELS = [name for name in _kernels.KERNELS if LAPACK_BATCH_IS_SERIAL or name not in ("batched LU", "library LU")]
DTYPES = ("float32", "float64", "complex64", "complex128")


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


def exact(mode, X, Z):
    """By NumPy, with the cotangent or tangent Z."""
    Y = np.linalg.inv(X)
    return {"forward": [Y], "gradient": [Y, -Y.mT @ (Z @ Y.mT)], "jvp": [Y, -Y @ Z @ Y]}[mode]


def error(out, exact):
    """Of all arrays, the largest, in units of their largest entries."""
    pairs = zip(jax.tree.leaves(out), exact, strict=True)
    return max(np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in pairs)


def measured(case, kernels, forms, rounds):
    """Prints a line for each way to compute a case."""
    n, batch, dtype, mode, *_ = case
    X, Z = map(jnp.asarray, matrices(case))

    def contender(inv):
        jax.clear_caches()
        return compiled(in_mode(mode, inv), (X, Z), case)

    ways = {"builtin": contender(jnp.linalg.inv)} if LAPACK_BATCH_IS_SERIAL else {}
    ways["table"] = contender(jaxinv.inv)
    for kernel, form in product(kernels, forms):
        if kernel or form:
            with taken(kernel, form):
                ways[", ".join(filter(None, (kernel, form)))] = contender(jaxinv.inv)
    right = exact(mode, *(np.asarray(A).astype(np.result_type(A.dtype, np.float64)) for A in (X, Z)))
    errors = {way: error(one.call(), right) for way, one in ways.items()}
    is_right = {way: bool(errors[way] < 100 * n * jnp.finfo(X.dtype).eps) for way in ways}  # False of nan
    times = interleave({way: one for way, one in ways.items() if is_right[way]}, rounds)
    for way in ways:
        line = f"{n:5} {batch:8}  {dtype:10}  {mode:8}  "
        if is_right[way]:
            low, middle, high = np.percentile(times[way], [25, 50, 75]) * batch * 1e6
            ratio = middle / np.median(times["table"]) / batch / 1e6
            line += f"{middle:10.1f} us  {low:10.1f} .. {high:<10.1f}  {ratio:6.2f}"
        else:
            line += f"{'WRONG':>46}"
        print(f"{line}  {errors[way]:8.1e}  {way}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", required=True)
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="1, the default, is one matrix without axes")
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", default=["float32"])
    parser.add_argument("--mode", choices=("forward", "gradient", "jvp"), nargs="+", default=["gradient"])
    parser.add_argument("--kernels", choices=KERNELS, nargs="+", default=[None], metavar="KERNEL")
    parser.add_argument("--products", choices=_products.PRODUCTS, nargs="+", default=[None], metavar="FORM")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print("    n    batch  dtype       mode            median     quartiles                 / table   error   way")
    for case in product(options.n, options.batch, options.dtype, options.mode):
        measured(Case(*case), options.kernels, options.products, options.rounds)


if __name__ == "__main__":
    main()
