"""Mistakes that were published in the code of energy-based models: each oracle tells the mistaken form from ours.

Each test states where the mistake was found, and computes the mistaken form itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from gm_jax.losses import energy as losses
from gm_jax.models import energy, energy_space, rbm_partition
from gm_jax.models.energy_chains import Chains
from gm_jax.networks.energy import EnergyMLP
from gm_jax.networks.rbm import RBM
from gm_jax.samplers import annealing, gibbs, langevin
from gm_jax.training import model_state
from gm_jax.types import Rows

N = 4_000


def normal_energy(x):
    return 0.5 * jnp.sum(jnp.square(x), axis=1)


def variance(step, *, num_steps=400):
    """The variance of N chains after steps (key, x) -> x, from exact draws of N(0, 1)."""
    start = jax.random.normal(jax.random.key(0), (N, 1))
    end, _ = jax.lax.scan(lambda x, key: (step(key, x), None), start, jax.random.split(jax.random.key(1), num_steps))
    return float(jnp.var(end))


def test_step_and_noise_that_are_unrelated_are_another_temperature():
    # openai/ebm_code_release, issue 2; artifex: a step of 0.01 with noise of 0.005 is at 1/800 of the temperature.
    def mistaken(key, x):
        return x - 0.01 * jax.grad(lambda x: normal_energy(x).sum())(x) + 0.005 * jax.random.normal(key, x.shape)

    assert abs(variance(lambda key, x: langevin.langevin_step(key, x, normal_energy, step_size=0.02)) - 1.0) < 0.1
    assert variance(mistaken) < 2 / 800


def test_noise_without_the_root_of_the_step_is_another_temperature():
    # google-research/ibc, issue 6: e (g / 2 + z) in place of e g / 2 + sqrt(e) z.
    def mistaken(key, x):
        return x - 0.1 * (0.5 * x + jax.random.normal(key, x.shape))

    expected = 1 / (1 - 0.1 / 4)
    found = variance(lambda key, x: langevin.langevin_step(key, x, normal_energy, step_size=0.1))
    assert abs(found - expected) < 4 * expected * np.sqrt(2 / N)
    assert abs(variance(mistaken) - 0.1 * expected) < 0.01


def test_proposals_that_lower_the_energy_are_not_all_that_is_accepted():
    # artifex counts the share of steps at which the energy fell.
    start = jax.random.normal(jax.random.key(0), (N, 1))
    end, accepted = langevin.mala_step(jax.random.key(1), start, normal_energy, step_size=0.3)
    fell = normal_energy(end) < normal_energy(start)
    assert float(jnp.mean(accepted)) > 0.95
    assert 0.3 < float(jnp.mean(fell)) < 0.7

    def greedy(key, x):
        proposal = langevin.langevin_step(key, x, normal_energy, step_size=0.3)
        return jnp.where((normal_energy(proposal) < normal_energy(x))[:, None], proposal, x)

    found = variance(lambda key, x: langevin.mala_step(key, x, normal_energy, step_size=0.3)[0], num_steps=50)
    assert abs(found - 1.0) < 4 * np.sqrt(2 / N)
    assert variance(greedy, num_steps=50) < 0.1


def test_one_key_for_noise_and_acceptance_biases_the_chain():
    # artifex uses one key for two draws. The uniform number of the acceptance then depends on the noise.
    def mistaken(key, x):
        noise = jax.random.normal(key, x.shape)
        uniform = jax.scipy.stats.norm.cdf(noise)[:, 0]  # what one stream of bits gives to both
        proposal = x - 0.75 * x + jnp.sqrt(1.5) * noise
        log_q = lambda to, start: -jnp.sum((to - 0.25 * start) ** 2, axis=1) / 3.0  # noqa: E731
        log_ratio = normal_energy(x) - normal_energy(proposal) + log_q(x, proposal) - log_q(proposal, x)
        return jnp.where((jnp.log(uniform) < log_ratio)[:, None], proposal, x)

    def moments(step):
        end = jax.lax.fori_loop(
            0,
            60,
            lambda i, x: step(jax.random.fold_in(jax.random.key(1), i), x),
            jax.random.normal(jax.random.key(0), (N, 1)),
        )
        return abs(float(jnp.mean(end))), abs(float(jnp.var(end)) - 1.0)

    ours = moments(lambda key, x: langevin.mala_step(key, x, normal_energy, step_size=1.5)[0])
    assert ours[0] < 4 / np.sqrt(N)
    assert ours[1] < 4 * np.sqrt(2 / N)
    theirs = moments(mistaken)
    assert theirs[0] > 8 / np.sqrt(N) or theirs[1] > 8 * np.sqrt(2 / N)


V, H = 4, 3
RNG = np.random.default_rng(0)
A, B, W = 0.5 * RNG.normal(size=V), RNG.normal(size=H), 1.5 * RNG.normal(size=(V, H))
STATES = ((np.arange(2**V)[:, None] >> np.arange(V)) & 1).astype(np.float64)
P = special.softmax(STATES @ A + np.logaddexp(0, B + STATES @ W).sum(axis=1))


def free_energy(v, w):
    return losses.rbm_free_energy(v @ jnp.asarray(A), jnp.asarray(B)[None] + v @ w)


def test_negatives_minus_positives_climbs_the_nll(x64):
    # thrml, pull request 38; Energy-Diffusion-LLM, issue 3; scikit-learn's documentation, issue 11153.
    data, w = jnp.asarray(STATES[[1, 6, 6]]), jnp.asarray(W)

    def nll(w):
        return jnp.mean(free_energy(data, w)) + jax.nn.logsumexp(-free_energy(jnp.asarray(STATES), w))

    def surrogate(w, sign):
        weighted = jnp.asarray(P * len(P)) * free_energy(jnp.asarray(STATES), w)  # its mean is that of the model
        return sign * losses.contrastive_loss(free_energy(data, w), weighted)

    exact, ours, mistaken = jax.grad(nll)(w), jax.grad(surrogate)(w, 1.0), jax.grad(surrogate)(w, -1.0)
    np.testing.assert_allclose(ours, exact, atol=1e-12)
    assert float(jnp.vdot(mistaken, exact)) < 0.0


def test_probabilities_in_place_of_samples_change_the_negative_phase():
    # deeplearning4j, issues 3057 and 3176; rushter/MLAlgorithms, issue 29; pytorch-rbm, issue 2; keras_extensions, 15.
    n = 40_000
    start = jnp.asarray(STATES[np.random.default_rng(1).choice(2**V, size=n, p=P)], jnp.float32)
    hidden = lambda v: v @ jnp.asarray(W, jnp.float32) + jnp.asarray(B, jnp.float32)[None]  # noqa: E731
    visible = lambda h: h @ jnp.asarray(W.T, jnp.float32) + jnp.asarray(A, jnp.float32)[None]  # noqa: E731
    ours = gibbs.block_gibbs_sweep(jax.random.key(0), start, hidden, visible)
    mistaken = jax.nn.sigmoid(visible(jax.nn.sigmoid(hidden(start))))
    # The second moments of the model, which the gradient of W needs.
    exact = (P[:, None] * STATES).T @ STATES
    error = np.abs(np.asarray(ours.T @ ours, np.float64) / n - exact).max()
    assert error < 4 * 0.5 / np.sqrt(n)
    assert np.abs(np.asarray(mistaken.T @ mistaken, np.float64) / n - exact).max() > 10 * 0.5 / np.sqrt(n)


def test_a_sum_of_exponentials_overflows_where_log_z_does_not():
    # qhbm-library, issue 231.
    weights = {"kernel": 120.0 * W, "visible_bias": A, "hidden_bias": B}
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)
    log_f = STATES @ A + np.logaddexp(0, B + 120.0 * STATES @ W).sum(axis=1)
    np.testing.assert_allclose(rbm_partition.exact_log_z(RBM(V, H), params), special.logsumexp(log_f), rtol=1e-5)
    with np.errstate(over="ignore"):
        assert np.isinf(np.log(np.exp(log_f.astype(np.float32)).sum()))


def test_rows_drawn_with_replacement_overwrite_each_other():
    # ebmkit draws the slots of its buffer with replacement: two chains of a step are written to one slot.
    state = {"chains": {"rows": jnp.zeros(12, jnp.int32), "count": jnp.int32(0)}}
    where = {"sync": {"chains": Rows(4)}, "batch_size": 4, "axis_name": None}
    for _ in range(3):
        seen = model_state.local_view(state, **where)["chains"]
        new = {"chains": {"rows": seen["rows"] + 1, "count": seen["count"] + 1}}
        state = model_state.merge(state, new, **where)
    np.testing.assert_array_equal(state["chains"]["rows"], np.ones(12))
    slots = np.random.default_rng(0).integers(0, 12, (3, 4))
    assert len(np.unique(slots)) < 12


def test_a_step_size_adapted_along_the_path_biases_the_weights():
    # ebmkit adapts the step size of its annealed chains: the kernel then depends on where the chain has been.
    n, betas, std = 40_000, np.linspace(0.0, 1.0, 30), 0.3

    def log_density_fn(chain, beta):
        x = chain[:, 0]
        return -(1.0 - beta) * jnp.square(x) / 18.0 - beta * jnp.square(x - 2.0) / (2.0 * std**2)

    def kernel(is_adapted):
        def kernel_fn(key, chain, beta):
            for i in range(5):
                propose_key, accept_key = jax.random.split(jax.random.fold_in(key, i))
                noise = chain[:, 1] * jax.random.normal(propose_key, (n,))
                proposal = chain.at[:, 0].add(noise)
                log_ratio = log_density_fn(proposal, beta) - log_density_fn(chain, beta)
                accepted = jnp.log(jax.random.uniform(accept_key, (n,))) < log_ratio
                chain = jnp.where(accepted[:, None], proposal, chain)
                if is_adapted:
                    chain = chain.at[:, 1].multiply(jnp.where(accepted, 3.0, 1.0 / 3.0))
            return chain

        return kernel_fn

    start = jnp.stack([3.0 * jax.random.normal(jax.random.key(1), (n,)), jnp.full(n, 0.3)], axis=1)
    errors = []
    for is_adapted in (False, True):
        log_w, _ = annealing.annealed_importance_sampling(
            jax.random.key(0), start, betas, log_density_fn=log_density_fn, kernel_fn=kernel(is_adapted)
        )
        ratio = np.exp(np.asarray(log_w, np.float64)) * 3.0 / std
        errors.append((ratio.mean() - 1.0) / (ratio.std() / np.sqrt(n)))
    assert abs(errors[0]) < 3.0
    assert errors[1] < -6.0


def test_a_number_of_restarts_that_is_drawn_as_an_integer_does_not_compile():
    # artifex draws int(binomial) chains to restart: a shape that depends on a draw, which no compiled step can have.
    def mistaken(key, chains):
        count = int(jax.random.binomial(key, len(chains), 0.5))
        return chains.at[:count].set(0.0)

    chains, share = jnp.ones((1_000, 2)), 0.3
    with pytest.raises(jax.errors.ConcretizationTypeError):
        jax.jit(mistaken)(jax.random.key(0), chains)
    family = energy.EnergyBasedModel(
        network=EnergyMLP((4,)),
        space=energy_space.points(),
        shape=(2,),
        chains=Chains(num_steps=1, step_size=1e-8, num_persistent=1_000, restart=share),
        base_std=1.0,
    )
    params, state = family.init(jax.random.key(0), {"x": chains})
    state["chains"]["rows"] = 100.0 * chains  # further than noise comes
    _, (after, _) = jax.jit(family.loss)(params, state, jax.random.key(1), {"x": chains})
    restarted = np.mean(np.abs(after["chains"]["rows"]).max(axis=1) < 50.0)
    assert abs(restarted - share) < 4 * np.sqrt(share * (1 - share) / 1_000)
