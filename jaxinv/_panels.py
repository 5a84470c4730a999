"""How one matrix lies on P devices while it is inverted: its columns dealt out in panels, each over all devices.

Each device is given n/P columns in a row, and works on others: of each panel of b = P c columns it takes c, so column
g = k b + q c + t becomes column k c + t of device q. So each device has a part in each step, at its own columns of the
panel and in the update of the others, and a panel travels by one `all_gather`. The columns are eliminated in their own
order, as LAPACK does: in another one, a triangular matrix is a triangle no more and loses its small error.

The steps are cut into stages of equal length. A stage leaves out the rows that its steps cannot touch: sizes must be
known when a program is compiled, and a loop has but one. With S stages, 1 + 1/S of the least work is done.

Columns are added up to a multiple of S b, as those of diag(X, I), which has the inverse diag(Y, I).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

STAGES = 8
# Smaller matrices have two, which compile in about a quarter of the time.
STAGES_FROM = 1024
# 64 columns were best of 64, 128 and 256 at n = 2048, float32, on two devices of two cores, AMD EPYC 9004, 2026-11-24.
PANELS = 32  # or more
PIECES = 4  # in which columns are dealt out, so that what is under way takes little memory
LARGEST_PANEL = 512  # not measured: it bounds the memory of a panel
SMALLEST_PANEL = 32  # of small matrices the time is that of the collectives; n = 104 with 64 has twice the error


class Panels(NamedTuple):
    """The layout of the columns of one matrix."""

    axes: tuple[str, ...]  # of the mesh
    devices: int
    own: int  # columns that each device is given
    width: int  # columns of each device in a panel
    steps: int  # in a stage
    stages: int

    @property
    def block(self) -> int:
        return self.devices * self.width

    @property
    def chunk(self) -> int:
        """Columns of each device in a stage."""
        return self.steps * self.width

    @property
    def height(self) -> int:
        """Rows that a stage eliminates."""
        return self.steps * self.block

    @property
    def n(self) -> int:
        return self.stages * self.height


def panels_of(n: int, axes: tuple[str, ...], devices: int, block: int | None) -> Panels:
    """The layout for an n x n matrix with n / devices columns a device.

    Unless it is given, a panel has about n / 32 columns, 32 to 512, so that the factorisation of the panels, which
    each device repeats, is a small part of the work; and of widths down to half of that, the one that pads least.
    """
    own, stages = n // devices, STAGES if n >= STAGES_FROM else 2
    if block is None:
        largest = min(max(n // PANELS, SMALLEST_PANEL), LARGEST_PANEL) // devices
        largest = max(1, min(largest, -(-own // stages)))
        width = min(range(largest, largest // 2, -1), key=lambda width: -own % (stages * width))
    else:
        width = -(-block // devices)
    return Panels(axes, devices, own, width, -(-own // (stages * width)), stages)


def dealt(X: Array, panels: Panels) -> Array:
    """The columns of diag(X, I) that this device works on, from those of X that it is given."""
    given, mine = panels.devices * panels.own, lax.axis_index(panels.axes)
    place = jnp.arange(panels.stages * panels.chunk, dtype=jnp.int32)
    column = _column(panels, mine, place)
    giver = jnp.minimum(column // panels.own, panels.devices - 1)
    device = _devices(panels)
    sent = _column(panels, device, _places_before(panels, mine * panels.own, device) + _slots(panels))
    taken = giver * _slots(panels).size + place - _places_before(panels, giver * panels.own, mine)
    W = _exchanged(X, sent - mine * panels.own, taken, panels)[:, : len(place)]
    if panels.n == given:
        return W
    row = jnp.arange(panels.n, dtype=jnp.int32)[:, None]
    W = jnp.pad(W, ((0, panels.n - given), (0, 0)))
    return jnp.where(column[None] < given, W, (row == column[None]).astype(W.dtype))


def collected(Z: Array, slot: Array, panels: Panels) -> Array:
    """The columns of the matrix X that this device was given, where Z on this device is diag(X, I)[:, `slot`]."""
    given, mine = panels.devices * panels.own, lax.axis_index(panels.axes)
    sent = _places_before(panels, _devices(panels) * panels.own, mine) + _slots(panels)
    device, place = owner_and_place(panels, mine * panels.own + jnp.arange(panels.own, dtype=jnp.int32))
    taken = device * _slots(panels).size + place - _places_before(panels, mine * panels.own, device)
    return _exchanged(Z[:given], jnp.take(slot, sent, mode="clip"), taken, panels)[:, : panels.own]


def owner_and_place(panels: Panels, column: Array) -> tuple[Array, Array]:
    """The device that works on a column, and the place of the column there."""
    return (
        column // panels.width % panels.devices,
        column // panels.block * panels.width + column % panels.width,
    )


def _column(panels, device, place):
    return place // panels.width * panels.block + device * panels.width + place % panels.width


def _places_before(panels, column, device):
    """How many of the columns before one belong to a device."""
    rest = column % panels.block - device * panels.width
    return column // panels.block * panels.width + rest.clip(0, panels.width)


def _devices(panels):
    return np.arange(panels.devices, dtype=np.int32)[:, None]


def _slots(panels):
    """As many as the most columns that go from one device to another."""
    given = np.arange(panels.devices + 1)[:, None] * panels.own
    counts = np.diff(_places_before(panels, given, _devices(panels).T), axis=0)
    return np.arange(counts.max(), dtype=np.int32)[None]


def _exchanged(Z, sent, taken, panels):
    """Columns `sent` of Z go to the device of their row; of all that comes, those `taken`. In place, by pieces."""
    width = max(Z.shape[1], len(taken))
    taken = jnp.pad(taken, (0, width - len(taken)))

    def piece(start, rows, Z):
        R = jnp.take(lax.dynamic_slice_in_dim(Z, start, rows), sent, axis=1, mode="clip")
        R = lax.all_to_all(R, panels.axes, 1, 1, tiled=True).reshape(rows, -1)
        return lax.dynamic_update_slice_in_dim(Z, jnp.take(R, taken, axis=1, mode="clip"), start, axis=0)

    return by_pieces(piece, len(Z), jnp.pad(Z, ((0, 0), (0, width - Z.shape[1]))))


def by_pieces(piece: Callable, length: int, Z: Array) -> Array:
    """Z after `piece(start, size, Z)` for each of about `PIECES` parts of a length."""
    size = -(-length // PIECES)
    pieces, rest = divmod(length, size)
    Z = loop(0, pieces, lambda i, Z: piece(i * size, size, Z), Z)
    return piece(pieces * size, rest, Z) if rest else Z


def loop(begin: Any, end: Any, f: Callable, start: Any) -> Any:
    """`lax.fori_loop` with the index in 32 bits, as are those of LU and of devices."""
    return lax.fori_loop(begin, end, lambda i, state: f(jnp.asarray(i, jnp.int32), state), start)
