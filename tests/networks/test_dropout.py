"""Dropout is on with a key and off without one, in every network that has a rate, and nowhere else."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models import autoregressive, autoregressive_networks
from gm_jax.networks.dropout import Dropout, KeyedDropout
from gm_jax.networks.made import MADE, mask_sets
from gm_jax.networks.pixelcnn import GatedPixelCNN, PixelCNN
from gm_jax.training import optimizers, parallel, state, step

SHAPE, RATE = (4, 4, 1), 0.5
ORDER = np.arange(16)[None]


def made(dropout):
    masks = mask_sets(ORDER, (12, 12))
    return autoregressive_networks.masked_network(MADE(16, (12, 12), dropout=dropout), masks, ORDER)


def pixels(module):
    return lambda dropout: autoregressive_networks.image_network(
        module(SHAPE, levels=2, outputs_per_dim=1, features=8, layers=2, first_size=3, dropout=dropout)
    )


NETWORKS = {"made": made, "pixelcnn": pixels(PixelCNN), "gated pixelcnn": pixels(GatedPixelCNN)}
each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def family(network, dropout):
    likelihood = autoregressive_networks.bernoulli(lambda key, x: x, levels=2)
    return autoregressive.Autoregressive(network=network(dropout), likelihood=likelihood, shape=SHAPE)


def images(count=6):
    return np.random.default_rng(0).integers(0, 2, (count, *SHAPE)).astype(np.uint8)


def random_params(model):
    params, _ = jax.eval_shape(model.init, jax.random.key(0), {"x": images()})
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), leaf.dtype), params)


def test_a_key_drops_the_share_and_scales_the_rest():
    x = jnp.full((1_000, 40), 3.0)
    dropped = np.asarray(KeyedDropout(0.3).apply({}, x, rngs={"dropout": jax.random.key(0)}))
    kept = dropped != 0.0
    np.testing.assert_allclose(dropped[kept], 3.0 / 0.7, rtol=1e-6)
    standard_error = np.sqrt(0.3 * 0.7 / x.size)
    assert abs(kept.mean() - 0.7) < 4 * standard_error
    np.testing.assert_array_equal(KeyedDropout(0.3).apply({}, x), x)


def test_dropout_draws_the_masks_of_flax():
    """So that runs that were begun with Flax's go on with the same numbers."""
    x, rngs = jax.random.normal(jax.random.key(1), (50, 8)), {"dropout": jax.random.key(0)}

    class Network(nn.Module):
        of: type

        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                x = self.of(0.3, deterministic=False)(x)
            return x

    np.testing.assert_array_equal(Network(Dropout).apply({}, x, rngs=rngs), Network(nn.Dropout).apply({}, x, rngs=rngs))
    np.testing.assert_array_equal(Dropout(0.3, deterministic=True).apply({}, x, rngs=rngs), x)
    with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
        Dropout(0.3, deterministic=False).apply({}, x)


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_gradients_of_all_kinds_are_those_of_a_product_with_the_mask(rate):
    x, dx, key = (
        jax.random.normal(jax.random.key(1), (6, 4)),
        jnp.linspace(-1.0, 1.0, 24).reshape(6, 4),
        jax.random.key(0),
    )
    drop = lambda x: KeyedDropout(rate).apply({}, x, rngs={"dropout": key})  # noqa: E731
    factor = np.asarray(drop(jnp.ones((6, 4))))
    assert set(factor.ravel().tolist()) == {0.0: {1.0}, 0.4: {0.0, float(np.float32(1 / 0.6))}, 1.0: {0.0}}[rate]
    loss = lambda x: jnp.sum(jnp.sin(drop(x)))  # noqa: E731
    expected = factor * np.cos(factor * x)
    np.testing.assert_allclose(jax.grad(loss)(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.grad(jax.checkpoint(loss))(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jvp(drop, (x,), (dx,))[1], factor * dx, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(drop)(jnp.stack([x, dx])), factor * np.stack([x, dx]), rtol=1e-6)


def test_the_mask_passes_a_barrier_so_that_compilers_store_it():
    drop = lambda x: jnp.sum(KeyedDropout(0.4).apply({}, x, rngs={"dropout": jax.random.key(0)}))  # noqa: E731
    equations = jax.make_jaxpr(jax.value_and_grad(drop))(jnp.ones((6, 4))).jaxpr.eqns
    barriers = [eqn.invars[0].aval for eqn in equations if eqn.primitive.name == "optimization_barrier"]
    assert [(aval.shape, aval.dtype) for aval in barriers] == [((6, 4), jnp.bool_)]


@each_network
def test_evaluation_and_sampling_drop_nothing(network):
    dropping, plain = family(network, RATE), family(network, 0.0)
    params, x = random_params(plain), jnp.asarray(images())
    key = jax.random.key(3)
    for evaluate in (
        lambda model: model.log_prob(params, {}, key, x).log_prob,
        lambda model: model.sample(params, {}, key, 8),
        lambda model: model.nll(params, x.reshape(-1, 16).astype(jnp.int32), None, 0),
    ):
        np.testing.assert_array_equal(evaluate(dropping), evaluate(plain))


@each_network
def test_the_loss_drops_with_its_key_alone(network):
    dropping, plain = family(network, RATE), family(network, 0.0)
    params, batch = random_params(plain), {"x": jnp.asarray(images())}
    assert jax.tree.structure(dropping.init(jax.random.key(0), batch)) == jax.tree.structure((params, {}))
    loss = jax.jit(lambda key: dropping.loss(params, {}, key, batch)[0])
    values = [float(loss(jax.random.key(seed))) for seed in (0, 0, 1)]
    assert values[0] == values[1]
    without = [float(plain.loss(params, {}, jax.random.key(seed), batch)[0]) for seed in (0, 1)]
    assert without[0] == without[1]
    assert len({values[0], values[2], without[0]}) == 3


@each_network
def test_a_rate_of_zero_computes_what_a_network_without_dropout_does(network):
    plain = family(network, 0.0)
    params, x = random_params(plain), jnp.asarray(images()).reshape(-1, 16).astype(jnp.int32)
    with_key = plain.nll(params, x, None, 0, dropout_key=jax.random.key(0))
    np.testing.assert_array_equal(with_key, plain.nll(params, x, None, 0))


@each_network
def test_no_output_sees_its_own_or_later_levels_while_units_are_dropped(network):
    model = family(network, RATE)
    params, key = random_params(model), jax.random.key(5)
    x = jnp.asarray(images(1)).reshape(1, 16).astype(jnp.int32)
    outputs = lambda x: model.network.outputs(params["autoregressive"], x, None, 0, key)[0, :, 0]  # noqa: E731
    flipped = jax.vmap(lambda i: outputs(x.at[0, i].set(1 - x[0, i])))(jnp.arange(16))
    changed = np.asarray(jnp.abs(flipped - outputs(x)[None]) > 1e-4)  # [flipped, output]
    assert not np.tril(changed).any()
    assert changed.any()


def test_each_step_draws_its_own_units():
    model = family(made, RATE).model
    adams = {"autoregressive": optimizers.adam(optimizers.constant_schedule(1e-30))}  # nothing else changes
    fresh = state.create(model, adams, jax.random.key(0), {"x": images()})
    strategy = parallel.jit()
    compiled = strategy.compile(step.make_train_step(model, adams, seed=0))
    batches, losses, current = strategy.place_batches({"x": images()[None]}), [], strategy.place(fresh)
    current = current._replace(params=random_params(model))
    for _ in range(3):
        current, metrics = compiled(current, batches)
        losses.append(float(np.asarray(metrics["loss"])[0]))
    assert len(set(losses)) == 3
