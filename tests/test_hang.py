"""Programs that make `jnp.linalg.inv` wait for ever on some versions of JAX come back, every time.

On CPU the builtin runs LAPACK over a batch on the very threads that wait for it: two batched calls side by side, or one
after the other in a gradient, can wait for each other. Each program here runs in a process of its own, with a limit.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 240  # seconds, for programs that take a few to thirty

PROGRAMS = {
    "100 gradients of 50000 6x6": """
        X = example(50000, 6)
        f = jax.jit(jax.grad(lambda X: inv(X).sum()))
        for run in range(100):
            f(X).block_until_ready()
    """,
    "gradients of two inverses of 20000 12x12": """
        A, B = example(20000, 12), example(20000, 12)
        f = jax.jit(jax.grad(lambda A, B: inv(A).sum() + inv(B).sum(), argnums=(0, 1)))
        for run in range(20):
            jax.block_until_ready(f(A, B))
    """,
    "two independent inverses of 100 32x32": """
        A, B = example(100, 32), example(100, 32)
        f = jax.jit(lambda A, B: (inv(A), inv(B)))
        for run in range(100):
            jax.block_until_ready(f(A, B))
    """,
    "gradient of a sum of several inverses": """
        Xs = [example(200, n) for n in (4, 8, 16, 32)]
        f = jax.jit(jax.grad(lambda Xs: sum(inv(X).sum() for X in Xs)))
        for run in range(30):
            jax.block_until_ready(f(Xs))
    """,
    "gradients of 1000 64x64": """
        X = example(1000, 64)
        f = jax.jit(jax.grad(lambda X: inv(X).sum()))
        for run in range(10):
            f(X).block_until_ready()
    """,
    "hessian-vector products of 200 128x128": """
        X = example(200, 128)
        f = jax.jit(lambda X: jax.jvp(jax.grad(lambda X: inv(X).sum()), (X,), (X,))[1])
        for run in range(5):
            f(X).block_until_ready()
    """,
    "gradients of structured inverses side by side": """
        A, B = example(200, 40), example(200, 24)
        loss = lambda A, B: sum(inv(X, assume_a=s).sum() for X in (A, B) for s in ("pos", "lower triangular", "sym"))
        f = jax.jit(jax.grad(loss, argnums=(0, 1)))
        for run in range(20):
            jax.block_until_ready(f(A, B))
    """,
    "gradients of 160 32x32 on eight devices": """
        X = spread(example(160, 32), PartitionSpec("x"))
        f = jax.jit(jax.grad(lambda X: inv(X).sum()))
        for run in range(10):
            f(X).block_until_ready()
    """,
    "gradients of 16 320x320 on eight devices": """
        X = spread(example(16, 320), PartitionSpec("x"))
        f = jax.jit(jax.grad(lambda X: inv(X).sum()))
        for run in range(5):
            f(X).block_until_ready()
    """,
    "gradients of 8 400x400 side by side": """
        A, B = example(8, 400), example(8, 400)
        f = jax.jit(jax.grad(lambda A, B: inv(A).sum() + inv(B).sum(), argnums=(0, 1)))
        for run in range(5):
            jax.block_until_ready(f(A, B))
    """,
    "gradients of one 128x128 over eight devices": """
        from jaxinv import inv_sharded
        X = spread(example(1, 128)[0], PartitionSpec(None, "x"))
        inverse = lambda X: inv_sharded(X, mesh=mesh(), spec=PartitionSpec(None, "x"))
        f = jax.jit(jax.value_and_grad(lambda X: jnp.sum(inverse(X) ** 2)))
        for run in range(5):
            jax.block_until_ready(f(X))
    """,
}

IN_BRIEF = (
    *("100 gradients of 50000 6x6", "gradients of 1000 64x64", "hessian-vector products of 200 128x128"),
    "two independent inverses of 100 32x32",
)

PRELUDE = """
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxinv import inv

def mesh():
    return jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu"))

def spread(X, spec):
    return jax.device_put(X, NamedSharding(mesh(), spec))

def example(batch, n):
    X = np.random.default_rng(n).standard_normal((batch, n, n), np.float32)
    return jnp.asarray(X + 3 * n**0.5 * np.eye(n, dtype=np.float32))

"""


@pytest.mark.timeout(LIMIT + 30)
@pytest.mark.parametrize(
    "program", [pytest.param(name, marks=[] if name in IN_BRIEF else [pytest.mark.long]) for name in PROGRAMS]
)
def test_program_comes_back(program):
    devices = 8 if "eight devices" in program else 1
    lines = [line.removeprefix(" " * 8) for line in PROGRAMS[program].splitlines()]
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    if "over eight devices" not in program:  # as JAX comes; more devices than cores lose minutes to spinning threads
        environment.pop("OPENBLAS_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + "\n".join(lines) + "\nprint('back')"],
        timeout=LIMIT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "back\n", done.stderr
