"""How one matrix lies on P devices while it is inverted: whole columns, in panels that are spread over all devices.

Each device holds n/P columns, c of which belong to a panel of b = P c columns. So each device has a part in each step,
at its own columns of the panel and in the update of the others, and a panel travels by one `all_gather`. Eliminated in
this order, column j = k c + t of device q has the position k b + q c + t; the rows are put in the order of positions
too. The inverse does not depend on the order, which nobody sees outside.

The steps are cut into stages of equal length. A stage leaves out the rows that its steps cannot touch: sizes must be
known when a program is compiled, and a loop has but one. With S stages, 1 + 1/S of the least work is done.

Columns are added up to a multiple of S c, as those of diag(X, I), which has the inverse diag(Y, I).
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
LARGEST_PANEL = 512  # not measured: it bounds the memory of a panel


class Panels(NamedTuple):
    """The layout of the columns of one matrix."""

    axes: tuple[str, ...]  # of the mesh
    devices: int
    own: int  # columns of each device
    width: int  # columns of each device in a panel
    steps: int  # in a stage
    stages: int

    @property
    def block(self) -> int:
        return self.devices * self.width

    @property
    def padded(self) -> int:
        return self.stages * self.steps * self.width

    @property
    def height(self) -> int:
        """Rows that a stage eliminates."""
        return self.steps * self.block

    @property
    def n(self) -> int:
        return self.stages * self.height


def panels_of(n: int, axes: tuple[str, ...], devices: int, block: int | None) -> Panels:
    """The layout for an n x n matrix with n / devices columns a device.

    Unless it is given, a panel has about n / 32 columns, at most 512, so that the factorisation of the panels, which
    each device repeats, is a small part of the work; and of widths down to half of that, the one that pads least.
    """
    own, stages = n // devices, STAGES if n >= STAGES_FROM else 2
    if block is None:
        largest = max(1, min(n // PANELS, LARGEST_PANEL) // devices)
        width = min(range(largest, largest // 2, -1), key=lambda width: -own % (stages * width))
    else:
        width = -(-block // devices)
    return Panels(axes, devices, own, width, -(-own // (stages * width)), stages)


def to_positions(X: Array, panels: Panels) -> Array:
    """The columns X, shape (P own, own), of this device, padded and with the rows in the order of positions."""
    P, own, padded = panels.devices, panels.own, panels.padded
    W = X.reshape(P, own, own)
    if padded > own:
        W = jnp.pad(W, ((0, 0), (0, padded - own), (0, padded - own)))
        spare = jnp.arange(padded, dtype=jnp.int32) >= own
        mine = jnp.arange(P, dtype=jnp.int32) == lax.axis_index(panels.axes)
        W = W + (mine[:, None, None] & jnp.diag(spare)[None]).astype(X.dtype)
    return W.reshape(P, -1, panels.width, padded).swapaxes(0, 1).reshape(panels.n, padded)


def from_positions(Y: Array, panels: Panels) -> Array:
    """The rows of Y in their own order, and without what was added: shape (P own, own)."""
    P, own = panels.devices, panels.own
    Y = Y.reshape(-1, P, panels.width, Y.shape[1]).swapaxes(0, 1)
    return Y.reshape(P, panels.padded, -1)[:, :own, :own].reshape(P * own, own)


def own_positions(panels: Panels) -> Array:
    """The positions of the columns of this device, shape (padded,)."""
    j, q = jnp.arange(panels.padded, dtype=jnp.int32), lax.axis_index(panels.axes)
    return j // panels.width * panels.block + q * panels.width + j % panels.width


def loop(begin: int, end: int, f: Callable, start: Any) -> Any:
    """`lax.fori_loop` with the index in 32 bits, as are those of LU and of devices."""
    return lax.fori_loop(np.int32(begin), np.int32(end), f, start)
