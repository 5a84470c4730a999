"""The limits of the tables of kernels on CPU, as measured, and as the tests have them.

Loops over a batch pay from some hundred matrices on. The tests take them from sixteen on, to be done in time; panels,
which compile for seconds, from `PANEL_FROM_BATCH` on. LAPACK is given float64 matrices by halves from n = 25 on.
"""

from jaxinv import _kernels, _lapack, _structured_kernels

PANEL_FROM_BATCH = 160
LIMITS = (
    (_kernels, "FUSED_FROM_BATCH"),
    (_kernels, "PANEL_FROM_BATCH"),
    (_kernels, "BLOCKED_FROM_BATCH"),
    (_structured_kernels, "TRIANGULAR_FROM_BATCH"),
    (_structured_kernels, "POSITIVE_DEFINITE_FROM_BATCH"),
)
MEASURED = [(module, name, getattr(module, name)) for module, name in LIMITS]


def lower_limits():
    for module, name, limit in MEASURED:
        setattr(module, name, dict.fromkeys(limit, PANEL_FROM_BATCH) if isinstance(limit, dict) else 0)
    _lapack.ENTRIES_OF_MANY_THREADS["float64"] = 600
