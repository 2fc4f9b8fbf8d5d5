"""The codes of a VQ-VAE, held to averages that are computed by hand, on one device and on two."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.errors import UserError
from gm_jax.models.quantizers import FSQ, EMACodebook
from gm_jax.training import parallel, state, step
from gm_jax.types import Model, Objective

KEY = jax.random.key(0)
K, D = 4, 2


def batch(seed, n=24):
    return np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)


def state_of(frequency, vectors, quantizer):
    usage = {"frequency": jnp.float32(frequency), "sums": jnp.float32(frequency)[:, None] * jnp.float32(vectors)}
    return {**quantizer.init(KEY), "usage": {**usage, "seen": jnp.zeros(K)}}


def stepped(quantizer, before, z, key=KEY):
    codes, _ = quantizer.quantize(before, jnp.asarray(z))
    return quantizer.updated(before, key, jnp.asarray(z), codes), np.asarray(codes)


def test_the_codebook_is_the_mean_of_its_vectors_each_weighted_by_its_age():
    quantizer = EMACodebook(num_codes=K, dim=D, decay=0.8, restart_below=0.0)
    now = quantizer.init(KEY)
    first = np.asarray(quantizer.codebook(now), np.float64)
    assert np.unique(first).size == K * D
    history = []
    for t in range(6):
        now, codes = stepped(quantizer, now, batch(t))
        history.append((batch(t).astype(np.float64), codes))
    for k in range(K):
        # The first vectors count as if each code had had a K-th of a batch.
        weights, total = 0.8**6 / K, 0.8**6 / K * first[k]
        for age, (z, codes) in enumerate(reversed(history)):
            weights += 0.2 * 0.8**age * np.mean(codes == k)
            total = total + 0.2 * 0.8**age * z[codes == k].sum(axis=0) / len(z)
        np.testing.assert_allclose(now["usage"]["frequency"][k], weights, rtol=1e-5)
        np.testing.assert_allclose(quantizer.codebook(now)[k], total / weights, rtol=1e-4, atol=1e-6)


def test_a_code_that_is_hardly_used_is_restarted_and_the_others_are_not():
    z = batch(1)
    quantizer = EMACodebook(num_codes=K, dim=D, restart_below=0.2)  # restarts below 0.2 / 4
    before = state_of([0.6, 0.049, 0.0, 0.051], batch(0)[:K], quantizer)
    after, _ = stepped(quantizer, before, z)
    kept, _ = stepped(EMACodebook(num_codes=K, dim=D, restart_below=0.0), {"usage": before["usage"]}, z)
    for k in (0, 3):
        np.testing.assert_array_equal(after["usage"]["frequency"][k], kept["usage"]["frequency"][k])
        np.testing.assert_array_equal(after["usage"]["sums"][k], kept["usage"]["sums"][k])
    for k in (1, 2):
        assert after["usage"]["frequency"][k] == 1 / K
        assert np.abs(z - np.asarray(quantizer.codebook(after))[k]).sum(axis=1).min() < 1e-6
    again, _ = stepped(quantizer, before, z)
    other, _ = stepped(quantizer, before, z, jax.random.key(1))
    np.testing.assert_array_equal(after["usage"]["sums"], again["usage"]["sums"])
    assert np.any(after["usage"]["sums"] != other["usage"]["sums"])


def test_the_first_step_moves_every_code_to_a_vector_of_the_batch():
    quantizer = EMACodebook(num_codes=K, dim=D)
    now, codes = stepped(quantizer, quantizer.init(KEY), batch(0))
    assert not codes.any()  # all codes are the vector 0
    distances = np.abs(batch(0)[:, None] - np.asarray(quantizer.codebook(now))[None]).sum(axis=2)
    assert (distances.min(axis=0) < 1e-6).all()
    assert len(set(distances.argmin(axis=0))) > 1


@pytest.mark.parametrize("used", [1, 2])
def test_the_perplexity_is_that_of_the_codes_in_use_whatever_restarts(used):
    quantizer = EMACodebook(num_codes=K, dim=D, decay=0.9, restart_below=0.5)
    now = quantizer.init(KEY)
    for t in range(60):
        # Outputs of `used` codes alone, which the restarts of the others cannot leave.
        codes = jnp.arange(24) % used
        now = quantizer.updated(now, jax.random.key(t), jnp.asarray(batch(t)), codes)
    assert float(quantizer.perplexity(now)) == pytest.approx(used, rel=1e-5)


@pytest.mark.parametrize("restart_below", [0.0, 0.5])
def test_the_perplexity_is_of_the_average_over_batches(restart_below):
    quantizer = EMACodebook(num_codes=K, dim=D, decay=0.75, restart_below=restart_below)
    now, frequencies = quantizer.init(KEY), np.zeros(K)
    for code in (0, 1, 3):  # all vectors of a batch have one code
        now = quantizer.updated(now, KEY, jnp.asarray(batch(code)), jnp.full(24, code))
        frequencies = 0.75 * frequencies + 0.25 * (np.arange(K) == code)
    share = frequencies[frequencies > 0] / frequencies.sum()
    assert float(quantizer.perplexity(now)) == pytest.approx(np.exp(-np.sum(share * np.log(share))), rel=1e-5)


def test_a_code_that_is_never_used_stays_finite():
    quantizer = EMACodebook(num_codes=K, dim=D, decay=0.5, restart_below=0.0)
    now = state_of([0.5, 0.5, 1e-38, 0.0], batch(0)[:K], quantizer)
    for t in range(3):
        now, _ = stepped(quantizer, now, batch(t))
    assert np.isfinite(quantizer.codebook(now)).all()


@pytest.mark.parametrize("quantizer", [EMACodebook(num_codes=K, dim=D, restart_below=0.0), FSQ(levels=(2, 3))])
def test_vectors_are_those_of_quantize_which_passes_gradients_on(quantizer):
    z, now = jnp.asarray(batch(0)), quantizer.init(KEY)
    codes, vectors = quantizer.quantize(now, z)
    np.testing.assert_allclose(quantizer.vectors(now, codes), vectors, atol=1e-6)
    assert quantizer.vectors(now, codes.reshape(4, 6)).shape == (4, 6, quantizer.dim)
    assert 0 <= codes.min() <= codes.max() < quantizer.num_codes
    gradient = jax.grad(lambda z: jnp.sum(quantizer.quantize(now, z)[1]))(z)
    if isinstance(quantizer, FSQ):
        assert (np.asarray(gradient) > 0).all()
    else:
        np.testing.assert_array_equal(gradient, np.ones_like(z))


def test_fsq_keeps_the_frequencies_of_its_codes():
    quantizer = FSQ(levels=(2, 3), decay=0.75)
    now, first = stepped(quantizer, quantizer.init(KEY), batch(0))
    now, second = stepped(quantizer, now, batch(1))
    expected = [0.25 * (0.75 * np.mean(first == k) + np.mean(second == k)) for k in range(6)]
    np.testing.assert_allclose(now["usage"]["frequency"], expected, rtol=1e-5)


# On devices: a model whose outputs of the encoder are the data plus a parameter.


class Shift(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + self.param("shift", nn.initializers.zeros, (1, D))


def model_of(quantizer):
    module = Shift()

    def init(key, batch):
        return {"encoder": module.init(key, batch["x"])["params"]}, {"quantizer": quantizer.init(key)}

    def loss(params, model_state, key, batch):
        z = module.apply({"params": params["encoder"]}, batch["x"])
        codes, e = quantizer.quantize(model_state["quantizer"], z)
        after = quantizer.updated(model_state["quantizer"], key, jax.lax.stop_gradient(z), codes)
        return jnp.mean(jnp.square(e)), ({"quantizer": after}, {})

    sync = {"quantizer": quantizer.sync}
    return Model(init, (Objective("encoder", loss),), lambda *args, **options: None, None, sync)


def trained(quantizer, strategy, num_steps):
    model, optimizers = model_of(quantizer), {"encoder": optax.sgd(0.1)}
    compiled = strategy.compile(step.make_train_step(model, optimizers, seed=3, axis_name=strategy.axis_name))
    now = strategy.place(state.create(model, optimizers, KEY, {"x": batch(0)}))
    for t in range(num_steps):
        now, _ = compiled(now, strategy.place_batches({"x": batch(t)[None]}))
    return jax.device_get(now)


@pytest.mark.parametrize("quantizer", [EMACodebook(num_codes=K, dim=D, restart_below=0.0), FSQ(levels=(2, 3))])
def test_two_devices_keep_the_averages_of_one_device_on_the_whole_batch(quantizer):
    one, two = (trained(quantizer, strategy, 5) for strategy in (parallel.jit(), parallel.pmap()))
    for whole, joined in zip(jax.tree.leaves(one.model_state), jax.tree.leaves(two.model_state), strict=True):
        np.testing.assert_allclose(joined, whole, atol=1e-6)


@pytest.mark.parametrize("make", [parallel.jit, parallel.pmap, functools.partial(parallel.vmap, 2)])
def test_each_code_is_restarted_by_one_device_at_one_vector_of_the_batch(make):
    quantizer = EMACodebook(num_codes=K, dim=D)
    now = trained(quantizer, make(), 1).model_state["quantizer"]
    nearest = np.abs(batch(0)[:, None] - np.asarray(quantizer.codebook(now))[None]).sum(axis=2).argmin(axis=0)
    np.testing.assert_allclose(quantizer.codebook(now), batch(0)[nearest], atol=1e-6)
    if make is not parallel.jit:
        # The first device restarts the first half of the codes, from its half of the batch.
        np.testing.assert_array_equal(nearest >= 12, np.arange(K) >= K // 2)


def test_codes_that_devices_cannot_share_are_refused():
    with pytest.raises(UserError, match="has 5 rows"):
        trained(EMACodebook(num_codes=5, dim=D), parallel.pmap(), 1)
