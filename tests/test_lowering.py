"""What is lowered for GPUs and TPUs, read in the exported StableHLO: such a device is not needed, and nothing runs.

Left open is what the compiler of the device makes of it: whether it fuses, and whether a fusion computes twice.
"""

import re
from collections import Counter
from functools import cache, partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

import jaxinv
from jaxinv import _kernels, _products
from jaxinv._kernel_names import PRODUCT_FROM_ENTRIES, PRODUCT_UP_TO, UNROLLED_COMPLEX_UP_TO, UNROLLED_UP_TO
from jaxinv._kernels import inverse_kernel
from jaxinv._lowering import device_count
from jaxinv._product_names import SUMS_ON_GPU

MATRICES = 1000


def gradient(X, precision=None):
    return jax.grad(lambda X: jnp.sum(jnp.sin(jaxinv.inv(X, precision=precision))).real)(X)


def jvp(X, precision=None):
    return jax.jvp(partial(jaxinv.inv, precision=precision), (X,), (X,))


def vmap_with_odd_axes(X):
    """Of shape (n, batch, n, 3)."""
    return jax.vmap(jax.vmap(jaxinv.inv, in_axes=1, out_axes=-1), in_axes=-1, out_axes=1)(X)


FUNCTIONS = {"inv": jaxinv.inv, "gradient": gradient, "jvp": jvp, "vmap": vmap_with_odd_axes}

SIZES = (1, 2, 3, UNROLLED_UP_TO)
COMPLEX_SIZES = (1, 2, UNROLLED_COMPLEX_UP_TO)
small = pytest.mark.parametrize(
    ("n", "dtype"),
    [
        *((n, jnp.float32) for n in SIZES),
        *(pytest.param(n, jnp.bfloat16, marks=[pytest.mark.later] if n > 2 else []) for n in SIZES),
        *((n, jnp.complex64) for n in COMPLEX_SIZES),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
batches = pytest.mark.parametrize("batch", [(), (MATRICES,)], ids=str)
dtypes = pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64, jnp.bfloat16], ids=lambda d: d.__name__)
functions = pytest.mark.parametrize("name", FUNCTIONS)
accelerators = pytest.mark.parametrize("platform", ["cuda", pytest.param("tpu", marks=pytest.mark.later)])


def exported(f, shape, dtype=jnp.float32, platforms=("cuda",)):
    module = jax.export.export(jax.jit(f), platforms=platforms)(jax.ShapeDtypeStruct(shape, dtype)).mlir_module()
    return without_locations(module)


@cache
def lowered(name, n, batch, dtype, *platforms):
    shape = (n, *(batch or (1,)), n, 3) if name == "vmap" else (*batch, n, n)
    return exported(FUNCTIONS[name], shape, dtype, platforms)


def without_locations(module):
    """They hold the names of files and of functions, which say nothing about operations."""
    return re.sub(r'loc\("[^"]*"', 'loc(""', module)


def custom_calls(module):
    """Their targets. No harmless one, of a sharding or of an assertion on shapes, appears in these modules."""
    return re.findall(r'stablehlo\.custom_call\b.*?(?:@|call_target_name = )"?([\w.$]*)', module)


def host_calls(module):
    """Callbacks into Python, custom calls or, on TPU, transfers."""
    transfers = re.findall(r"stablehlo\.(send|recv|infeed|outfeed)\b", module)
    return [target for target in custom_calls(module) if "callback" in target] + transfers


def double_precision(module):
    return re.findall(r"(?:\b|x)f64\b.*", module)


def loops(module):
    return re.findall(r"stablehlo\.while\b.*", module)


def work(module):
    """How often each operation stands there."""
    return Counter(re.findall(r"stablehlo\.(\w+)", module))


def called_again(module):
    """Functions called from more than one place, whose operations count once in `work`."""
    return [name for name, calls in Counter(re.findall(r"\bcall @(\w+)", module)).items() if calls > 1]


def precisions(module):
    """Of the two operands of each matrix product. DEFAULT is printed as nothing."""
    products = re.findall(r"stablehlo\.dot_general\b.*", module)
    named = [re.search(r"precision = \[(\w+), (\w+)\]", product) for product in products]
    return [match.groups() if match else ("DEFAULT", "DEFAULT") for match in named]


@small
@batches
@functions
@accelerators
def test_small_matrices_need_no_library_no_host_no_loop_and_no_float64(n, batch, dtype, name, platform):
    module = lowered(name, n, batch, dtype, platform)
    assert not custom_calls(module), f"custom calls: {custom_calls(module)}"
    assert not host_calls(module), f"calls of the host: {host_calls(module)}"
    assert not double_precision(module), f"float64: {double_precision(module)}"
    assert not loops(module), f"loops: {loops(module)}"
    if n <= SUMS_ON_GPU:
        assert not precisions(module), f"matrix products, which may be less precise: {precisions(module)}"


# Divisions: n (n - 1) / 2 multipliers of L and n reciprocals of the pivots, for all n^2 entries of the inverse at once.
# Multiplications: n (n - 1) (2 n - 1) / 6 of the elimination and, for each of n columns, n (n - 1) / 2 of the forward
# and n (n - 1) / 2 + n of the backward substitution. Subtractions: as many without these last n.
# Complex numbers are pairs: a product is four and a difference, a difference two, and a multiplier is a product with
# the reciprocal, which is two divisions and six products.
def most_work(n, dtype):
    multipliers = n * (n - 1) // 2
    subtractions = n * (n - 1) * (2 * n - 1) // 6 + n * n * (n - 1)
    products = subtractions + n * n
    if dtype != jnp.complex64 or n == 1:
        return {"divide": multipliers + n, "multiply": products, "subtract": subtractions}
    products += multipliers
    return {"divide": 2 * n, "multiply": 4 * products + 6 * n, "subtract": 2 * subtractions + products}


@small
@batches
@pytest.mark.parametrize("name", ["inv", "vmap"])
@accelerators
def test_inverse_is_the_work_of_one_lu(n, batch, dtype, name, platform):
    module = lowered(name, n, batch, dtype, platform)
    count = work(module)
    assert count["divide"], "no division: is this the inverse?"
    for operation, most in most_work(n, dtype).items():
        assert count[operation] <= most, f"{count[operation]} times {operation}"
    assert not called_again(module), f"called more than once: {called_again(module)}"


@pytest.mark.parametrize("n", SIZES)
@batches
@accelerators
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("gradient", jnp.float32), pytest.param("gradient", jnp.bfloat16, marks=pytest.mark.later), ("jvp", jnp.float32)],
)
def test_derivative_inverts_once(n, batch, dtype, name, platform):
    module = lowered(name, n, batch, dtype, platform)
    assert 0 < work(module)["divide"] <= most_work(n, dtype)["divide"], f"{work(module)['divide']} divisions"
    assert not called_again(module), f"called more than once: {called_again(module)}"


@pytest.mark.parametrize(
    ("n", "dtype"), [*((n, jnp.float32) for n in SIZES), *((n, jnp.complex64) for n in COMPLEX_SIZES)]
)
@batches
def test_module_for_all_platforms_has_no_host_calls_and_no_float64(n, batch, dtype):
    module = lowered("gradient", n, batch, dtype, "cpu", "cuda", "tpu")  # the inverse is in it
    assert not host_calls(module), f"calls of the host: {host_calls(module)}"
    assert not double_precision(module), f"float64: {double_precision(module)}"
    if batch:  # on CPU too, where a single matrix goes through LAPACK
        assert not custom_calls(module), f"custom calls: {custom_calls(module)}"


@pytest.mark.parametrize("n", [UNROLLED_UP_TO + 1, 32])
@dtypes
def test_larger_matrices_have_no_host_calls_and_no_float64(n, dtype):
    module = lowered("gradient", n, (MATRICES,), dtype, "cuda")  # the inverse is in it
    assert not host_calls(module), f"calls of the host: {host_calls(module)}"
    assert not double_precision(module), f"float64: {double_precision(module)}"


@pytest.mark.parametrize(
    ("n", "batch"), [(UNROLLED_UP_TO + 1, ()), (9, (10,)), (9, (PRODUCT_FROM_ENTRIES // 9,))], ids=str
)
def test_library_on_gpu_does_not_decide_about_nan(n, batch):
    """X itself is asked for nan: on an NVIDIA H200 inverses of one matrix with a nan had none."""
    module = without_locations(lowered("inv", n, batch, jnp.float32, "cuda"))
    shape = "x".join(map(str, (*batch, n, n)))
    assert re.search(rf"stablehlo\.compare\s+NE, %arg0, %arg0.*tensor<{shape}xf32>", module)


@pytest.mark.parametrize(
    ("platforms", "traced"),
    [(("cpu",), {"cpu"}), (("cuda",), {"gpu"}), (("tpu",), {"tpu"}), (("cpu", "cuda", "rocm"), {"cpu", "gpu"})],
)
def test_kernels_are_traced_for_the_platforms_of_the_program_alone(monkeypatch, platforms, traced):
    """Those of others would take most of the time to lower small programs."""
    seen = {"kernel_name": set(), "product_name": set()}

    def watch(module, name, table):
        monkeypatch.setattr(module, name, lambda *args: seen[name].add(args[3]) or table(*args))

    watch(_kernels, "kernel_name", _kernels.kernel_name)
    watch(_products, "product_name", _products.product_name)
    exported(gradient, (3, 7, 7), platforms=platforms)
    assert seen["kernel_name"] == seen["product_name"] == traced


def test_without_jit_the_kernel_is_that_of_the_device_of_the_array(monkeypatch):
    seen, table = set(), _kernels.kernel_name
    monkeypatch.setattr(_kernels, "kernel_name", lambda *args: seen.add(args[3]) or table(*args))
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with jax.disable_jit():
        jaxinv.inv(jax.device_put(np.eye(3, dtype=np.float32) + 1, jax.devices("cpu")[0]))
    assert seen == {"cpu"}


def effects(f, shape):
    return jax.make_jaxpr(f)(jax.ShapeDtypeStruct(shape, jnp.float32)).effects


@pytest.mark.parametrize("n", [1, UNROLLED_UP_TO, 32])
def test_functions_and_the_kernel_they_lower_to_have_no_effects(n):
    def kernel(X):
        return inverse_kernel(X, "general", products_follow=False, platform="cpu")

    for f in (jaxinv.inv, gradient, jvp, kernel):
        assert not effects(f, (MATRICES, n, n)), f"{f.__name__}: {effects(f, (MATRICES, n, n))}"


def jacobian(X, precision=None):
    """Its products share the inverse over a batch of cotangents."""
    return jax.jacrev(partial(jaxinv.inv, precision=precision))(X)


derivatives = pytest.mark.parametrize("derivative", [gradient, jvp, jacobian])


@pytest.mark.parametrize("n", [SUMS_ON_GPU + 1, 33])
@derivatives
def test_products_of_derivatives_have_highest_precision(n, derivative):
    """Or a GPU could take TF32, with three digits."""
    found = precisions(exported(derivative, (n, n) if derivative is jacobian else (10, n, n)))
    assert found == [("HIGHEST", "HIGHEST")] * 2, f"precisions: {found}"


@pytest.mark.parametrize("n", [3, SUMS_ON_GPU])
@derivatives
def test_small_products_are_sums(n, derivative):
    assert not precisions(exported(derivative, (n, n) if derivative is jacobian else (MATRICES, n, n)))


@pytest.mark.parametrize("n", [UNROLLED_UP_TO + 1, SUMS_ON_GPU + 1, PRODUCT_UP_TO])
@pytest.mark.parametrize("derivative", [gradient, jvp])
def test_products_of_an_inverse_have_highest_precision(n, derivative):
    found = precisions(exported(derivative, (PRODUCT_FROM_ENTRIES // n, n, n)))
    assert set(found) <= {("HIGHEST", "HIGHEST")}, f"precisions: {found}"
    assert len(found) > 2 or n <= SUMS_ON_GPU


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
@derivatives
def test_precision_of_the_user_is_honoured(derivative, precision):
    n = SUMS_ON_GPU + 1
    found = precisions(exported(partial(derivative, precision=precision), (n, n)))
    assert found == [(precision.upper(), precision.upper())] * 2, f"precisions: {found}"


@accelerators
def test_control_custom_calls_of_the_builtin_are_seen(platform):
    assert custom_calls(exported(jnp.linalg.inv, (MATRICES, 3, 3), platforms=(platform,)))


def pure(X):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(X.shape, X.dtype), X)


def ordered(X):
    return io_callback(np.sin, jax.ShapeDtypeStruct(X.shape, X.dtype), X, ordered=True)


@pytest.mark.parametrize("f", [pure, ordered])
def test_control_callbacks_are_seen(f):
    """Lowered for this device: without a GPU, JAX lowers no callback for one."""
    assert host_calls(without_locations(jax.jit(f).lower(jax.ShapeDtypeStruct((3, 3), jnp.float32)).as_text()))
    assert bool(effects(f, (3, 3))) is (f is ordered)


def test_control_transfers_and_generic_custom_calls_are_seen():
    """Written out: no public function lowers to them here."""
    assert host_calls('%1 = "stablehlo.send"(%arg0, %0) <{is_host_transfer = true}>') == ["send"]
    assert host_calls('"stablehlo.custom_call"(%0) <{call_target_name = "xla_callback"}>') == ["xla_callback"]


@pytest.mark.parametrize("f", [lambda X: X.astype(jnp.float64), lambda X: jnp.sum(X.astype(jnp.complex128)).real])
def test_control_float64_is_seen(f):
    assert double_precision(exported(f, (3, 3)))


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.complex128])
def test_control_float64_of_the_inverse_is_seen_and_int64_is_not(dtype):
    assert double_precision(exported(jaxinv.inv, (3, 3), dtype))
    assert not double_precision(exported(lambda X: X.astype(jnp.int64), (3, 3)))


@pytest.mark.parametrize(
    "f", [lambda X: lax.fori_loop(0, 3, lambda i, X: X @ X, X), lambda X: lax.map(jaxinv.inv, X[None])]
)
def test_control_loops_are_seen(f):
    assert loops(exported(f, (3, 3)))


def test_control_work_for_each_entry_is_seen():
    n = 3
    entry_by_entry = lambda X: jnp.stack([X[i, j] / X[0, 0] for i in range(n) for j in range(n)])
    assert work(exported(entry_by_entry, (n, n)))["divide"] > most_work(n, jnp.float32)["divide"]
    row_by_row = exported(lambda X: jnp.stack([jaxinv.inv(X)[i] for i in range(n)]), (n, n))
    assert called_again(row_by_row) or work(row_by_row)["divide"] > most_work(n, jnp.float32)["divide"]


def test_control_precision_of_a_plain_product_is_default():
    assert precisions(exported(lambda X: X @ X, (16, 16))) == [("DEFAULT", "DEFAULT")]


def test_devices_are_counted_on_cpu_too(monkeypatch):
    """A mesh of CPU devices, where JAX's own platform has one; and JAX told to do without CPU."""

    def count(platform=None):
        if platform and not on_cpu:
            raise RuntimeError(f"Unknown backend {platform}")
        return on_cpu if platform else 1

    monkeypatch.setattr(jax, "device_count", count)
    for on_cpu in (8, 1, 0):
        assert device_count() == max(on_cpu, 1)
