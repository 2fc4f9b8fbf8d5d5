import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.pixelcnn import GatedPixelCNN, PixelCNN

NETWORKS = {"pixelcnn": PixelCNN, "gated": GatedPixelCNN}
each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


@each_network
def test_no_output_depends_on_its_own_or_later_levels(dependencies, network):
    sees = dependencies(network((3, 4, 3), 2, 2, features=12, layers=2, first_size=5))
    assert not np.triu(sees).any()
    assert sees[1:].any(axis=1).all()


def test_gated_pixelcnn_has_no_blind_spot(dependencies):
    sees = dependencies(GatedPixelCNN((5, 5, 1), 2, 1, features=8, layers=4, first_size=3))
    np.testing.assert_array_equal(sees, np.tril(np.ones_like(sees), -1))


def test_gated_pixelcnn_sees_everything_before_a_colour(dependencies):
    sees = dependencies(GatedPixelCNN((3, 3, 3), 4, 2, features=12, layers=3, first_size=3))
    np.testing.assert_array_equal(sees, np.tril(np.ones_like(sees), -1))


def test_pixelcnn_has_the_blind_spot_of_stacked_masks(dependencies):
    side = 5
    sees = dependencies(PixelCNN((side, side, 1), 2, 1, features=8, layers=5, first_size=3))
    for i, j in np.ndindex(sees.shape):
        (r, c), (s, d) = divmod(i, side), divmod(j, side)
        # Each layer climbs one row and moves at most one column to the right, so it is blind beyond 45 degrees.
        assert sees[i, j] == (j < i and d - c <= r - s), ((r, c), (s, d))
    blind = np.tril(~sees, -1)
    assert blind.any()


@each_network
def test_the_mask_a_layer_has_no_residual(dependencies, network):
    # With a residual or mask B in the first layer a pixel would see itself; with mask A in later layers it would see
    # less than two pixels.
    module = network((1, 4, 1), 2, 1, features=8, layers=1, first_size=3)
    sees = dependencies(module)
    np.testing.assert_array_equal(sees, np.tril(np.ones((4, 4), bool), -1) & ~np.tril(np.ones((4, 4), bool), -3))


@each_network
def test_cached_evaluation_equals_that_of_the_whole_image(randomized, network):
    module = network((3, 4, 3), 4, 5, features=6, layers=2, first_size=5, num_classes=3)
    x = jax.random.randint(jax.random.key(1), (2, 3, 4, 3), 0, 4)
    label = jnp.asarray([2, 1])
    params = randomized(module, x, label)
    call = functools.partial(module.apply, params)
    begin_row, step = (jax.jit(functools.partial(call, method=name)) for name in ("begin_row", "step"))
    flat, outputs = np.asarray(x).reshape(2, -1), []
    cache = call(2, label, method="begin")
    for i in range(flat.shape[1]):
        previous = flat[:, i - 1] if i else np.full(2, 3)  # must be ignored at the first position
        if i % 12 == 0:
            cache = begin_row(cache, i // 12, previous)
        cache, output = step(cache, i, previous)
        outputs.append(output)
    whole = jax.jit(call)(x, label).reshape(2, -1, 5)
    np.testing.assert_allclose(np.stack(outputs, 1), whole, atol=1e-4)


@each_network
def test_labels_shift_the_outputs_of_their_own_example(randomized, network):
    module = network((3, 3, 1), 2, 1, features=16, layers=1, first_size=3, num_classes=2)
    x = jnp.zeros((3, 3, 3, 1), jnp.uint8)
    params = randomized(module, x, jnp.zeros(3, jnp.int32))
    outputs = jax.jit(module.apply)(params, x, jnp.asarray([0, 1, 0]))
    np.testing.assert_allclose(outputs[0], outputs[2], atol=1e-6)
    assert (np.abs(outputs[0] - outputs[1]) > 1e-6).all()
    with pytest.raises(ValueError, match="num_classes"):
        module.apply(params, x)


@each_network
def test_examples_are_independent(randomized, network):
    module = network((3, 3, 1), 2, 1, features=4, layers=1, first_size=3)
    x = jax.random.randint(jax.random.key(0), (3, 3, 3, 1), 0, 2)
    params = randomized(module, x)
    apply = jax.jit(module.apply)
    np.testing.assert_allclose(apply(params, x)[1], apply(params, x[1:2])[0], atol=1e-6)


@each_network
def test_bfloat16_compute_keeps_float32_parameters(network):
    module = network((4, 4, 1), 2, 1, features=4, layers=1, first_size=3, dtype=jnp.bfloat16)
    x = jnp.zeros((1, 4, 4, 1), jnp.uint8)
    outputs, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    cache = jax.eval_shape(lambda params: module.apply(params, 1, method="begin"), variables)
    step = functools.partial(module.apply, method="step")
    after, output = jax.eval_shape(step, variables, cache, jnp.int32(0), jnp.zeros(1, jnp.int32))
    assert output.dtype == jnp.bfloat16
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [leaf.dtype for leaf in jax.tree.leaves(cache)]
