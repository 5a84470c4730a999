"""The scalars inside a kernel's loop: real numbers as they are, complex numbers as pairs of them.

LLVM vectorises a loop of real arithmetic. It leaves one of XLA's complex numbers scalar (n = 4: 137 against 49 ns), and
XLA's complex division is an expansion of a hundred instructions.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax


class Pair(NamedTuple):
    """The complex number re + i im."""

    re: Array
    im: Array

    def __add__(self, other):
        return Pair(self.re + other.re, self.im + other.im)

    def __sub__(self, other):
        return Pair(self.re - other.re, self.im - other.im)

    def __neg__(self):
        return Pair(-self.re, -self.im)

    def __mul__(self, other):
        return Pair(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)


def reciprocal(z: Any) -> Any:
    """1 / z, scaled so that no square over- or underflows; of a complex zero nan.

    XLA fuses a division with what uses it only if that is one operation: here, and in `quotient`, the sign. On GPU some
    of the divisions of n = 8 would be computed twice.
    """
    if not isinstance(z, Pair):
        return -(lax.full_like(z, -1) / z)
    over = _quotient_of_positive(lax.full_like(z.re, 1), lax.max(lax.abs(z.re), lax.abs(z.im)))
    re, im = z.re * over, z.im * over  # not z.re / scale: XLA makes one division of two, by a product that overflows
    over = _quotient_of_positive(over, re * re + im * im)
    return Pair(re * over, -(im * over))


def _quotient_of_positive(x, y):
    return lax.abs(-x / y)


def quotient(z: Any, w: Any, reciprocal_of_w: Any) -> Any:
    """z / w. Of real numbers it is rounded once, so that equal rows cancel exactly; of complex ones as in LAPACK."""
    return z * reciprocal_of_w if isinstance(z, Pair) else -(-z / w)


def pivot_size(z: Any) -> Array:
    """The size that chooses a pivot: |z|, for complex numbers |Re z| + |Im z| as in LAPACK."""
    if isinstance(z, Pair):
        return lax.abs(z.re) + lax.abs(z.im)
    return lax.abs(lax.real(z)) + lax.abs(lax.imag(z)) if jnp.iscomplexobj(z) else lax.abs(z)


def select(which: Array, z: Any, w: Any) -> Any:
    """Z where `which`, else w."""
    if isinstance(z, Pair):
        return Pair(lax.select(which, z.re, w.re), lax.select(which, z.im, w.im))
    return lax.select(which, z, w)


def number_like(z: Any, value: float) -> Any:
    """The real number `value` in the type of z."""
    return Pair(lax.full_like(z.re, value), lax.full_like(z.re, 0)) if isinstance(z, Pair) else lax.full_like(z, value)


def index_like(z: Any, value: int) -> Array:
    """`value` as an integer."""
    return lax.full_like(z.re if isinstance(z, Pair) else z, value, jnp.int32)


def parts(numbers: Iterable) -> list[Array]:
    """The real arrays of which real and complex arrays and pairs are made."""
    return [part for z in numbers for part in _parts(z)]


def _parts(z):
    if isinstance(z, Pair):
        return tuple(z)
    return (lax.real(z), lax.imag(z)) if jnp.iscomplexobj(z) else (z,)


def numbers(parts: Iterable, *, of_complex: bool) -> list[Any]:
    """The scalars that `parts` took apart."""
    parts = list(parts)
    return [Pair(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)] if of_complex else parts
