"""What XLA makes for CPU of the kernels, read in the compiled programs: what costs time and changes no number."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest

import jaxinv
from jaxinv import _blocked_lu, _kernel_names, _kernels, _lapack, _panel_gauss_jordan, _product_names, _products

MATRICES = 4096


def gradient(X, G):
    return jax.vjp(jaxinv.inv, X)[1](G)


def compiled(f, *shapes, dtype="float32"):
    return jax.jit(f).lower(*(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)).compile().as_text()


def operations(program):
    """Of the entry computation, but for its parameters."""
    entry = re.search(r"^ENTRY .*?^}", program, re.MULTILINE | re.DOTALL)[0]
    return [name for name in re.findall(r" = \S+ ([a-z-]+)\(", entry) if name != "parameter"]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("f", [jaxinv.inv, gradient], ids=["inv", "gradient"])
def test_2_x_2_matrices_take_a_loop_for_each_result(f, dtype):
    """One for Y and one for the products of its gradient: no copy, no stacking, nothing computed once for each use."""
    shape = (MATRICES, 2, 2)
    results = {jaxinv.inv: 1, gradient: 2}[f]
    program = compiled(f, *[shape] * results, dtype=dtype)
    assert operations(program) == ["fusion"] * results
    assert "concatenate(" not in program
    # Of an elimination: 1 / u_00, for complex numbers in two steps, l_10, and 1 / u_11; and the one of `gathered`.
    divisions = {"float32": 3 + 1, "float64": 3 + 1, "complex64": 4 + 2}[dtype]
    assert len(re.findall(r" divide\(", program)) == divisions + (results - 1) * (1 + (dtype == "complex64"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inverse_and_factors_of_2_x_2_matrices_share_no_loop(dtype):
    """Else what both need would be in one more, entry by entry: Y, the factors, signs, logarithms, their sum."""
    assert operations(compiled(jaxinv.inv_logdet, (MATRICES, 2, 2), dtype=dtype)) == ["fusion"] * 5


@pytest.mark.parametrize("batch", [65536, 65535])
def test_loop_has_lanes_for_cores(monkeypatch, batch):
    """Split in parts of unequal length, it would ask in each step whether its part has ended: four times as slow."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    program = compiled(jaxinv.inv, (batch, 3, 3))
    assert len(re.findall(r"ROOT \S+ = \(f32\[16,4096\]\{1,0\}, .* reduce\(", program)) == 1
    assert " while(" not in program


USES_OF_INVERSE = {
    "alone": lambda Y: Y,
    "with its transpose": lambda Y: Y + Y.mT,
    "with a column of it": lambda Y: jnp.concatenate([Y, Y[..., :1]], axis=-1),
    "rows and columns": lambda Y: (jnp.sum(Y, axis=-1), jnp.sum(Y, axis=-2)),
}


@pytest.mark.parametrize("use", USES_OF_INVERSE)
@pytest.mark.parametrize("n", [4, 8])
def test_rows_are_solved_for_once_whatever_uses_them(monkeypatch, n, use):
    """Without the conditional, the sum of an inverse and its transpose would take thirty times as long."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    batch = _kernel_names.ROW_BELOW_BATCH * n**3 - 1
    program = compiled(lambda X: USES_OF_INVERSE[use](jaxinv.inv(X)), (batch, n, n))
    assert len(re.findall(r" conditional\(", program)) == 1
    assert len(re.findall(r" divide\(", program)) == n * (n - 1) // 2 + n  # l_ij and 1 / u_ii
    assert not re.search(r" copy\(%X", program)


@pytest.mark.parametrize(("n", "is_of_each_row"), [(4, True), (6, False), (8, True)])
def test_factorisation_is_one_of_all_rows_but_where_they_fill_a_vector(monkeypatch, n, is_of_each_row):
    """There the compilers are not to know that it is the same for all rows, and take it out of their loop."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    program = compiled(jaxinv.inv, (201, n, n))
    (loop,) = (body for body in re.findall(r"^%\S+ \(.*?^}", program, re.M | re.S) if " divide(" in body)
    operands_of = {name: re.findall(r"%[\w.-]+", rest) for name, rest in re.findall(r"(%[\w.-]+) = (.*)", loop)}
    of_rows = set(re.findall(r"(%\S+) = f32\S+ convert\(%iota", loop))  # times a zero, in the first entry
    while grown := {name for name, operands in operands_of.items() if of_rows & {*operands}} - of_rows:
        of_rows |= grown
    divisions = set(re.findall(r"(%\S+) = \S+ divide\(", loop))
    assert len(divisions) == n * (n - 1) // 2 + n
    assert divisions & of_rows == (divisions if is_of_each_row else set())


@pytest.mark.parametrize(("dtype", "together"), [("float32", 2), ("float64", 1), ("complex64", 2), ("complex128", 1)])
def test_matrices_whose_rows_fill_a_vector_together_are_factorised_together(monkeypatch, dtype, together):
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    program = compiled(jaxinv.inv, (200, 4, 4), dtype=dtype)
    shapes = set(re.findall(r"= f\d\d\[([\d,]+)\]\S* divide\(", program))
    assert shapes == {f"{200 // together},{4 * together},4"}
    assert not re.search(r" copy\(%X", program)


@pytest.mark.parametrize(
    ("n", "dtype", "loops"),
    [
        *((n, dtype, 1) for n in (3, 4) for dtype in ("float32", "complex64")),
        *((5, "float32", 1), (8, "float64", 1), (10, "float32", 2), (11, "float32", 3), (16, "complex64", 2)),
    ],
)
def test_products_of_small_matrices_take_few_loops(n, dtype, loops):
    """Most to n = 9 one. Of two the first is stored by the loop that computes it, without a copy.

    The third copies Y^T, which both read.
    """
    product = partial(_products.product_kernel, ops="TNT", which=(0, 1, 0), precision=None, platform="cpu")
    assert operations(compiled(product, (MATRICES, n, n), (MATRICES, n, n), dtype=dtype)) == ["fusion"] * loops


@pytest.mark.parametrize(("batch", "matrices"), [((), 0), ((3, 2), 2)])
def test_products_by_strips_take_the_memory_of_a_few_of_them(batch, matrices):
    """A transpose written before the loop, or a sign after it, would take that of the whole.

    Of a batch two factors are copied, one pair at a time.
    """
    n = 4 * _product_names.STRIP
    product = partial(_products.PRODUCTS["dots of strips"], "TNT", precision=None)
    X = jax.ShapeDtypeStruct((*batch, n, n), jnp.float64)
    memory = jax.jit(lambda Y, G: product([Y, G, Y])).lower(X, X).compile().memory_analysis()
    assert memory.temp_size_in_bytes < (matrices + 2.1 / 4) * n**2 * X.dtype.itemsize


@pytest.mark.parametrize("use", USES_OF_INVERSE)
@pytest.mark.parametrize(("n", "ops"), [(4, "TNT"), (5, "NNN")])
def test_products_in_one_loop_are_computed_once_whatever_uses_them(n, ops, use):
    """Else the sum of a product and its transpose would take forty times as long; nor is a transposed factor copied."""
    product = partial(_products.product_kernel, ops=ops, which=(0, 1, 0), precision=None, platform="cpu")
    program = compiled(lambda Y, G: USES_OF_INVERSE[use](product(Y, G)), *[(MATRICES, n, n)] * 2)
    assert len(re.findall(r" multiply\(", program)) == 2 * n**2  # of vectors of n entries
    (loop,) = (body for body in re.findall(r"^%\S+ \(.*?^}", program, re.M | re.S) if " multiply(" in body)
    assert " reduce(" in loop  # which XLA fuses with nothing that uses it
    assert " transpose(" not in program or use == "with its transpose"


@pytest.mark.parametrize("batch", [MATRICES, pytest.param(MATRICES - 5, marks=pytest.mark.long)])
def test_panels_read_what_they_eliminate_where_it_lies(monkeypatch, batch):
    """In whole tiles; no panel is copied, and its rows are gathered once, as is the result."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    program = compiled(_panel_gauss_jordan.panel_gauss_jordan_inverse, (batch, 12, 12))
    tiles, panel = (
        f"f32[{MATRICES // _panel_gauss_jordan.TILE},12,{columns},{_panel_gauss_jordan.TILE}]" for columns in (12, 2)
    )
    assert tiles in program
    assert not re.search(re.escape(panel) + r"\S* dynamic-slice\(", program)
    assert program.count(" gather(") == 2


@pytest.mark.parametrize(("n", "gathers"), [(_panel_gauss_jordan.SELECTED_UP_TO, 2), (12, 4)])
def test_panels_of_complex_matrices_gather_both_parts_by_one_index(monkeypatch, n, gathers):
    """The result alone, where rows are few enough to be selected; of its place on each axis four would be written."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    X = (MATRICES, n, n)
    program = compiled(_panel_gauss_jordan.panel_gauss_jordan_inverse, X, dtype="complex64")
    assert program.count(" gather(") == gathers
    assert not re.search(rf"[su]32\[\d+,{_panel_gauss_jordan.TILE},{n},{n},4\]", program)


@pytest.mark.parametrize("matrices", [5, 200])
def test_factorisations_of_a_batch_are_many_calls(matrices, monkeypatch):
    """On one device, where each runs in one thread: for fewer than nine XLA uses one thread only."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    program = compiled(partial(_blocked_lu.blocked_lu_inverse, lambda lower, D: D), (matrices, 40, 40))
    calls = min(matrices, 32) if _lapack.LAPACK_BATCH_IS_SERIAL else 1  # of the body of a loop, lest they hang
    assert len(re.findall(r"custom_call_target=\"lapack_sgetrf_ffi\"", program)) == calls


@pytest.mark.parametrize("n", [4, 64])
def test_chunks_keep_their_memory(monkeypatch, n):
    """Beyond 32 MiB the allocator gives temporaries back after each call, and their pages are new in the next."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    X = jax.ShapeDtypeStruct((2**26 // n**2, n, n), jnp.float32)
    assert jax.jit(jaxinv.inv).lower(X).compile().memory_analysis().temp_size_in_bytes < 2**25


@pytest.mark.parametrize("shape", [(2, 2), (17, 17), (30, 30), (2, 21, 21), (3, 17, 17), (10, 8, 8)], ids=str)
def test_inverses_of_few_matrices_stay_in_the_calling_thread(shape):
    """JAX wakes another for a program of 1000 operations or more: the inverse takes twice as long."""
    X = jax.ShapeDtypeStruct(shape, "float32")
    f = partial(_kernels.KERNELS["batched LU"], with_factors=False)
    assert jax.jit(f).lower(X).compile().cost_analysis()["flops"] < 1000


SHAPES_OF_FEW = [(6, 6), (7, 7), (15, 15), (2, 10, 10), (4, 7, 7), (6, 6, 6), (12, 4, 4), (10, 3, 3), (15, 2, 2)]


@pytest.mark.parametrize("shape", SHAPES_OF_FEW, ids=str)
@pytest.mark.parametrize("f", [gradient, lambda X, dX: jax.jvp(jaxinv.inv, (X,), (dX,))], ids=["gradient", "jvp"])
def test_derivatives_of_few_small_matrices_stay_in_the_calling_thread(f, shape):
    """JAX wakes another for a program of 1000 operations or more: five times as slow."""
    X = jax.ShapeDtypeStruct(shape, "float32")
    assert jax.jit(f).lower(X, X).compile().cost_analysis()["flops"] < 1000
