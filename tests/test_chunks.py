"""Large batches that are worked on in chunks, lanes and parts: every place of them, wherever they are cut."""

import re

import jax
import numpy as np
import pytest
from _accuracy import inverse
from _cases import x64_off

from jaxinv import _blocked_lu, _chunks, _fused, _kernels, _lapack, _panel_gauss_jordan

pytestmark = pytest.mark.usefixtures("little_optimised")

# n and as many matrices as a chunk holds.
CHUNKS = {
    "fused LU": (5, _fused.ONE_PASS_BYTES // (5 * 5 * 8)),
    "panel Gauss-Jordan": (13, _chunks.LANES * _panel_gauss_jordan.panel_step((2**20,), 13, 8)),
    "blocked LU": (33, _chunks.LANES * _blocked_lu.blocked_step((2**20,), 33, 8)),
}


def is_long(kernel, batch):
    return batch == "one + 64" or (kernel != "fused LU" and batch in ("one", "17"))  # which compile for seconds


def later(kernel, batch):
    return [pytest.mark.later] * (kernel != "fused LU" and batch == "one + 1")


@pytest.mark.parametrize(
    ("kernel", "batch"),
    [
        pytest.param(kernel, batch, marks=[pytest.mark.long] if is_long(kernel, batch) else later(kernel, batch))
        for kernel in CHUNKS
        for batch in ("one", "one + 1", "one + 64", "two - 1", "17")
    ],
)
@pytest.mark.usefixtures("on_cpu")
def test_chunks_cover_the_batch(kernel, batch):
    """Every place of a batch that is cut into chunks and tiles, also where they do not divide it."""
    n, one = CHUNKS[kernel]
    A = np.random.default_rng(0).uniform(-1, 1, (eval(batch, {"one": one, "two": 2 * one}), n, n)) + 2 * n * np.eye(n)
    np.testing.assert_allclose(np.asarray(inverse(kernel, A)), np.linalg.inv(A), rtol=0, atol=1e-15)


ON_ONE_DEVICE = [
    *(("fused LU", 4, batch) for batch in ((511,), (513,), (520,), (5, 2049), (2**12,))),
    *(("fused LU", 4, (_fused.ONE_PASS_BYTES // (4 * 4 * 8) + more,)) for more in (0, 1, 8)),
    *(("fused LU", 5, (size,)) for size in (2**12, 2**13, 3 * 2**12)),
    *(("row LU", 4, batch) for batch in ((1,), (513,), (5, 2049))),
    *(("row LU", 5, batch) for batch in ((100,), (3, 33))),
    *(("panel Gauss-Jordan", 9, batch) for batch in ((97,), (3, 1400))),
    *(pytest.param("panel Gauss-Jordan", 9, batch, marks=pytest.mark.long) for batch in ((31,), (96,), (5001,))),
    *(pytest.param("panel Gauss-Jordan", 10, batch, marks=pytest.mark.long) for batch in ((97,), (3, 1400))),
]


@pytest.mark.parametrize(("kernel", "n", "batch"), ON_ONE_DEVICE, ids=str)
@pytest.mark.usefixtures("on_cpu")
def test_chunks_on_one_device_equal_numpy(monkeypatch, kernel, n, batch):
    """Where axes are merged, loops have lanes, and a chunk comes from fewer places than on several devices."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    X = np.random.default_rng(0).uniform(-1, 1, (*batch, n, n)) + 2 * n * np.eye(n)
    Y, factors = jax.jit(lambda X: _kernels.KERNELS[kernel](X, True))(X)
    np.testing.assert_allclose(np.asarray(Y), np.linalg.inv(X), rtol=0, atol=1e-15)
    np.testing.assert_allclose(np.prod(np.asarray(factors), -1), np.linalg.det(X), rtol=1e-13)


@pytest.mark.parametrize("batch", [(2**12,), (3, 1400)], ids=str)
@pytest.mark.usefixtures("on_cpu")
def test_chunks_of_more_places_than_an_index_counts_equal_numpy(monkeypatch, batch):
    monkeypatch.setattr(_chunks, "PLACES", 1000)
    test_chunks_on_one_device_equal_numpy(monkeypatch, "fused LU", 5, batch)


@pytest.mark.parametrize("batch", [2**31 // 9 - 1, 2**31 // 9 + 1])
def test_an_index_of_32_bits_counts_the_results_of_a_huge_batch(monkeypatch, batch):
    """Without x64, by default, the place at which a chunk of results is written has no more."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    X = jax.ShapeDtypeStruct((batch, 3, 3), np.float32)
    with x64_off():
        program = jax.jit(lambda X: _kernels.KERNELS["fused LU"](X, False)).lower(X).as_text()
    operands = re.findall(r"stablehlo.dynamic_update_slice .*: \(tensor<([0-9x]+)xf32>", program)
    sizes = [[int(size) for size in operand.split("x")] for operand in operands]
    assert sizes == [[1, 9 * batch] if 9 * batch < 2**31 else [1, batch, 9]]


@pytest.mark.parametrize("entries", [9, 36, 64])
@pytest.mark.parametrize("batch", [4096, 65536, 100001, 10**6])
def test_vectors_of_a_fused_chunk_share_no_sets_of_the_cache(monkeypatch, batch, entries):
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    step, unit = _fused.fused_step((batch,), entries, 4), _fused.MATRICES_OF_CHUNK
    assert step % (2 * unit) == unit
    assert step * 4 % _fused.PAGE
    assert step * entries * 4 <= _fused.CHUNK_BYTES + 2 * unit * entries * 4
    assert 2 * step * entries * 4 > _fused.CHUNK_BYTES or 2 * step >= batch


@pytest.mark.parametrize("chunk_bytes", [_blocked_lu.CHUNK_BYTES, 2**17])
@pytest.mark.parametrize(
    ("n", "batch"),
    [(33, (7,)), (33, (5, 27)), *(pytest.param(n, (2,), marks=pytest.mark.long) for n in (33, 248))],
    ids=str,
)
@pytest.mark.usefixtures("on_cpu")
def test_blocks_in_parts_on_one_device_equal_numpy(monkeypatch, n, batch, chunk_bytes):
    """Of the eight devices of the tests none may be given a part, so that users of one take another way."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    monkeypatch.setattr(_blocked_lu, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setitem(_lapack.ENTRIES_OF_MANY_THREADS, "float64", 600 if n < 100 else 20000)
    X = np.random.default_rng(0).standard_normal((*batch, n, n)) / n**0.5
    Y, factors = jax.jit(lambda X: _kernels.KERNELS["blocked LU"](X, True))(X)
    exact = np.linalg.inv(X)
    np.testing.assert_allclose(np.asarray(Y), exact, rtol=0, atol=1e-11 * np.abs(exact).max())
    np.testing.assert_allclose(np.prod(np.asarray(factors), -1), np.linalg.det(X), rtol=1e-9)
