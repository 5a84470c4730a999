"""The inverse of one matrix on many devices as a primitive, with the rule of `_rule`, and what the rule is made of.

    X_bar = -Y^T (G Y^T)                                                       (3) of `_rule`

Every array here is one n x n matrix with a sharding, and is worked on as whole columns, n/P a device. A transposition
exchanges n^2/P words; a product gathers its left factor panel by panel, n^2 words: no device ever holds a matrix.

Where rows are sharded, their transposes are taken as the columns of X^T: (3) and the inverse commute with that.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import PartitionSpec

from jaxinv._panels import Panels, by_pieces, panels_of
from jaxinv._rule import transposed_jvp
from jaxinv._sharded_lu import inverse_of_columns


class Layout(NamedTuple):
    """Where a matrix lies, and how it is worked on: hashable, a static parameter."""

    mesh: Any
    rows: tuple[str, ...]  # mesh axes over which the rows are sharded
    columns: tuple[str, ...]
    block: int | None
    positive: bool
    refine: int
    precision: Any

    @property
    def axes(self) -> tuple[str, ...]:
        return self.columns + self.rows

    @property
    def devices(self) -> int:
        count = 1
        for axis in self.axes:
            count *= self.mesh.shape[axis]
        return count

    @property
    def spec(self) -> PartitionSpec:
        return PartitionSpec(self.rows or None, self.columns or None)


def sharded_inverse(X, layout):
    """Y = X^-1 of a matrix X, sharded as `layout` says; n is a multiple of the number of devices."""
    return sharded_inverse_p.bind(X, layout=layout)


def residual_norm(X, Y, layout):
    """The Frobenius norm of X Y - I."""

    def norm(panels, X, Y):
        E = _identity_minus(product(*((X, Y) if layout.columns else (Y, X)), panels, layout.precision), panels)
        return jnp.sqrt(lax.psum(jnp.sum(jnp.abs(E) ** 2), panels.axes))

    return on_columns(norm, layout, (X, Y), PartitionSpec())


def symmetrised(X, layout):
    """(X + X^H) / 2."""
    return on_columns(lambda panels, X: (X + transposed(X, panels).conj()) / 2, layout, (X,))


def on_columns(f: Callable, layout: Layout, matrices: Sequence[Array], out_specs: Any = None) -> Array:
    """`f` of the panels and the columns on each device, n x n/P; its result is a matrix, or as `out_specs` says."""
    panels = panels_of(matrices[0].shape[0], layout.axes, layout.devices, layout.block)

    def per_device(*shards):
        out = f(panels, *(_to_columns(Z, layout) for Z in shards))
        return out if out_specs is not None else _from_columns(out, layout)

    specs = (layout.spec,) * len(matrices)
    out_specs_ = layout.spec if out_specs is None else out_specs
    return jax.shard_map(per_device, mesh=layout.mesh, in_specs=specs, out_specs=out_specs_, check_vma=False)(*matrices)


def _to_columns(Z, layout):
    if not layout.columns:
        return Z.T
    return lax.all_to_all(Z, layout.rows, 1, 0, tiled=True) if layout.rows else Z


def _from_columns(Z, layout):
    if not layout.columns:
        return Z.T
    return lax.all_to_all(Z, layout.rows, 0, 1, tiled=True) if layout.rows else Z


def transposed(Z: Array, panels: Panels) -> Array:
    """The columns of Z^T on this device."""
    P, own = panels.devices, panels.own
    Z = Z.reshape(P, own, own)

    def piece(start, size, T):
        R = lax.all_to_all(lax.dynamic_slice_in_dim(Z, start, size, 1), panels.axes, 0, 0, tiled=True)
        return lax.dynamic_update_slice_in_dim(T, R.swapaxes(1, 2), start, axis=2)

    return by_pieces(piece, own, jnp.zeros_like(Z)).reshape(P * own, own)


def product(A: Array, B: Array, panels: Panels, precision: Any) -> Array:
    """The columns of A B on this device."""
    P, own, width = panels.devices, panels.own, min(panels.width, panels.own)
    spare = -own % width
    A = jnp.pad(A, ((0, 0), (0, spare))).reshape(P * own, -1, width).swapaxes(0, 1)
    B = jnp.pad(B.reshape(P, own, own), ((0, 0), (0, spare), (0, 0)))
    B = B.reshape(P, -1, width, own).swapaxes(0, 1).reshape(-1, P * width, own)

    @partial(jax.checkpoint, prevent_cse=False)  # a panel is gathered anew for a derivative, not kept
    def step(C, AB):
        panel = lax.all_gather(AB[0], panels.axes, axis=1, tiled=True)
        return C + jnp.matmul(panel, AB[1], precision=precision), None

    return lax.scan(step, jnp.zeros((P * own, own), A.dtype), (A, B))[0]


def _identity_minus(Z, panels):
    column = lax.axis_index(panels.axes) * panels.own + jnp.arange(panels.own, dtype=jnp.int32)
    return (jnp.arange(Z.shape[0], dtype=jnp.int32)[:, None] == column[None]).astype(Z.dtype) - Z


def _kernel(X, *, layout):
    def inverse(panels, X):
        Y = inverse_of_columns(X, panels, layout.positive)
        for _ in range(layout.refine):  # Newton's step Y (2 I - X Y)
            E = _identity_minus(product(X, Y, panels, lax.Precision.HIGHEST), panels)
            Y = Y + product(Y, E, panels, lax.Precision.HIGHEST)
        return Y

    return on_columns(inverse, layout, (X,))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _inverse(X, layout):
    return sharded_inverse(X, layout)


def _inverse_fwd(X, layout):
    Y = sharded_inverse(X, layout)
    return Y, Y


def _inverse_bwd(layout, Y, G):
    def cotangent(panels, Y, G):
        YT = transposed(Y, panels)
        return -product(YT, product(G, YT, panels, layout.precision), panels, layout.precision)  # (3)

    return (on_columns(cotangent, layout, (Y, G)),)


_inverse.defvjp(_inverse_fwd, _inverse_bwd)


def _inverse_jvp(primals, tangents, *, layout):
    (X,), (dX,) = primals, tangents
    if isinstance(dX, ad.Zero):
        return sharded_inverse(X, layout), dX
    return transposed_jvp(lambda X: _inverse(X, layout), X, dX)


def _inverse_batch(args, dims, *, layout):
    (X,), (dim,) = args, dims
    return lax.map(lambda X: sharded_inverse(X, layout), jnp.moveaxis(X, dim, 0)), 0


sharded_inverse_p = Primitive("sharded_inverse")
sharded_inverse_p.def_abstract_eval(lambda X, **params: X)
sharded_inverse_p.def_impl(_kernel)
ad.primitive_jvps[sharded_inverse_p] = _inverse_jvp
batching.primitive_batchers[sharded_inverse_p] = _inverse_batch
mlir.register_lowering(sharded_inverse_p, mlir.lower_fun(_kernel, multiple_results=False))
