"""The limits of the tables of kernels on CPU, as measured, and as the tests have them.

Loops over a batch pay from some hundred matrices on. The tests take them from sixteen on, to be done in time; panels,
which compile for seconds, from `PANELS_FROM` on. LAPACK is given float64 matrices by halves from n = 25 on.
"""

from jaxinv import _kernels, _lapack, _structured_kernels

PANELS_FROM = 160
LOWERED = (
    (_kernels, "FUSED_FROM_BATCH", 0),
    (_kernels, "FUSED_COMPLEX_FROM_BATCH", 0),
    (_kernels, "PANEL_FROM_BATCH", PANELS_FROM),
    (_kernels, "PANEL_FROM_BATCH_BEYOND", dict.fromkeys(_kernels.PANEL_FROM_BATCH_BEYOND, PANELS_FROM)),
    (_kernels, "BLOCKED_FROM_BATCH", 0),
    (_structured_kernels, "TRIANGULAR_FROM_BATCH", 0),
    (_structured_kernels, "POSITIVE_DEFINITE_FROM_BATCH", 0),
)
MEASURED = [(module, name, getattr(module, name)) for module, name, _ in LOWERED]


def lower_limits():
    for module, name, limit in LOWERED:
        setattr(module, name, limit)
    _lapack.ENTRIES_OF_MANY_THREADS["float64"] = 600
