"""Restricted Boltzmann machines compared with sums over all states, and with scikit-learn."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from sklearn.neural_network import BernoulliRBM

from gm_jax.errors import UserError
from gm_jax.evaluation.partition import log_partition
from gm_jax.models import rbm_partition
from gm_jax.models.rbm import RestrictedBoltzmannMachine
from gm_jax.models.rbm_partition import AnnealedPartition
from gm_jax.networks.rbm import RBM
from gm_jax.ops import binarization
from gm_jax.training.step import make_eval_step

V, H = 8, 6
RNG = np.random.default_rng(0)
PARAMS = {
    "kernel": RNG.normal(scale=0.7, size=(V, H)),
    "visible_bias": RNG.normal(size=V),
    "hidden_bias": RNG.normal(size=H),
}


def states(num_bits):
    return ((np.arange(2**num_bits)[:, None] >> np.arange(num_bits)) & 1).astype(np.float64)


def machine(num_visible=V, num_hidden=H, **settings):
    return RestrictedBoltzmannMachine(
        network=RBM(num_visible, num_hidden),
        binarize=lambda key, x: binarization.static(x),
        levels=2,
        shape=(num_visible,),
        **{"sampling_sweeps": 50, **settings},
    )


def params(dtype=jnp.float64):
    return {"rbm": jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), PARAMS)}


def log_f():
    v, h = states(V), states(H)
    joint = (v @ PARAMS["visible_bias"])[:, None] + h @ PARAMS["hidden_bias"] + v @ PARAMS["kernel"] @ h.T
    return special.logsumexp(joint, axis=1)


def test_log_prob_is_exact_and_sums_to_one():
    x = states(V).astype(np.uint8)
    likelihood = machine().model.log_prob(params(jnp.float32), {}, jax.random.key(0), x)
    assert (likelihood.kind, likelihood.measure) == ("exact", "binary")
    np.testing.assert_allclose(likelihood.log_prob, log_f() - special.logsumexp(log_f()), atol=1e-5)
    np.testing.assert_allclose(special.logsumexp(np.asarray(likelihood.log_prob, np.float64)), 0.0, atol=1e-5)


def test_the_free_energy_is_that_of_scikit_learn(x64):
    peer = BernoulliRBM(n_components=H)
    peer.components_, peer.intercept_hidden_ = PARAMS["kernel"].T, PARAMS["hidden_bias"]
    peer.intercept_visible_ = PARAMS["visible_bias"]
    found = machine().free_energy(params(), jnp.asarray(states(V)))
    np.testing.assert_allclose(found, peer._free_energy(states(V)), atol=1e-10)


def test_the_gradient_is_that_of_the_exact_nll_if_the_chains_are_the_model(x64):
    family, theta = machine(), params()
    p = special.softmax(log_f())
    v, data = jnp.asarray(states(V)), jnp.asarray(states(V)[[3, 77, 200]])

    def nll(theta):
        return jnp.mean(family.free_energy(theta, data)) + rbm_partition.exact_log_z(family.network, theta["rbm"])

    def contrast(theta, weights):
        return jnp.mean(family.free_energy(theta, data)) - jnp.sum(weights * family.free_energy(theta, v))

    exact = jax.grad(nll)(theta)
    by_equation = jax.grad(contrast)(theta, jnp.asarray(p))
    for one, other in zip(jax.tree.leaves(exact), jax.tree.leaves(by_equation), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


def transition():
    def bernoulli(logits, outcomes):
        return np.exp(-outcomes @ np.logaddexp(0, -logits).T - (1 - outcomes) @ np.logaddexp(0, logits).T).T

    v, h = states(V), states(H)
    up = bernoulli(PARAMS["hidden_bias"] + v @ PARAMS["kernel"], h)
    return up @ bernoulli(PARAMS["visible_bias"] + h @ PARAMS["kernel"].T, v)


@pytest.mark.parametrize("num_sweeps", [1, 3])
def test_contrastive_divergence_is_the_expectation_over_k_sweeps_from_the_data(num_sweeps):
    family, theta = machine(num_sweeps=num_sweeps), params(jnp.float32)
    start = states(V)[[3, 77, 200, 131]]
    batch = {"x": jnp.asarray(np.tile(start, (5_000, 1)), jnp.uint8)}
    found = jax.jit(jax.grad(lambda theta: family.loss(theta, {}, jax.random.key(1), batch)[0]))(theta)
    ends = np.linalg.matrix_power(transition(), num_sweeps)[[3, 77, 200, 131]].mean(axis=0)

    def expected(theta):
        energies = family.free_energy(theta, jnp.asarray(states(V), jnp.float32))
        return jnp.mean(family.free_energy(theta, jnp.asarray(start, jnp.float32))) - jnp.sum(
            jnp.asarray(ends) * energies
        )

    # 20,000 chains: a standard error of at most 0.5 / sqrt(20,000) = 0.0035 for each entry.
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(jax.grad(expected)(theta)), strict=True):
        np.testing.assert_allclose(one, other, atol=0.0165)


def test_the_bias_of_contrastive_divergence_falls_with_the_sweeps():
    p = special.softmax(log_f())
    start = np.zeros(2**V)
    start[[3, 77, 200, 131]] = 0.25
    biases = [np.abs((start @ np.linalg.matrix_power(transition(), k) - p) @ states(V)).max() for k in (1, 2, 5, 50)]
    assert biases[0] > biases[1] > biases[2] > biases[3]
    assert biases[0] > 0.01
    assert biases[3] < 1e-6


def test_persistent_chains_go_on_from_where_they_were():
    family = machine(num_chains=4, num_sweeps=2)
    batch = {"x": jnp.asarray(states(V)[:6], jnp.uint8)}
    theta, state = family.init(jax.random.key(0), batch)
    key = jax.random.key(5)
    _, (after, metrics) = family.loss(theta, state, key, batch)
    chain_key = jax.random.split(key)[1]
    expected = family.sweep(theta, chain_key, state["chains"]["rows"], num_sweeps=2)
    np.testing.assert_array_equal(after["chains"]["rows"], expected)
    assert int(after["chains"]["count"]) == 1
    assert set(metrics) == {"data_energy", "model_energy", "energy_gap"}
    # Units are drawn and never averaged: probabilities in the negative phase are a published mistake.
    assert set(np.unique(after["chains"]["rows"])) <= {0.0, 1.0}


def test_no_gradient_flows_through_the_chains():
    family, theta = machine(num_sweeps=1), params(jnp.float32)
    batch = {"x": jnp.asarray(states(V)[:64], jnp.uint8)}
    chains = family.sweep(
        theta, jax.random.split(jax.random.key(2))[1], jnp.asarray(states(V)[:64], jnp.float32), num_sweeps=1
    )

    def surrogate(theta):
        return jnp.mean(family.free_energy(theta, jnp.asarray(states(V)[:64], jnp.float32))) - jnp.mean(
            family.free_energy(theta, chains)
        )

    found = jax.grad(lambda theta: family.loss(theta, {}, jax.random.key(2), batch)[0])(theta)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(jax.grad(surrogate)(theta)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_visible_biases_start_at_the_log_odds_of_the_data():
    x = RNG.integers(0, 2, (50, V)).astype(np.uint8)
    theta, _ = machine().init(jax.random.key(0), {"x": jnp.asarray(x)})
    ones = x.sum(axis=0)
    np.testing.assert_allclose(theta["rbm"]["visible_bias"], np.log((ones + 1) / (51 - ones)), rtol=1e-5)


# A machine with 21 units on each side is too large for the exact sum of the family, and small enough for this test.
LARGE = 21


@functools.cache
def large():
    rng = np.random.default_rng(1)
    weights = {
        "kernel": rng.normal(scale=0.25, size=(LARGE, LARGE)),
        "visible_bias": rng.normal(scale=0.5, size=LARGE),
        "hidden_bias": rng.normal(scale=0.5, size=LARGE),
    }
    theta = {"rbm": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)}
    log_z = -np.inf
    for start in range(0, 2**LARGE, 2**17):
        h = ((np.arange(start, start + 2**17)[:, None] >> np.arange(LARGE)) & 1).astype(np.float64)
        terms = h @ weights["hidden_bias"] + np.logaddexp(0, weights["visible_bias"] + h @ weights["kernel"].T).sum(
            axis=1
        )
        log_z = np.logaddexp(log_z, special.logsumexp(terms))
    return theta, float(log_z)


def test_the_estimate_finds_log_z_and_the_bracket_holds_it():
    theta, truth = large()
    partition = AnnealedPartition(summarize=log_partition, num_temperatures=300, num_runs=200, num_sweeps=60)
    family = machine(LARGE, LARGE, partition=partition)
    x = (RNG.random((500, LARGE)) < 0.5).astype(np.uint8)
    state, notes = jax.jit(family.calibrate)(theta, {}, jax.random.key(0), jnp.asarray(x))
    assert float(notes["log_z_low"]) < truth < float(notes["log_z_high"])
    assert float(notes["log_z_high"] - notes["log_z_low"]) < 0.5
    assert abs(float(notes["log_z"]) - truth) < 4 * float(notes["log_z_standard_error"])
    assert not bool(notes["not_converged"])
    values = {
        name: getattr(family, name)(theta, state, jax.random.key(0), jnp.asarray(x))
        for name in ("log_prob", "log_prob_above", "log_prob_below")
    }
    assert [one.kind for one in values.values()] == ["estimate", "upper_bound", "lower_bound"]
    energy = np.asarray(family.free_energy(theta, jnp.asarray(x, jnp.float32)))
    for name, end in (("log_prob", "log_z"), ("log_prob_above", "log_z_low"), ("log_prob_below", "log_z_high")):
        np.testing.assert_allclose(values[name].log_prob, -energy - notes[end], rtol=1e-6)
    ways = ("annealed chains", "annealed chains", "reversed chains from data after 60 sweeps")
    for one, by in zip(values.values(), ways, strict=True):
        assert dict(one.settings) == {"temperatures": 300, "runs": 200, "by": by}


def test_the_exact_log_z_is_summed_once_and_stands_beside_the_annealed_one():
    theta, x = params(jnp.float32), states(V).astype(np.uint8)
    partition = AnnealedPartition(summarize=log_partition, num_temperatures=200, num_runs=300, num_sweeps=20)
    family = machine(partition=partition)
    state, notes = jax.jit(family.calibrate)(theta, {}, jax.random.key(0), jnp.asarray(x))
    truth = special.logsumexp(log_f())
    np.testing.assert_allclose(notes["log_z"], truth, rtol=1e-6)
    assert float(notes["log_z_low"]) < truth < float(notes["log_z_high"])
    assert abs(float(notes["log_z_annealed"]) - truth) < 4 * float(notes["log_z_standard_error"])
    of_x = (theta, state, jax.random.key(0), jnp.asarray(x))
    exact, annealed = family.log_prob(*of_x), family.log_prob_annealed(*of_x)
    assert (exact.kind, annealed.kind) == ("exact", "estimate")
    np.testing.assert_allclose(exact.log_prob, log_f() - truth, atol=1e-5)
    difference = notes["log_z"] - notes["log_z_annealed"]
    np.testing.assert_allclose(annealed.log_prob - exact.log_prob, jnp.broadcast_to(difference, 2**V), atol=1e-5)
    # A batch takes the sum that the state holds.
    moved = family.log_prob(theta, {**state, "exact_log_z": state["exact_log_z"] + 1.0}, *of_x[2:])
    np.testing.assert_allclose(exact.log_prob - moved.log_prob, np.ones(2**V), atol=1e-5)
    alone = machine().calibrate(theta, {}, jax.random.key(0), jnp.asarray(x))
    assert set(alone[1]) == {"log_z"}
    assert float(alone[0]["exact_log_z"]) == float(notes["log_z"])


def test_chains_that_diverge_are_not_a_number():
    family = machine(num_chains=4)
    theta, state = family.init(jax.random.key(0), {"x": jnp.asarray(states(V)[:6], jnp.uint8)})
    batch = {"x": jnp.zeros((6, V), jnp.uint8)}
    assert np.isfinite(float(family.loss(theta, state, jax.random.key(0), batch)[1][1]["energy_gap"]))
    far = {"rbm": {**theta["rbm"], "visible_bias": jnp.full(V, 1e4)}}
    assert np.isnan(float(family.loss(far, state, jax.random.key(0), batch)[1][1]["energy_gap"]))


def test_a_path_that_is_too_short_says_so():
    theta, _ = large()
    theta = {"rbm": {**theta["rbm"], "kernel": 6.0 * theta["rbm"]["kernel"]}}
    partition = AnnealedPartition(summarize=log_partition, num_temperatures=2, num_runs=200, num_sweeps=1)
    _, notes = machine(LARGE, LARGE, partition=partition).calibrate(
        theta, {}, jax.random.key(0), jnp.ones((5, LARGE), jnp.uint8)
    )
    assert bool(notes["not_converged"])


def test_the_bound_of_single_images_is_below_the_exact_value():
    theta = params(jnp.float32)
    family = machine(raise_temperatures=200)
    x = states(V).astype(np.uint8)
    truth = log_f() - special.logsumexp(log_f())
    found = jax.jit(make_eval_step(family.annealed_log_prob, seed=0))(theta, {}, 0, jnp.asarray(x))
    assert (found.kind, found.measure) == ("lower_bound", "binary")
    assert dict(found.settings) == {"of": "annealed model", "temperatures": 200}
    gap = truth - np.asarray(found.log_prob)
    assert -0.02 < np.sum(np.exp(truth) * gap) < 0.2


def test_samples_are_the_model():
    n = 40_000
    draws = machine().sample(params(jnp.float32), {}, jax.random.key(0), n)
    assert draws.dtype == jnp.uint8
    counts = np.bincount(np.asarray(draws).astype(int) @ (1 << np.arange(V)), minlength=2**V) / n
    p = special.softmax(log_f())
    # The total variation of exact draws is 0.0263 +- 0.0015 for this p and n.
    assert 0.5 * np.abs(counts - p).sum() < 0.034


@pytest.mark.parametrize(("keep_every", "num_kept"), [(10, 5), (7, 7), (50, 1)])
def test_chains_end_in_the_samples(keep_every, num_kept):
    family = machine()
    kept = family.chains(params(jnp.float32), jax.random.key(0), 5, keep_every=keep_every)
    assert kept.shape == (num_kept, 5, V)
    np.testing.assert_array_equal(
        family.to_data(kept[-1]), family.sample(params(jnp.float32), {}, jax.random.key(0), 5)
    )


def test_means_of_samples_are_one_sweep_from_them():
    model, key = machine(sampling_sweeps=7), jax.random.key(5)
    values = params(jnp.float32)
    mean = np.asarray(model.sample_mean(values, {}, key, 20_000)).reshape(-1, V)
    v = np.asarray(model.chains(values, key, 20_000, keep_every=7)[-1])
    sweep = np.asarray(model.sweep(values, jax.random.key(6), jnp.asarray(v), num_sweeps=1))
    assert 0.0 < mean.min() < mean.max() < 1.0
    np.testing.assert_allclose(mean.mean(axis=0), sweep.mean(axis=0), atol=0.02)
    # Each mean belongs to its own sample.
    np.testing.assert_allclose((mean * v).mean(axis=0), (sweep * v).mean(axis=0), atol=0.02)


def test_a_machine_without_a_way_to_log_z_has_no_likelihood():
    assert machine(LARGE, LARGE).model.log_prob is None
    assert dataclasses.replace(
        machine(LARGE, LARGE), partition=AnnealedPartition(summarize=log_partition)
    ).model.log_prob


def test_data_of_another_size_are_refused():
    batch = {"x": np.zeros((4, 9), np.uint8)}
    with pytest.raises(UserError, match=r"examples of shape \[8\], and the data have \[9\]"):
        machine().model.init(jax.random.key(0), batch)
    with pytest.raises(UserError, match=r"examples of shape \[8\], and the data have \[9\]"):
        dataclasses.replace(machine(), shape=(9,)).model.init(jax.random.key(0), batch)
