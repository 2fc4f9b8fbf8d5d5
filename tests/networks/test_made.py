from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.made import MADE, mask_sets

B = 5
RNG = np.random.default_rng(0)


def random_params(network, *args):
    shapes = jax.eval_shape(network.init, jax.random.key(0), *args)["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), shapes)


def binary(*shape):
    return jnp.asarray(RNG.integers(0, 2, shape), jnp.float32)


def one(masks, k=0):
    return jax.tree.map(lambda leaf: leaf[k], masks)


def random_orders(num_sets, num_dims):
    return np.stack([RNG.permutation(num_dims) for _ in range(num_sets)])


def written_masks(masks):
    """Computes equation (3) entry by entry."""
    layers = [masks.positions, *masks.degrees]
    hidden = [np.asarray([[u <= v for v in after] for u in before]) for before, after in pairwise(layers)]
    output = np.asarray([[u < v for v in masks.positions] for u in layers[-1]])
    direct = np.asarray([[u < v for v in masks.positions] for u in masks.positions])
    return hidden, output, direct


# Mask sets.


@pytest.mark.parametrize("num_dims", [1, 2, 3, 8])
@pytest.mark.parametrize("hidden", [(), (5,), (4, 9), (1, 3)])
def test_paths_through_the_masks_lead_only_to_later_dimensions(num_dims, hidden):
    sets = mask_sets(random_orders(4, num_dims), hidden, seed=1)
    for k in range(4):
        masks = one(sets, k)
        reach = np.eye(num_dims, dtype=int)
        *hidden_masks, output = [*written_masks(masks)[0], written_masks(masks)[1]]
        for mask in (*hidden_masks, output):
            reach = reach @ mask.astype(int)
        earlier = masks.positions[:, None] < masks.positions[None, :]
        assert np.all(earlier | (reach == 0))
        if min(hidden, default=8) >= 2 * (num_dims - 1):
            np.testing.assert_array_equal(reach > 0, earlier)


@pytest.mark.parametrize("num_dims", [2, 3, 8, 20])
@pytest.mark.parametrize("hidden", [(2,), (5,), (30,), (4, 9), (30, 3, 6)])
def test_all_but_the_last_dimension_are_used_and_all_but_the_first_predicted(num_dims, hidden):
    sets = mask_sets(random_orders(3, num_dims), hidden, seed=2)
    for k in range(3):
        masks = one(sets, k)
        hidden_masks, output, _ = written_masks(masks)
        reach = np.eye(num_dims, dtype=int)
        for mask in (*hidden_masks, output):
            reach = reach @ mask.astype(int)
        np.testing.assert_array_equal(reach.any(axis=1), masks.positions < num_dims - 1)
        np.testing.assert_array_equal(reach.any(axis=0), masks.positions > 0)


def test_degrees_are_spread_evenly_and_shuffled_for_each_set():
    num_dims, width = 9, 400
    sets = mask_sets(np.tile(np.arange(num_dims), (3, 1)), (width, width), seed=0)
    for layer in sets.degrees:
        counts = np.stack([np.bincount(row, minlength=num_dims) for row in layer])
        assert np.all(counts[:, num_dims - 1] == 0)
        assert counts[:, : num_dims - 1].min() >= width // num_dims // 2
        assert not np.array_equal(layer[0], layer[1])
    assert not np.array_equal(sets.degrees[0][0], sets.degrees[1][0])
    np.testing.assert_array_equal(sets.degrees[0], mask_sets(sets.order, (width, width), seed=0).degrees[0])
    assert not np.array_equal(sets.degrees[0], mask_sets(sets.order, (width, width), seed=1).degrees[0])


def test_units_are_the_inverse_of_the_degrees():
    sets = mask_sets(random_orders(3, 8), (5, 30), seed=3)
    for degrees, units in zip(sets.degrees, sets.units, strict=True):
        for k in range(3):
            found = [set(row[row < degrees.shape[1]].tolist()) for row in units[k]]
            expected = [set(np.flatnonzero(degrees[k] == i - 1).tolist()) for i in range(8)]
            assert found == expected


def test_orderings_must_be_permutations():
    for rows in ([[0, 1, 1]], [[1, 2, 3]], [[0, 1, 2], [2, 1, 1]]):
        with pytest.raises(ValueError, match="permutation"):
            mask_sets(np.asarray(rows), (4,))


# The network.


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("hidden", [(), (7,), (7, 9)])
def test_made_equals_its_composition_by_hand(x64, hidden, direct):
    num_dims = 6
    x, label = binary(B, num_dims), np.arange(B) % 3
    masks = one(mask_sets(random_orders(1, num_dims), hidden))
    network = MADE(num_dims, hidden, num_classes=3, activation=jnp.tanh, direct=direct)
    params = random_params(network, x, masks, label)
    p = jax.tree.map(np.asarray, params)
    hidden_masks, output, direct_mask = written_masks(masks)
    h = np.asarray(x)
    for layer, mask in enumerate(hidden_masks):
        h = np.tanh(h @ (p[f"kernel_{layer}"] * mask) + p[f"bias_{layer}"] + p[f"label_bias_{layer}"][label])
    last = len(hidden)
    expected = h @ (p[f"kernel_{last}"] * output) + p[f"bias_{last}"] + p[f"label_bias_{last}"][label]
    if direct and hidden:
        expected = expected + np.asarray(x) @ (p["direct_kernel"] * direct_mask)
    np.testing.assert_allclose(network.apply({"params": params}, x, masks, label), expected, rtol=1e-12)


def test_mask_sets_share_the_weights_and_never_change_them():
    num_dims = 6
    x, sets = binary(B, num_dims), mask_sets(random_orders(2, num_dims), (20,))
    network = MADE(num_dims, (20,), direct=True)
    params = random_params(network, x, one(sets))
    assert all(np.all(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(params))
    before = network.apply({"params": params}, x, one(sets))
    other, changed = network.apply({"params": params}, x, one(sets, 1), mutable=True)
    assert not np.allclose(before, other)
    assert not changed or all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(changed["params"]), jax.tree.leaves(params), strict=True)
    )
    np.testing.assert_array_equal(before, network.apply({"params": params}, x, one(sets)))


def test_exactly_the_unmasked_connections_get_a_gradient():
    num_dims, hidden = 6, (12,)
    x, masks = jnp.ones((B, num_dims)), one(mask_sets(random_orders(1, num_dims), hidden))
    network = MADE(num_dims, hidden, direct=True, activation=jax.nn.softplus)
    params = random_params(network, x, masks)
    gradient = jax.grad(lambda p: jnp.square(network.apply({"params": p}, x, masks)).sum())(params)
    (first,), output, direct = written_masks(masks)
    np.testing.assert_array_equal(np.asarray(gradient["kernel_0"]) != 0, first)
    np.testing.assert_array_equal(np.asarray(gradient["kernel_1"]) != 0, output)
    np.testing.assert_array_equal(np.asarray(gradient["direct_kernel"]) != 0, direct)
    assert np.all(np.asarray(gradient["bias_0"]) != 0)
    assert np.all(np.asarray(gradient["bias_1"]) != 0)


@pytest.mark.parametrize("hidden", [(), (3,), (3, 2)])
@pytest.mark.parametrize("direct", [False, True])
def test_a_single_dimension_depends_on_nothing(hidden, direct):
    masks = one(mask_sets(np.zeros((1, 1), int), hidden))
    network = MADE(1, hidden, direct=direct)
    params = random_params(network, jnp.zeros((1, 1)), masks)
    logits = network.apply({"params": params}, jnp.asarray([[0.0], [1.0]]), masks)
    np.testing.assert_array_equal(logits[:, 0], jnp.full(2, params[f"bias_{len(hidden)}"][0]))
    cache = network.apply({"params": params}, 2, method="begin")
    _, stepped = network.apply({"params": params}, cache, 0, jnp.zeros(2, jnp.int32), masks, method="step")
    np.testing.assert_array_equal(stepped, logits[:, 0])


def test_jit_and_vmap_over_mask_sets_agree():
    num_dims = 6
    x, sets = binary(B, num_dims), mask_sets(random_orders(3, num_dims), (8, 8))
    network = MADE(num_dims, (8, 8))
    params = random_params(network, x, one(sets))
    apply = lambda masks: network.apply({"params": params}, x, masks)  # noqa: E731
    mapped = jax.vmap(apply)(sets)
    for k in range(3):
        np.testing.assert_allclose(mapped[k], jax.jit(apply)(one(sets, k)), atol=1e-5)


def test_unexpected_and_missing_labels_raise():
    x, label = binary(B, 4), jnp.zeros(B, jnp.int32)
    masks = one(mask_sets(random_orders(1, 4), (3,)))
    with pytest.raises(ValueError, match="label"):
        MADE(4, (3,)).init(jax.random.key(0), x, masks, label)
    with pytest.raises(ValueError, match="label"):
        MADE(4, (3,), num_classes=3).init(jax.random.key(0), x, masks)
