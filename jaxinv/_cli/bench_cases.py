"""What to measure: cases, and the named sets of them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

MODES = ("forward", "gradient", "jvp", "logdet")
STRUCTURES = (
    "general", "symmetric", "hermitian", "positive definite", "upper triangular", "lower triangular", "diagonal",
)  # fmt: skip
DTYPES = ("float32", "float64", "complex64", "complex128")
FULL_BYTES = 256 * 2**20  # the largest batch of the grid
DEFAULT_BYTES = 2**22  # the batch where only n is given


class Case(NamedTuple):
    """A batch of matrices and what is computed of it.

    `forward` is the inverse; `gradient` the inverse and the pullback of one cotangent, (Y, X_bar), in one jit; `jvp`
    the inverse and the pushforward of one tangent, (Y, dY); `logdet` the inverse with the log-determinant. A batch of
    one is a matrix of shape (n, n). The matrices have the structure `assume_a`.
    """

    n: int
    batch: int
    dtype: str
    mode: str
    assume_a: str = "general"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n) if self.batch == 1 else (self.batch, self.n, self.n)

    def __str__(self) -> str:
        structure = "" if self.assume_a == "general" else f" {self.assume_a}"
        return f"{self.batch} x {self.n} {self.dtype} {self.mode}{structure}"


# (batch, n)
SMALL = ((262144, 2), (262144, 3), (262144, 4), (65536, 6), (65536, 8), (20000, 12), (10000, 16))
MID = (
    *((5000, 17), (5000, 24), (5000, 32), (2000, 48), (2000, 64), (500, 96), (200, 128), (50, 256)),
    *((1, 256), (1, 512), (1, 1024), (1, 2048), (1, 4096)),
)
FULL_SIZES = (2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 64, 128)
GRID_SIZES = (*range(1, 65), 128, 256, 512, 1024, 2048, 4096)
PRESETS = ("small", "mid", "full", "grid")


def preset(name: str, dtypes: Sequence[str], modes: Sequence[str]) -> list[Case]:
    """The cases of a named set: `small` n = 2..16, `mid` n = 17..4096, `full` n = 2..128 in batches of 256 MiB, as a
    GPU needs them, `grid` every size and batch up to 256 MiB.
    """
    if name == "grid":
        return [Case(n, b, d, m) for n in GRID_SIZES for d in dtypes for b in _grid_batches(n, d) for m in modes]
    if name == "full":
        return [Case(n, _filling(n, d, FULL_BYTES), d, m) for n in FULL_SIZES for d in dtypes for m in modes]
    pairs = SMALL if name == "small" else MID
    return [Case(n, b, d, m) for b, n in pairs for d in dtypes for m in modes]


def product(
    sizes: Sequence[int], batches: Sequence[int] | None, dtypes: Sequence[str], modes: Sequence[str]
) -> list[Case]:
    """Every combination; without `batches`, one that fills 4 MiB."""
    return [
        Case(n, b, d, m)
        for n in sizes
        for d in dtypes
        for b in (batches or [_filling(n, d, DEFAULT_BYTES)])
        for m in modes
    ]


def _grid_batches(n: int, dtype: str) -> Iterator[int]:
    full = _filling(n, dtype, FULL_BYTES)
    yield from sorted({b for b in (1, 10, 1000, full) if b <= full})


def _filling(n: int, dtype: str, size: int) -> int:
    return max(1, size // (n * n * np.dtype(dtype).itemsize))
