"""A program that can hang for ever before jaxlib 0.11: to be called in a `Worker`."""

import jax
import jax.numpy as jnp

RUNS = 100


def two_batched_inverses() -> None:
    """Two independent batched `jnp.linalg.inv` in one jit, again and again: on two cores, most calls hang."""
    A = jnp.full((100, 32, 32), 0.01, jnp.float32) + jnp.eye(32)
    f = jax.jit(lambda A, B: (jnp.linalg.inv(A), jnp.linalg.inv(B)))
    for _ in range(RUNS):
        jax.block_until_ready(f(A, 2 * A))
