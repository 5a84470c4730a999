"""python tests/report_catalogue.py: for each kernel its worst figures on the catalogue of hard matrices, and where.

ratio   LAPACK's test ratio ||I - Y A|| / (n ||A|| ||Y|| eps), left; LAPACK's limit is 30
right   the same of I - A Y
either  the smaller of the two, where the condition number is above 0.1 / eps
error   ||Y - exact inverse|| / (||exact inverse|| n eps cond)
"""

import platform
import sys

import jax
import numpy as np
from _accuracy import CASES, Measured, lapack_ratios, norm
from _matrices import MATRICES
from test_structured_kernels import DEFINITE, TRIANGULAR, hard, inverse


def report():
    jax.config.update("jax_enable_x64", True)
    print(f"# jax {jax.__version__}, numpy {np.__version__}, {platform.machine()}, {len(MATRICES)} matrices")
    print(f"{'kernel':40}{'figure':8}{'worst':>9}   where")
    worst: dict = {}
    for case in CASES:
        measured = Measured(*case)
        print(".", end="", file=sys.stderr, flush=True)
        for name in MATRICES:
            for figure, value in figures(measured, name).items():
                where = f"n = {case[1]}, {np.dtype(case[2]).name}, {name}"
                worst[case[0], figure] = max(worst.get((case[0], figure), (0.0, "")), (float(value), where))
    for kernel, n in TRIANGULAR + DEFINITE:
        for name, A in hard(kernel, n, np.random.default_rng(n)):
            Y = np.asarray(inverse(kernel, A))
            left, right = (float(r.max()) for r in lapack_ratios(A, Y))
            where = f"n = {n}, float32, {name}"
            for figure, value in (("ratio", left), ("right", right), ("error", error(A, Y))):
                worst[kernel, figure] = max(worst.get((kernel, figure), (0.0, "")), (value, where))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for (kernel, figure), (value, where) in worst.items():
        print(f"{kernel:40}{figure:8}{value:9.3g}   {where}")


def figures(measured, name):
    if not np.isfinite(measured.Y[name]).all():  # beyond a condition number of 1 / eps, and tested
        return {}
    left, right = measured.ratios(name)
    invertible = measured.is_invertible(name).all()
    ratios = {"ratio": left, "right": right} if invertible else {"either": min(left, right)}
    return ratios | ({"error": measured.error(name)} if measured.has_exact_inverse else {})


def error(A, Y):
    """The largest of float32 matrices, against inverses in float64; of condition numbers that these resolve."""
    wide = A.astype(np.float64)
    exact = np.linalg.inv(wide)
    n, cond = A.shape[-1], norm(wide) * norm(exact)
    errors = norm(Y - exact) / norm(exact) / (n * np.finfo(np.float32).eps * cond)
    return float(np.max(errors, where=cond < 1e7, initial=0))


if __name__ == "__main__":
    report()
