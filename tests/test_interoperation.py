"""`jaxinv` in Equinox modules, Optax training and NumPyro posteriors, beside Lineax, and in place of the builtin."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import matrices

from jaxinv import inv, inv_logdet

if not os.environ.get("CI"):  # in CI a missing package is an error
    for package in ("equinox", "lineax", "numpyro", "optax"):
        reason = f"these tests need {package}: pip install 'jaxinv[notebooks]'"
        pytest.importorskip(package, reason=reason, exc_type=ImportError)

import equinox as eqx
import lineax as lx
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density

pytestmark = pytest.mark.long
n = 4


@pytest.fixture(autouse=True)
def promotion_of_jax():
    """The other packages promote dtypes and ranks as JAX does by default."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class LinearFlow(eqx.Module):
    """x = A z with standard normal z."""

    A: jax.Array

    def log_prob(self, x, inverse_logdet=inv_logdet):
        inverse, _, logabsdet = inverse_logdet(self.A)
        z = x @ inverse.T
        return -0.5 * jnp.sum(z * z, axis=1) - logabsdet - 0.5 * n * np.log(2 * np.pi)


def builtin_inv_logdet(X):
    return jnp.linalg.inv(X), *jnp.linalg.slogdet(X)


def data(points=200, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(points, n)) @ matrices(n).T)


def negative_log_likelihood(flow, x, inverse_logdet=inv_logdet):
    return -jnp.mean(flow.log_prob(x, inverse_logdet))


def test_equinox_module_has_value_and_gradient_of_builtin():
    flow, x = LinearFlow(jnp.asarray(matrices(n, seed=1))), data()
    ours = eqx.filter_jit(eqx.filter_value_and_grad(negative_log_likelihood))(flow, x)
    theirs = eqx.filter_value_and_grad(negative_log_likelihood)(flow, x, builtin_inv_logdet)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
    np.testing.assert_allclose(ours[1].A, theirs[1].A, rtol=1e-10, atol=1e-10)


def test_equinox_ensemble_is_its_members():
    As = jnp.asarray(matrices(n, (5,)))
    ensemble, x = jax.vmap(LinearFlow)(As), data()
    together = eqx.filter_vmap(negative_log_likelihood, in_axes=(eqx.if_array(0), None))(ensemble, x)
    np.testing.assert_allclose(together, [negative_log_likelihood(LinearFlow(A), x) for A in As], rtol=1e-12)


def test_optax_training_finds_the_maximum_likelihood():
    """The best Gaussian has the covariance of the data: A A^T of the trained flow is that."""
    x = data()
    flow, optimiser = LinearFlow(jnp.eye(n)), optax.lbfgs()

    @jax.jit
    def step(flow, state):
        loss = lambda flow: negative_log_likelihood(flow, x)
        value, gradient = optax.value_and_grad_from_state(loss)(flow, state=state)
        updates, state = optimiser.update(gradient, state, flow, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(flow, updates), state

    state = optimiser.init(flow)
    for _ in range(60):
        flow, state = step(flow, state)
    np.testing.assert_allclose(flow.A @ flow.A.T, x.T @ x / len(x), atol=1e-5)


def inverse_wishart(S, dof, inverse_logdet=inv_logdet):
    """The log density in the covariance S, up to a constant; its mean is I / (dof - n - 1)."""
    precision, _, logabsdet = inverse_logdet(S)
    return -0.5 * ((dof + n + 1) * logabsdet + jnp.trace(precision))


def model(dof, inverse_logdet=inv_logdet):
    space = dist.ImproperUniform(dist.constraints.positive_definite, (), (n, n))
    S = numpyro.sample("S", space)
    numpyro.factor("density", inverse_wishart(S, dof, inverse_logdet))


def test_numpyro_log_density_has_gradient_of_builtin():
    X = matrices(n, seed=2)
    S = jnp.asarray(X @ X.T)
    gradients = [
        jax.grad(lambda S, f=f: log_density(model, (12, f), {}, {"S": S})[0])(S)
        for f in (inv_logdet, builtin_inv_logdet)
    ]
    np.testing.assert_allclose(*gradients, rtol=1e-9, atol=1e-9)


def test_numpyro_nuts_samples_the_known_mean():
    dof = 30
    nuts = MCMC(NUTS(model, max_tree_depth=5), num_warmup=150, num_samples=300, progress_bar=False)
    nuts.run(jax.random.key(0), dof)
    S = nuts.get_samples()["S"]
    assert S.shape == (300, n, n)
    mean = np.eye(n) / (dof - n - 1)
    scatter = np.std(S, axis=0)
    assert np.all(np.abs(np.mean(S, axis=0) - mean) < 0.35 * scatter)  # 5 standard errors of 200 independent samples
    assert np.any(np.abs(1.2 * np.mean(S, axis=0) - mean) > 0.35 * scatter)  # the control: a mean 20 % off fails


def test_lineax_solves_what_inv_inverts():
    A, b = jnp.asarray(matrices(n)), jnp.asarray(np.random.default_rng(0).normal(size=n))
    solved = lambda A: lx.linear_solve(lx.MatrixLinearOperator(A), b).value
    inverted = lambda A: inv(A) @ b
    np.testing.assert_allclose(inverted(A), solved(A), rtol=1e-12)
    np.testing.assert_allclose(jax.jacobian(inverted)(A), jax.jacobian(solved)(A), rtol=1e-10, atol=1e-10)


def test_inv_is_the_matrix_of_a_lineax_operator():
    A, b = jnp.asarray(matrices(n)), jnp.ones(n)
    preconditioner = lx.MatrixLinearOperator(inv(A.T @ A, assume_a="pos"), lx.positive_semidefinite_tag)
    operator = lx.MatrixLinearOperator(A.T @ A, lx.positive_semidefinite_tag)
    options = {"preconditioner": preconditioner}
    solution = lx.linear_solve(operator, b, lx.CG(rtol=1e-10, atol=1e-10), options=options)
    np.testing.assert_allclose((A.T @ A) @ solution.value, b, atol=1e-8)
    assert solution.stats["num_steps"] <= 3  # an exact preconditioner: one step, and those of the test for convergence


def mahalanobis(z, covariance):
    """A function that was there before."""
    return jnp.einsum("bi,bij,bj->b", z, jnp.linalg.inv(covariance), z)


def test_existing_function_with_jnp_linalg_inv_replaced(monkeypatch):
    X = matrices(n, (7,))
    z, covariance = jnp.asarray(X[:, 0]), jnp.asarray(X @ X.swapaxes(-1, -2))
    calls = []

    def counted(a):
        calls.append(a.shape)
        return inv(a)

    before = mahalanobis(z, covariance), jax.jacobian(mahalanobis, argnums=1)(z, covariance)
    monkeypatch.setattr(jnp.linalg, "inv", counted)
    after = mahalanobis(z, covariance), jax.jacobian(mahalanobis, argnums=1)(z, covariance)
    assert calls == [(7, n, n)] * 2
    for value, expected in zip(after, before, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9)
