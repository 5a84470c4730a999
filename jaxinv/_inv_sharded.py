"""`jaxinv.inv_sharded`: the inverse of one matrix that lies on many devices."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from jaxinv._checks import as_square, canonical_precision
from jaxinv._inv import dtypes_of
from jaxinv._sharded_rule import Layout, residual_norm, sharded_inverse, symmetrised

NAME = "inv_sharded"
POSITIVE = {  # the spellings of `scipy.linalg.inv`
    None: False,
    "general": False,
    "gen": False,
    "positive definite": True,
    "pos": True,
}


class InvSharded(NamedTuple):
    """What `inv_sharded` returns with `residual=True`."""

    inverse: Array
    residual: Array


def inv_sharded(
    a: ArrayLike,
    *,
    mesh: Mesh | AbstractMesh | None = None,
    spec: PartitionSpec | None = None,
    assume_a: str | None = None,
    refine: int = 0,
    residual: bool = False,
    block_size: int | None = None,
    precision: Any = None,
) -> Array | InvSharded:
    """The inverse of one matrix whose rows, columns or both are sharded over many devices or processes.

    No device ever holds the whole matrix. With P devices each holds about 4 n^2 / P entries, argument and result
    included (5 if positive definite), and a few panels, which are most of it below n = 100 P or so. For matrices that
    fit on one device use `jaxinv.inv`, which is faster there, and for a sharded batch of such too.

    Args:
        a: array of shape (n, n), of the dtypes of `jaxinv.inv`.
        mesh: the devices. By default those of the sharding of `a`.
        spec: how `a` and the result are sharded over the axes of `mesh`: P(None, "x"), P("x", None), P("x", "y"), or
            with tuples of axes in place of a name. By default as `a` is. Where the sharding of `a` is not known,
            under `jit`, `grad` and the like in auto mode, `mesh` and `spec` are needed.
        assume_a: "general" ("gen", the default) or "positive definite" ("pos"), as in `scipy.linalg.inv`: symmetric or
            Hermitian, inverted without pivoting. Both triangles are read, not one as by `inv`: their mean is taken,
            (a + a^H) / 2.
        refine: number of Newton steps Y (2 I - a Y) at the end, each of twice the cost of the inverse.
        residual: whether to return the residual too: a product more.
        block_size: columns of a panel, rounded up to a multiple of P. By default about n / 32, 32 to 512, see Notes.
        precision: of the matrix products in the derivatives and the residual, as in `jaxinv.inv`.

    Returns:
        The inverse, shape (n, n), of the dtype that `jaxinv.inv` returns, sharded as `a`. With `residual=True` a named
        tuple of `inverse` and `residual`, the Frobenius norm r of a Y - I: where r < 1, `a` has an inverse, and
        |Y - a^-1| <= |Y| r / (1 - r). What is computed for r includes its own rounding.

    Raises:
        TypeError: `a` is not a numeric array, `mesh` is not a mesh, `spec` is not a PartitionSpec, or a number or flag
            is of a wrong type.
        ValueError: `a` is not of shape (n, n), its sharding is not known, does not fit `mesh` or shards nothing, n is
            no multiple of P in explicit mode, or an option is not one of those above.

    Notes:
        * LU with partial pivoting, by panels: 1.5 times 2 n^3 / P flops (1.3 from n = 2^16 on) and 1.1 n^2 words
          received on each device, and 2 n^2 / P words to deal the columns out and back. Each device factorises each
          panel, hence their size, on CPU in one thread: the devices of a machine share its cores.
        * The devices have to be of one kind: all must choose the same pivots. `residual` would show if they did not.
        * JAX shards evenly. An n that is no multiple of P is padded, as diag(a, I), if `a` is not sharded yet and
          `mesh`, of auto mode, and `spec` are given; XLA then decides where the result lies.
        * In explicit mode, the default of `jax.make_mesh`, `jax.grad` needs `jax.set_mesh`, as for other functions.
        * Derivatives of any order exist, in both modes. The gradient takes two products, n^2 words each, and
          keeps the inverse. Of a positive definite `a` they are symmetric.
        * The errors are of the size of those of `inv` in the mean over draws. Where one small singular value makes
          them, that of a single matrix was up to 90 times as large.
        * A singular matrix gives inf or nan.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import jaxinv
        >>> auto = (jax.sharding.AxisType.Auto,)
        >>> mesh = jax.make_mesh((1,), ("x",), axis_types=auto)  # of all your devices
        >>> sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "x"))
        >>> X = jax.device_put(jnp.array([[2.0, 3.0], [1.0, 2.0]]), sharding)
        >>> print(jaxinv.inv_sharded(X))
        [[ 2. -3.]
         [-1.  2.]]
        >>> f = lambda X: jnp.trace(jaxinv.inv_sharded(X, mesh=mesh, spec=sharding.spec))
        >>> print(jax.grad(f)(X))  # -(Y Y)^T
        [[-7.  4.]
         [12. -7.]]

    References:
        The elimination in place: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., chapter 14,
        SIAM 2002, https://doi.org/10.1137/1.9780898718027
    """
    a = as_square(NAME, a)
    if a.ndim != 2:
        raise ValueError(f"{NAME}: a must be one matrix of shape (n, n), got {a.shape}; jax.vmap takes batches")
    mesh, spec = _sharding_of(a, mesh, spec)
    if not (assume_a is None or isinstance(assume_a, str)) or assume_a not in POSITIVE:
        choices = ", ".join(repr(choice) for choice in POSITIVE)
        raise ValueError(f"{NAME}: assume_a must be one of {choices}, got {assume_a!r}")
    if not isinstance(residual, (bool, np.bool_)):
        raise TypeError(f"{NAME}: residual must be True or False, got {residual!r}")
    layout = Layout(
        mesh=mesh,
        rows=_axes_of(spec, 0),
        columns=_axes_of(spec, 1),
        block=None if block_size is None else _whole("block_size", block_size, 1),
        positive=POSITIVE[assume_a],
        refine=_whole("refine", refine, 0),
        precision=canonical_precision(NAME, precision),
    )
    _check_axes(layout, spec)
    if _all_axes_are(layout, AxisType.Explicit):
        if a.shape[0] % layout.devices:
            raise ValueError(
                f"{NAME}: n must be a multiple of the {layout.devices} devices in explicit mode, got {a.shape}"
            )
        a = jax.sharding.reshard(a, NamedSharding(mesh, spec))
    return _inv_sharded(a, layout, bool(residual))


def _sharding_of(a, mesh, spec):
    if mesh is None and spec is None:
        sharding = jax.typeof(a).sharding if isinstance(a, jax.core.Tracer) else a.sharding
        known = isinstance(sharding, NamedSharding) and any(axis is not None for axis in sharding.spec)
        if not known:
            raise ValueError(
                f"{NAME}: a must be sharded over a mesh, or mesh and spec be given (under jit or grad the sharding of "
                f"a is known in explicit mode only), got {jax.typeof(a)} with sharding {sharding}"
            )
        return sharding.mesh, sharding.spec
    if not isinstance(mesh, (Mesh, AbstractMesh)):
        raise TypeError(f"{NAME}: mesh must be a jax.sharding.Mesh, given together with spec, got {mesh!r}")
    if not isinstance(spec, PartitionSpec):
        raise TypeError(f"{NAME}: spec must be a jax.sharding.PartitionSpec, given together with mesh, got {spec!r}")
    return mesh, spec


def _axes_of(spec, dimension):
    axes = spec[dimension] if dimension < len(spec) else None
    if axes is None:
        return ()
    return tuple(axes) if isinstance(axes, tuple) else (axes,)


def _check_axes(layout, spec):
    axes = layout.axes
    unknown = [axis for axis in axes if axis not in layout.mesh.shape]
    if not axes or unknown or len(spec) > 2:
        names = tuple(layout.mesh.shape)
        raise ValueError(f"{NAME}: spec must shard rows or columns over axes of the mesh, {names}, got {spec}")


def _whole(name, value, least):
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{NAME}: {name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{NAME}: {name} must be at least {least}, got {value}")
    return int(value)


@partial(jax.jit, static_argnums=(1, 2))
def _inv_sharded(a, layout, residual):
    n = a.shape[0]
    compute_dtype, result_dtype = dtypes_of(a)
    X = a.astype(compute_dtype)
    if n == 0:
        return InvSharded(X.astype(result_dtype), jnp.zeros(())) if residual else X.astype(result_dtype)
    spare = -n % layout.devices
    if spare:
        X = jnp.pad(X, ((0, spare), (0, spare))) + jnp.diag(jnp.arange(n + spare) >= n).astype(X.dtype)
    X = _placed(X, layout)
    X = symmetrised(X, layout) if layout.positive else X
    Y = _placed(sharded_inverse(X, layout), layout)
    inverse = Y[:n, :n].astype(result_dtype) if spare else Y.astype(result_dtype)
    if not residual:
        return inverse
    if result_dtype != compute_dtype:  # XLA may leave out a pair of casts
        kept = jnp.finfo(result_dtype)
        Y = lax.reduce_precision(Y, kept.nexp, kept.nmant)
    return InvSharded(inverse, residual_norm(X, Y, layout))


def _placed(X, layout):
    """X, sharded as `layout` says, where that is not in its type: it also tells `jit` which devices there are."""
    if _all_axes_are(layout, AxisType.Auto):
        return lax.with_sharding_constraint(X, NamedSharding(layout.mesh, layout.spec))
    return X


def _all_axes_are(layout, axis_type):
    types = dict(zip(layout.mesh.axis_names, layout.mesh.axis_types, strict=True))
    return all(types[axis] == axis_type for axis in layout.axes)
