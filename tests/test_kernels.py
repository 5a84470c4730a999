"""The kernels on large batches and batches that are cut, the table that chooses them, and the products."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _collectives import COLLECTIVES
from _limits import MEASURED
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxinv
from jaxinv import (
    _blocked_lu,
    _fused,
    _gauss_jordan,
    _kernel_names,
    _kernels,
    _lapack,
    _lu,
    _panel_gauss_jordan,
    _product_names,
    _products,
)
from jaxinv._row_lu import row_lu_inverse

EPS = np.finfo(np.float32).eps


def norms(M):
    return np.linalg.norm(M, axis=(-2, -1), keepdims=True)


LARGE_BATCHES = [*itertools.product((2, 3), (65537, 1_000_000)), (8, 65537)]
LARGE_BATCHES += [pytest.param(n, batch, marks=pytest.mark.later) for n, batch in ((2, 32769), (3, 32769), (4, 65537))]


@pytest.mark.parametrize(("n", "batch"), LARGE_BATCHES)
def test_large_batch_forward_gradient_jvp(n, batch):
    """XLA:CPU has returned wrong results for large batches (jax#39103)."""
    rng = np.random.default_rng(n)
    A = (rng.standard_normal((batch, n, n)) + 4 * np.eye(n)).astype(np.float32)
    G = rng.standard_normal((batch, n, n)).astype(np.float32)
    exact = np.linalg.inv(A.astype(np.float64))
    Yt = np.swapaxes(exact, -1, -2)

    @jax.jit
    def everything(A, G):
        Y, pullback = jax.vjp(jaxinv.inv, A)
        return Y, pullback(G)[0], jax.jvp(jaxinv.inv, (A,), (G,))[1], jax.vmap(jaxinv.inv)(A)

    Y, X_bar, dY, mapped = (np.asarray(out, np.float64) for out in everything(A, G))
    # Errors of the inverse grow with its norm squared, those of the derivatives with its cube; 50 eps is 10 roundings.
    bound = 50 * EPS * norms(exact) * norms(A)
    for got, want in ((Y, exact), (mapped, exact), (X_bar, -Yt @ G @ Yt), (dY, -exact @ G @ exact)):
        scale = (
            np.linalg.norm(want, axis=(-2, -1), keepdims=True)
            + np.linalg.norm(exact, axis=(-2, -1), keepdims=True) ** 2
        )
        assert (np.abs(got - want) <= bound * scale).all()
        assert not (np.abs(1.001 * got - want) <= bound * scale).all()


@pytest.mark.parametrize("first", [np.nan, np.inf, -0.0, -3.0])
@pytest.mark.parametrize(
    ("n", "batch", "dtype"),
    [
        *((4, batch, dtype) for batch in (20, 21) for dtype in (np.float32, np.complex64)),
        *((4, 20, np.complex128), (5, 20, np.float64), (8, 20, np.float32)),
    ],
)
@pytest.mark.usefixtures("on_cpu")
def test_rows_of_the_others_do_not_depend_on_the_first_entry(n, batch, dtype, first):
    """From which a zero comes that takes part in all; nor in an even batch, where two go together."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((batch, n, n)) + 3 * np.eye(n)).astype(dtype)
    if np.iscomplexobj(X):
        X += 1j * rng.standard_normal(X.shape)
    inverse = jax.jit(lambda X: row_lu_inverse(X, True))
    before = inverse(X)
    X[0, 0, 0] = first
    after = inverse(X)
    for out, others in zip(after, before, strict=True):
        np.testing.assert_array_equal(out[1:], others[1:])
    if np.isfinite(first):
        np.testing.assert_allclose(after[0], np.linalg.inv(X), rtol=0, atol=1e4 * np.finfo(dtype).eps)
        determinant = np.prod(np.asarray(after[1]), -1)
        np.testing.assert_allclose(determinant, np.linalg.det(X), rtol=1e3 * np.finfo(dtype).eps)
    if np.isnan(first):
        assert np.isnan(after[0][0]).any()


@pytest.mark.parametrize("batch", [_panel_gauss_jordan.TILE * k + r for k in (1, 2, 24, 2000) for r in (0, 1)])
@pytest.mark.parametrize("n", [9, 24])
def test_panels_on_one_device_are_cut_into_few_chunks_of_whole_tiles(monkeypatch, n, batch):
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    step = _panel_gauss_jordan.panel_step((batch,), n, 4)
    assert step == batch or step % (2 * _panel_gauss_jordan.TILE) == _panel_gauss_jordan.TILE
    chunks = -(-batch // step)
    assert chunks == 1 or chunks * step <= batch + (2 * chunks + 1) * _panel_gauss_jordan.TILE


@pytest.mark.parametrize(("n", "dtype"), [(7, np.complex64), (12, np.complex64), (16, np.complex128)])
def test_panels_of_complex_matrices_are_the_same_on_one_device(monkeypatch, n, dtype):
    """Where both parts of an entry of the result have one index; rows of n = 16 have a column more."""
    rng = np.random.default_rng(n)
    X = (rng.standard_normal((100, n, n)) + 1j * rng.standard_normal((100, n, n))).astype(dtype)
    several = jax.jit(_panel_gauss_jordan.panel_gauss_jordan_inverse)(X)[0]
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    one = jax.jit(lambda X: _panel_gauss_jordan.panel_gauss_jordan_inverse(X)[0])(X)
    exact = np.linalg.inv(X.astype(np.complex128))
    bound = 1e3 * np.finfo(dtype).eps * np.abs(exact).max((1, 2), keepdims=True)
    for Y in (several, one):
        assert (np.abs(np.asarray(Y) - exact) <= bound).all()
    assert not (np.abs(np.roll(one, 1, axis=2) - exact) <= bound).all()


@pytest.mark.parametrize(
    ("n", "pieces"), [(141, 1), (192, 2), (200, 2), (216, 2), (224, 2), (240, 3), (250, 3), (256, 3)]
)
def test_large_matrices_are_factorised_in_few_pieces(monkeypatch, n, pieces):
    monkeypatch.setitem(_lapack.ENTRIES_OF_MANY_THREADS, "float64", 20000)
    entries = []

    def factorised(X):
        entries.append(math.prod(X.shape[1:]))
        return X, jnp.zeros((len(X), X.shape[-1]), jnp.int32)

    monkeypatch.setattr(_blocked_lu, "_factorised_in_parts", factorised)
    X = jax.ShapeDtypeStruct((8, n, n), jnp.float64)
    jax.eval_shape(partial(_blocked_lu._factorised, lambda lower, D: D), X)
    assert len(entries) == pieces
    assert max(entries) < 20000


@pytest.mark.parametrize("n", [3, 4, 19, 20, 21, 22])  # with all rests of the exchanges of a step
def test_places_are_those_of_the_permutation(n):
    pivots = np.random.default_rng(n).integers(np.arange(n), n, (5, 2, n)).astype(np.int32)
    row_of = jax.lax.linalg.lu_pivots_to_permutation(jnp.asarray(pivots), n)
    places = _lu.places(jnp.asarray(pivots))
    np.testing.assert_array_equal(np.argsort(row_of), places)
    with jax.disable_jit():
        np.testing.assert_array_equal(_lu.places(jnp.asarray(pivots)), places)


@pytest.mark.parametrize("shape", [(30, 30), (31, 31), (10, 8, 8), (10, 9, 9), (2, 3, 17, 17), (2, 129, 129)], ids=str)
@pytest.mark.parametrize("way", [_lu._permutation_by_rows, _lu.permutation_on_cpu])
def test_permutation_makes_the_exchanges(shape, way):
    """Of few matrices, of one, of many and of large ones."""
    n = shape[-1]
    pivots = jnp.asarray(np.random.default_rng(n).integers(np.arange(n), n, shape[:-1]).astype(np.int32))
    row_of = jax.lax.linalg.lu_pivots_to_permutation(pivots, n)
    P = way(pivots, row_of, np.float32)
    assert P.dtype == np.float32
    np.testing.assert_array_equal(P, np.eye(n)[np.asarray(row_of)])


def test_places_within_shards_equal_those_without():
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu"))
    pivots = np.random.default_rng(0).integers(0, 13, (8, 13)).astype(np.int32)
    batch = PartitionSpec("batch")
    within = jax.jit(jax.shard_map(_lu.places, mesh=mesh, in_specs=batch, out_specs=batch))
    np.testing.assert_array_equal(within(pivots), _lu.places(jnp.asarray(pivots)))


def test_the_table_gives_each_kernel_its_sizes(monkeypatch):
    """As the README says it, for float32 and complex64."""
    for limit in MEASURED:
        monkeypatch.setattr(*limit)
    name = lambda n, batch, dtype: _kernel_names.kernel_name(n, batch, dtype, "cpu")
    is_serial = _kernel_names.LAPACK_BATCH_IS_SERIAL
    lapack = "batched LU" if is_serial else "LU in turn"
    last = {"float32": 51, "float64": 44, "complex64": 28, "complex128": 24}
    last |= {"float32": 40, "float64": 36, "complex128": 20} if is_serial else {}
    sizes = lambda dtype: (1, 2, 6, 7, 8, 9, last[dtype], last[dtype] + 1, 128, 129, 256, 257)
    kernels = lambda dtype: [name(n, 10**5, dtype) for n in sizes(dtype)]
    fused, panel, row = "fused LU", "panel Gauss-Jordan", "row LU"
    blocked = "blocked LU" if is_serial else lapack
    assert kernels("float32") == ["reciprocal", *[fused] * 3, row, *[panel] * 2, *[blocked] * 4, lapack]
    assert kernels("float64") == ["reciprocal", fused, *[row] * 3, *[panel] * 2, *[blocked] * 4, lapack]
    assert kernels("complex64") == ["reciprocal", *[fused] * 2, *[panel] * 4, *[lapack] * 5]
    assert kernels("complex128") == ["reciprocal", fused, row, *[panel] * 4, *[lapack] * 5]
    from_batch = 90 if is_serial else 45
    assert [name(3, batch, "float32") for batch in (1, from_batch - 1, from_batch)] == ["batched LU", lapack, fused]
    assert [name(n, 400, dtype) for n in (3, 4) for dtype in ("float64", "complex64")] == [fused, row, row, row]
    assert [name(4, batch, "float32") for batch in (79, 100, 10**6)] == [lapack, row, row]
    below = 3456 if is_serial else 1296
    assert [name(6, batch, "float32") for batch in (100, below - 1, below)] == [row, row, fused]
    assert [name(n, 10**6, "complex64") for n in (3, 4, 5)] == [fused, row, fused]
    below = 1728 if is_serial else 432
    assert [name(3, batch, "complex64") for batch in (100, below - 1, below)] == [row, row, fused]
    for dtype, least in {
        "float32": (60, 300),
        "float64": (60, 200),
        "complex64": (80, 200),
        "complex128": (80, 300),
    }.items():
        of = lambda batch, dtype=dtype: name(16, batch, dtype)
        assert [of(1), of(least[is_serial] - 1), of(least[is_serial])] == ["batched LU", lapack, panel]
    assert [name(100, batch, "float64") for batch in (1, 25, 26)] == ["batched LU", lapack, blocked]


def test_the_table_for_few_small_matrices(monkeypatch):
    """As the README says it: in rows where LAPACK's program would be another thread's too."""
    for limit in MEASURED:
        monkeypatch.setattr(*limit)
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    name = lambda n, batch, dtype="float32", follow=False: _kernel_names.kernel_name(
        n, batch, dtype, "cpu", products_follow=follow
    )
    lapack = "batched LU" if _kernel_names.LAPACK_BATCH_IS_SERIAL else "LU in turn"
    for dtype, most in (("float64", 5), ("complex64", 1)):
        assert [name(2, batch, dtype) for batch in (1, most, most + 1)] == [*["fused LU"] * 2, lapack]
    for n, batch in {3: 65, 4: 41, 5: 43, 6: 32, 7: 24, 8: 19}.items():
        before = lapack if n > 3 or _kernel_names.LAPACK_BATCH_IS_SERIAL else "fused LU"
        assert [name(n, b) for b in (batch - 1, batch, 99)] == [before, *["row LU"] * 2]
    assert name(3, 130) == "fused LU"
    for n, batch, last in ((3, 21, 129), (4, 13, 46), (5, 9, 19), (6, 7, 9)):
        of = [name(n, b, follow=True) for b in (batch - 1, batch, last)]
        assert of == [lapack, *["row LU"] * 2]
        assert n == 3 or name(n, last + 1, follow=True) == lapack
    assert [name(3, b, "complex64", True) for b in (20, 21, 30, 31)] == [lapack, *["row LU"] * 2, lapack]
    monkeypatch.setattr(jax, "device_count", lambda *_: 8)
    assert name(4, 41) == name(4, 13, follow=True) == lapack


def test_the_table_for_accelerators(monkeypatch):
    """As the README says it."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    name = lambda n, entries, dtype="float32", platform="gpu": _kernel_names.kernel_name(
        n, -(-entries // n**2), dtype, platform
    )
    elementwise, product, blocks, library = "elementwise LU", "LU and product", "LU and blocks", "library LU"
    passes, many = "elementwise Gauss-Jordan", 8 * 10**6
    sizes = (8, 9, 13, 14, 32, 33, 128, 129)
    assert [name(n, many) for n in sizes] == [elementwise, *[passes] * 2, *[product] * 2, *[blocks] * 2, library]
    assert [name(n, many, "float64") for n in (8, 12, 13, 32, 33)] == [elementwise, passes, *[product] * 2, library]
    assert [name(n, many, "complex64") for n in (6, 7, 10, 11)] == [elementwise, *[passes] * 2, library]
    assert [name(n, many, "complex128") for n in (6, 8, 9, 10, 11)] == [elementwise, passes, *[product] * 2, library]
    assert [name(n, many - n**2) for n in (10, 11, 13, 32, 33)] == [passes, *[product] * 3, library]
    assert [name(n, 4 * 10**6 - n**2) for n in (8, 10, 11, 14, 32)] == [elementwise, passes, *[library] * 3]
    assert [name(n, 4 * 10**6, "complex64") for n in (7, 8, 9, 10)] == [*[passes] * 2, *[product] * 2]
    assert [name(n, 4 * 10**6 - n**2, "complex64") for n in (6, 7, 9)] == [elementwise, *[library] * 2]
    assert [name(n, 2 * 10**6 - n**2) for n in (8, 9, 13)] == [elementwise, *[library] * 2]
    assert [name(n, many, platform="tpu") for n in (8, 9, 32, 33)] == [elementwise, *[library] * 3]
    monkeypatch.setattr(jax, "device_count", lambda *_: 8)
    assert [name(n, many) for n in (8, 9, 32)] == [elementwise, *[product] * 2]
    assert [name(n, many, "complex64") for n in (6, 7, 10)] == [elementwise, *[product] * 2]


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("shape", [(1,), (7,), (512,), (3, 512), (512, 5)], ids=str)
def test_columns_by_a_transposition(monkeypatch, devices, shape):
    monkeypatch.setattr(jax, "device_count", lambda *_: devices)
    vectors = list(np.random.default_rng(0).standard_normal((9, *shape)))
    np.testing.assert_array_equal(_fused.transposed([jnp.asarray(x) for x in vectors]), np.stack(vectors, -1))


@pytest.mark.parametrize(("devices", "n", "shape"), [(1, 3, (7,)), (1, 3, (2, 32)), (1, 5, (64,)), (8, 3, (2, 32))])
def test_elementwise_kernels_on_one_device_and_several_equal_numpy(monkeypatch, devices, n, shape):
    """On one device entries are added to vectors of even length, and left out again."""
    monkeypatch.setattr(jax, "device_count", lambda *_: devices)
    X = np.random.default_rng(n).standard_normal((*shape, n, n)) + 3 * np.eye(n)
    for kernel in ("elementwise LU", "elementwise Gauss-Jordan"):
        Y, factors = jax.jit(partial(_kernels.KERNELS[kernel], with_factors=True))(X)
        np.testing.assert_allclose(Y, np.linalg.inv(X), rtol=0, atol=1e-13 * np.abs(Y).max(), err_msg=kernel)
        np.testing.assert_allclose(factors.prod(-1), np.linalg.det(X), rtol=1e-12, err_msg=kernel)


@pytest.mark.parametrize(("n", "is_complex"), [(7, True), (9, False), (9, True), (13, False)])
def test_each_step_of_an_elimination_is_in_one_kernel_of_few_operations(n, is_complex):
    kernels = _gauss_jordan._steps_of_kernels(n, is_complex)
    assert [step for steps in kernels for step in steps] == list(range(2 * n))
    scalars = [jnp.ones(1, np.complex64)] * (n * n if is_complex else -(-(n**2) // 2))
    for steps in kernels:
        known = sum(step < n for step in range(steps[0]))
        operands = [*scalars, *[jnp.ones(1, np.int32)] * known]
        f = partial(_gauss_jordan._after, n, steps, len(scalars), is_complex, False)
        operations = [eqn.primitive.name for eqn in jax.make_jaxpr(f)(*operands).eqns]
        counted = sum(_gauss_jordan._operations(n, step, is_complex) for step in steps)
        spent = len(operations) - sum(name in ("broadcast_in_dim", "real", "imag", "complex") for name in operations)
        assert abs(spent - counted) < 0.1 * counted, steps


@pytest.mark.parametrize(("n", "batch"), [(2, 512), (3, 512), (8, 512), (3, 96)])  # 96: tiles would span devices
def test_elementwise_kernel_of_a_batch_sharded_in_auto_mode_does_not_communicate(n, batch):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu"))
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    f = jax.jit(lambda X: _kernels.KERNELS["elementwise LU"](X, True), in_shardings=sharding, out_shardings=sharding)
    program = f.lower(jax.ShapeDtypeStruct((batch, n, n), np.float32)).compile().as_text()
    assert not [word for word in COLLECTIVES if word in program]


OPS = ["".join(ops) for ops in itertools.product("NT", repeat=3)]
PRODUCT_CASES = [
    *((n, 3, float) for n in (2, 4, 5, 6, 16, 17)),
    *((n, _product_names.SUMS_FROM_BATCH, float) for n in (4, 5, 8, 10, 16)),
    *((4, _product_names.SUMS_FROM_BATCH, complex), (16, _product_names.SUMS_FROM_BATCH, np.float32)),
    *((3, 10, float), (7, None, float), (10, None, complex), (16, None, float), (17, 150, float)),
    *((2, 3, complex), (4, 3, complex), (17, 3, complex), (_product_names.COMPLEX_IN_PARTS_OF_FEW_FROM, 3, complex)),
]


def assert_products_agree_with_numpy(product, n, batch, dtype):
    """Of all eight choices of transposes, with an operand that occurs twice."""
    rng = np.random.default_rng(n)
    shape = (2, n, n) if batch is None else (2, batch, n, n)
    operands = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if dtype is complex else 0)
    operands = operands.astype(dtype)
    which = (0, 1, 0)
    all_products = jax.jit(lambda *operands: {ops: product(ops, operands, which) for ops in OPS})
    for ops, got in all_products(*operands).items():
        A, B, C = (operands[i].swapaxes(-1, -2) if op == "T" else operands[i] for op, i in zip(ops, which, strict=True))
        bound = 400 * np.finfo(dtype).eps * n**1.5
        np.testing.assert_allclose(np.asarray(got), -A @ B @ C, rtol=0, atol=bound, err_msg=ops)


@pytest.mark.parametrize(("n", "batch", "dtype"), PRODUCT_CASES)
def test_product_kernel_agrees_with_numpy(n, batch, dtype):
    product_kernel = partial(_products.product_kernel, precision=None, platform=jax.default_backend())
    product = lambda ops, operands, which: product_kernel(*operands, ops=ops, which=which)
    assert_products_agree_with_numpy(product, n, batch, dtype)


@pytest.mark.parametrize("name", _products.PRODUCTS)
def test_each_product_of_the_table_agrees_with_numpy(name):
    """By its name, those of a GPU too."""
    product = lambda ops, operands, which: _products.PRODUCTS[name](ops, [operands[i] for i in which], None)
    n, batch = {"entries": (2, 3), "dots of strips": (_product_names.STRIP + 1, None)}.get(name, (5, 3))
    assert_products_agree_with_numpy(product, n, batch, float)
    with pytest.raises(AssertionError, match="Not equal"):
        assert_products_agree_with_numpy(lambda *args: 1.001 * product(*args), n, batch, float)


@pytest.mark.parametrize("batch", [None, 3])
def test_strips_of_complex_matrices_agree_with_numpy(batch, monkeypatch):
    monkeypatch.setattr(_products, "STRIP", 8)
    product = lambda ops, operands, which: _products.PRODUCTS["dots of strips"](ops, [operands[i] for i in which], None)
    assert_products_agree_with_numpy(product, 19, batch, complex)


def test_cases_reach_every_product_on_cpu():
    name = lambda ops, n, batch, dtype: _product_names.product_name(n, batch or 1, dtype, "cpu", batch is None, ops)
    names = {name(ops, *case) for ops in OPS for case in PRODUCT_CASES}
    assert names == set(_products.PRODUCTS) - {"sums in two kernels", "dots of strips"}  # of GPU, of one device


def test_the_table_of_products_of_small_matrices():
    """As its limits in `_product_names` say."""
    name = lambda n, dtype, ops, batch=64: _product_names.product_name(n, batch, dtype, "cpu", ops=ops)
    entries, one, two, rows, columns = (
        ["entries"],
        *(["sums " + s] for s in ("in one loop", "in two loops", "by rows", "by columns")),
    )
    names = lambda dtype, ops: [name(n, dtype, ops) for n in range(2, 11)]
    assert names("float32", "TNT") == entries + one + rows + one + two + rows * 3 + two
    assert names("float32", "NNN") == entries + one + rows + columns * 4 + rows + two
    assert names("float64", "TNT") == entries + one + rows + one + rows * 4 + two
    assert names("float64", "TNN") == entries + one + rows + columns + rows * 4 + two
    for dtype, ops in itertools.product(("complex64", "complex128"), OPS):
        assert names(dtype, ops) == entries + one + rows * 3 + two + rows + two * 2
    assert [name(n, "float32", "NNN", batch=63) for n in (3, 4, 5, 8)] == one * 2 + two * 2
    for dtype, ops in itertools.product(("float32", "float64", "complex64"), OPS):
        of_larger = ["sums of copies"] if "T" in ops and dtype == "float32" else two
        assert [name(n, dtype, ops) for n in range(10, 17)] == two + of_larger * 6
        assert [name(16, dtype, ops, batch) for batch in (8192, 8193)] == of_larger + two


@pytest.mark.parametrize(
    ("n", "batch", "is_sum"),
    [(8, 1, False), (8, 3, False), (8, 4, True), (9, 63, False), (9, 64, True), (16, 64, True), (17, 10**4, False)],
)
@pytest.mark.usefixtures("on_cpu")
def test_products_on_cpu_are_sums_to_their_limits(n, batch, is_sum):
    X = jax.ShapeDtypeStruct((batch, n, n), np.float32)
    kernel = jax.jit(partial(_products.product_kernel, ops="TNT", which=(0, 1, 0), precision=None, platform="cpu"))
    assert ("dot_general" not in kernel.lower(X, X).as_text()) == is_sum


@pytest.mark.parametrize(("dtype", "fewest"), [("float32", 1), ("float64", 1), ("complex64", 2), ("complex128", 2)])
@pytest.mark.parametrize("batch", [1, 2])
def test_products_of_large_matrices_go_by_strips_on_one_device(batch, dtype, fewest, monkeypatch):
    sizes = _product_names.STRIPS_FROM - 1, _product_names.STRIPS_FROM, 4096
    names = lambda: [_product_names.product_name(n, batch, dtype, "cpu", batch == 1) for n in sizes]
    without = names()
    assert "dots of strips" not in without
    monkeypatch.setattr(jax, "device_count", lambda *args: 1)
    assert names() == ([without[0], "dots of strips", "dots of strips"] if batch >= fewest else without)


def test_products_of_few_that_are_counted_go_by_rows():
    """Where the program of the inverse and these is one for the thread that calls it, see `_lu.FEW_OPERATIONS`."""
    name = lambda n, batch, dtype="float32": _product_names.product_name(n, batch, dtype, "cpu", batch == 1)
    most = {6: 6, 7: 4, 8: 3, 10: 2, 15: 1}
    for dtype in ("float32", "complex64"):
        assert {name(n, batch, dtype) for n, batch in most.items()} == {"rows"}
    assert "rows" not in {name(n, batch + 1, "complex64") for n, batch in most.items()}
    assert [name(n, 1) for n in (6, 16)] == ["sums in two loops", "dots"]
    assert name(1, 225) == "sums in one loop"
    most = _product_names.ROWS_OF_TWO[1]
    assert [name(2, batch) for batch in (14, 15, most, most + 1)] == ["entries", "rows", "rows", "entries"]
    assert [name(2, batch, "complex64") for batch in (4, 5, 40)] == ["entries", "rows", "entries"]


def test_products_of_few_are_sums_to_a_limit_of_their_dtype():
    name = lambda n, dtype: _product_names.product_name(n, 10, dtype, "cpu")
    for n, dtype in ((8, "float32"), (12, "float64"), (8, "complex64")):
        assert name(n, dtype) == "sums in two loops"
        assert name(n + 1, dtype) != "sums in two loops"


def test_complex_products_of_few_are_in_parts_from_larger_n_on():
    name = lambda n, batch: _product_names.product_name(n, batch, "complex64", "cpu")
    assert [name(48, batch) for batch in (1, 10, 11)] == ["dots", "dots", "dots of parts"]
    assert [name(n, 2) for n in (71, 72)] == ["dots", "dots of parts"]


def test_transposed_factors_of_few_are_not_copied():
    name = lambda batch, dtype: _product_names.product_name(32, batch, dtype, "cpu")
    for dtype in ("float32", "float64", "complex64"):
        assert [name(batch, dtype) for batch in (41, 42)] == ["dots", "dots of copies"]


@pytest.mark.parametrize(
    ("n", "batch", "dtype", "is_few"),
    [
        *((8, 20, "float32", False), (14, 9, "float32", False), (16, 20, "float32", True), (16, 1, "float32", False)),
        *((32, 10, "float64", True), (32, 11, "float32", False), (17, 2, "complex64", False)),
        *((25, 10, "float32", True), (26, 10, "float32", False), (13, 10, "float64", True), (12, 10, "float64", False)),
    ],
)
@pytest.mark.usefixtures("on_cpu")
def test_products_of_few_on_cpu_go_by_rows(n, batch, dtype, is_few):
    X = jax.ShapeDtypeStruct((batch, n, n), dtype)
    kernel = jax.jit(partial(_products.product_kernel, ops="TNT", which=(0, 1, 0), precision=None, platform="cpu"))
    assert ("stablehlo.while" in kernel.lower(X, X).as_text()) == (is_few and _kernel_names.LAPACK_BATCH_IS_SERIAL)
