"""The limits of the tables of kernels on CPU, as measured, and as the tests have them.

Loops over a batch pay from some hundred matrices on. The tests take them from sixteen on, to be done in time, panels,
which compile for seconds, from `PANELS_FROM` on, and blocks from n = 19 on. LAPACK is given float64 matrices by halves
from n = 25 on.
"""

from jaxinv import _kernel_names, _lapack, _structured_kernels

PANELS_FROM = 160
LOWERED = (
    (_kernel_names, "FUSED_FROM_BATCH", 0),
    (_kernel_names, "FUSED_COMPLEX_FROM_BATCH", 0),
    (_kernel_names, "PANEL_FROM_BATCH", dict.fromkeys(_kernel_names.PANEL_FROM_BATCH, PANELS_FROM)),
    (_kernel_names, "BLOCKED_FROM_TO", {name: (19, most) for name, (_, most) in _kernel_names.BLOCKED_FROM_TO.items()}),
    (_kernel_names, "BLOCKED_FROM_BATCH", 0),
    (_structured_kernels, "TRIANGULAR_FROM_BATCH", 0),
    (_structured_kernels, "POSITIVE_DEFINITE_FROM_BATCH", 0),
)
MEASURED = [(module, name, getattr(module, name)) for module, name, _ in LOWERED]


def lower_limits():
    for module, name, limit in LOWERED:
        setattr(module, name, limit)
    _lapack.ENTRIES_OF_MANY_THREADS["float64"] = 600
