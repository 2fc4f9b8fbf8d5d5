from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.dcgan import DCGANDiscriminator, DCGANGenerator, FractionallyStridedConv
from gm_jax.networks.minibatch_discrimination import MinibatchDiscrimination
from gm_jax.networks.normalization import BatchNorm, WithReferenceBatch

B, Z = 3, 5

# Shapes of an image and the generator's features: the sizes of the docstring's table, and a wide image.
SIZES = [((8, 8, 1), (6, 4)), ((28, 28, 1), (6, 4)), ((32, 32, 3), (6, 4, 2)), ((8, 12, 2), (4,))]


def shapes_of(module, x):
    """Returns the shapes of the outputs and the variables without computing them."""
    return jax.eval_shape(partial(module.init_with_output, train=True), jax.random.key(0), x)


def drawn(module, x):
    """Draws parameters of either sign, and positive state, because variances are positive."""
    rng = np.random.default_rng(0)
    _, shapes = shapes_of(module, x)
    draw = lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)  # noqa: E731
    variables = jax.tree.map(draw, shapes)
    return {name: leaf if name == "params" else jax.tree.map(jnp.abs, leaf) for name, leaf in variables.items()}


@pytest.mark.parametrize(("event_shape", "features"), SIZES)
def test_generator_and_discriminator_have_the_shapes_of_the_contract(event_shape, features):
    images, _ = shapes_of(DCGANGenerator(event_shape, features), jnp.zeros((B, Z)))
    assert images.shape == (B, *event_shape)
    (logits, inside), _ = shapes_of(DCGANDiscriminator(features[::-1]), jnp.zeros((B, *event_shape)))
    smallest = np.prod(event_shape[:2]) // 4 ** len(features)
    assert logits.shape == (B,)
    assert inside.shape == (B, smallest * features[0])


def test_a_fractionally_strided_convolution_equals_the_transposed_one_with_its_gradient():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    module = FractionallyStridedConv(6)
    kernel, bias = jax.random.normal(jax.random.key(1), (4, 4, 4, 6)), jax.random.normal(jax.random.key(2), (6,))
    params = {"kernel": 0.3 * kernel, "bias": bias}

    def ours(params, x):
        return module.apply({"params": params}, x)

    def transposed(params, x):
        return jax.lax.conv_transpose(x, params["kernel"], (2, 2), "SAME") + params["bias"].reshape(1, 1, 1, -1)

    def outputs_and_gradients(function):
        def loss(params, x):
            y = function(params, x)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)

    for one, other in zip(*map(jax.tree.leaves, map(outputs_and_gradients, (ours, transposed))), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_images_lie_in_minus_one_to_one_and_depend_on_every_latent():
    generator, z = DCGANGenerator((8, 8, 1), (6, 4)), 3.0 * jax.random.normal(jax.random.key(0), (B, Z))
    variables, weights = drawn(generator, z), jax.random.normal(jax.random.key(1), (B, 8, 8, 1))

    def loss(z):
        images = generator.apply(variables, z, train=False)
        return jnp.sum(weights * images), images

    gradient, images = jax.jit(jax.grad(loss, has_aux=True))(z)
    assert np.all(np.abs(gradient) > 0)
    assert np.all(np.abs(images) < 1.0)
    assert np.ptp(images) > 0.1


def test_a_critic_without_norm_scores_each_example_alone_and_sees_every_pixel():
    critic, x = DCGANDiscriminator((4, 6), norm=None), jax.random.normal(jax.random.key(0), (B, 8, 8, 1))
    variables = drawn(critic, x)
    gradient = jax.jit(jax.grad(lambda x: critic.apply(variables, x, train=True)[0][1]))(x)
    assert np.all(gradient[1] != 0)
    assert not np.any(gradient[np.array([0, 2])])


def test_every_layer_but_the_first_and_last_has_batch_norm_and_no_bias():
    _, generator = shapes_of(DCGANGenerator((8, 8, 1), (6, 4)), jnp.zeros((B, Z)))
    biases = {name: "bias" in layer for name, layer in generator["params"].items() if "Norm" not in name}
    assert biases == {"Dense_0": False, "FractionallyStridedConv_0": False, "FractionallyStridedConv_1": True}
    assert len(generator["batch_stats"]) == 2
    _, discriminator = shapes_of(DCGANDiscriminator((4, 6)), jnp.zeros((B, 8, 8, 1)))
    biases = {name: "bias" in layer for name, layer in discriminator["params"].items() if "Norm" not in name}
    assert biases == {"Conv_0": True, "Conv_1": False, "Dense_0": True}
    assert len(discriminator["batch_stats"]) == 1


def test_generator_and_discriminator_equal_their_layers_by_hand():
    z, x = (jax.random.normal(jax.random.key(0), shape) for shape in ((B, Z), (B, 8, 8, 1)))
    generator, discriminator = DCGANGenerator((8, 8, 1), (6, 4)), DCGANDiscriminator((4, 6))
    variables = drawn(generator, z)
    params = variables["params"]

    def norm(h, layer):
        of, stats = params[layer]["BatchNorm_0"], variables["batch_stats"][layer]["BatchNorm_0"]
        of, stats = ({name: np.asarray(leaf) for name, leaf in part.items()} for part in (of, stats))
        return (np.asarray(h) - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * of["scale"] + of["bias"]

    def double(h, layer):
        y = jax.lax.conv_transpose(jnp.asarray(h, jnp.float32), params[layer]["kernel"], (2, 2), "SAME")
        return np.asarray(y) + np.asarray(params[layer].get("bias", 0.0))

    h = np.asarray(z @ params["Dense_0"]["kernel"]).reshape(B, 2, 2, 6)
    h = np.maximum(norm(h, "BatchNorm_0"), 0.0)
    h = np.maximum(norm(double(h, "FractionallyStridedConv_0"), "BatchNorm_1"), 0.0)
    images = np.tanh(double(h, "FractionallyStridedConv_1"))
    np.testing.assert_allclose(generator.apply(variables, z, train=False), images, atol=1e-5)

    variables = drawn(discriminator, x)
    params = variables["params"]

    def halve(h, layer):
        kernel = params[layer]["kernel"]
        h = jnp.asarray(h, jnp.float32)
        y = jax.lax.conv_general_dilated(
            h, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return np.asarray(y) + np.asarray(params[layer].get("bias", 0.0))

    def leaky(h):
        return np.where(h > 0, h, 0.2 * h)

    h = leaky(norm(halve(leaky(halve(x, "Conv_0")), "Conv_1"), "BatchNorm_0")).reshape(B, -1)
    logits, features = discriminator.apply(variables, x, train=False)
    np.testing.assert_allclose(features, h, atol=1e-4)
    expected = h @ np.asarray(params["Dense_0"]["kernel"])[:, 0] + np.asarray(params["Dense_0"]["bias"])
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_every_parameter_gets_a_gradient(norm):
    # A layer before a norm has no bias, because the bias would get no gradient.
    generator = DCGANGenerator((8, 8, 1), (4, 4), norm=norm)
    comparing = {"spectral_norm": True, "minibatch_discrimination": MinibatchDiscrimination(3, 2)}
    discriminator = DCGANDiscriminator((4, 4), norm=norm, **(comparing if norm is None else {}))
    z = jax.random.normal(jax.random.key(0), (8, Z))
    g, d = drawn(generator, z), drawn(discriminator, jnp.zeros((8, 8, 8, 1)))

    def loss(params):
        def apply(network, variables, params, x):
            mutable = [collection for collection in variables if collection != "params"]
            return network.apply({**variables, "params": params}, x, train=True, mutable=mutable)[0]

        logits, _ = apply(discriminator, d, params["d"], apply(generator, g, params["g"], z))
        return jnp.sum(jnp.square(logits))

    gradients = jax.jit(jax.grad(loss))({"g": g["params"], "d": d["params"]})
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_features_exclude_the_output_of_minibatch_discrimination():
    plain = DCGANDiscriminator((4, 6), norm=None)
    comparing = plain.clone(minibatch_discrimination=MinibatchDiscrimination(3, 2))
    x = jax.random.normal(jax.random.key(0), (B, 8, 8, 1))
    variables = drawn(comparing, x)
    logits, features = jax.jit(partial(comparing.apply, train=True))(variables, x)
    params = {name: leaf for name, leaf in variables["params"].items() if name != "minibatch_discrimination"}
    assert variables["params"]["Dense_0"]["kernel"].shape == (features.shape[1] + 3, 1)
    params["Dense_0"] = {**params["Dense_0"], "kernel": params["Dense_0"]["kernel"][:-3]}
    plain_logits, plain_features = jax.jit(partial(plain.apply, train=True))({"params": params}, x)
    np.testing.assert_allclose(features, plain_features, atol=1e-6)
    assert not np.allclose(logits, plain_logits)


def test_a_convolution_without_a_bias_has_none():
    module = FractionallyStridedConv(6, use_bias=False)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 2, 2, 3)))
    assert jax.tree.map(lambda leaf: leaf.shape, variables) == {"params": {"kernel": (4, 4, 3, 6)}}


def test_a_wasserstein_critic_may_omit_the_output_bias():
    _, variables = shapes_of(DCGANDiscriminator((4,), norm=None, output_bias=False), jnp.zeros((B, 8, 8, 1)))
    assert set(variables["params"]["Dense_0"]) == {"kernel"}


def test_with_a_reference_batch_an_image_depends_on_no_other_latent():
    generator = WithReferenceBatch(partial(DCGANGenerator, (8, 8, 1), (4, 3)))
    variables = drawn(generator, jnp.zeros((4, Z)))
    z = jax.random.normal(jax.random.key(1), (B, Z))
    gradient = jax.jit(jax.grad(lambda z: jnp.sum(jnp.square(generator.apply(variables, z, train=True)[1]))))(z)
    assert np.all(gradient[1] != 0)
    assert not np.any(gradient[np.array([0, 2])])


def test_spectral_norm_covers_every_kernel_of_the_discriminator():
    _, variables = shapes_of(DCGANDiscriminator((4, 6), norm=None, spectral_norm=True), jnp.zeros((B, 8, 8, 1)))
    assert [leaf.shape for leaf in jax.tree.leaves(variables["spectral_norm"])] == [(4,), (6,), (1,)]


@pytest.mark.parametrize("shape", [(30, 28, 1), (28, 30, 1), (7, 7, 1)])
def test_sides_that_do_not_fit_the_stages_are_named(shape):
    with pytest.raises(UserError, match=f"{shape[0]}x{shape[1]}.*divisible by 4"):
        shapes_of(DCGANGenerator(shape, (6, 4)), jnp.zeros((B, Z)))
    with pytest.raises(UserError, match=f"{shape[0]}x{shape[1]}.*divisible by 4"):
        shapes_of(DCGANDiscriminator((4, 6)), jnp.zeros((B, *shape)))


def test_every_kernel_is_drawn_from_the_normal_of_the_paper():
    # N(0, 0.02^2), and ones and zeros for norms and biases.
    z, x = jnp.zeros((B, 100)), jnp.zeros((B, 8, 8, 3))
    for module, example in ((DCGANGenerator((8, 8, 3), (64, 32)), z), (DCGANDiscriminator((32, 64)), x)):
        params = jax.jit(partial(module.init, train=True))(jax.random.key(0), example)["params"]
        for path, leaf in jax.tree.leaves_with_path(params):
            if path[-1].key != "kernel":
                np.testing.assert_array_equal(leaf, np.full(leaf.shape, float(path[-1].key == "scale")))
                continue
            draws = np.asarray(leaf, np.float64).ravel() / 0.02
            # Six standard errors of the mean and of the standard deviation of so many draws of a normal.
            assert abs(draws.mean()) < 6 / np.sqrt(draws.size), path
            assert abs(draws.std() - 1.0) < 6 / np.sqrt(2 * draws.size), path
            assert np.abs(draws).max() > 2.4, path  # not a uniform


def test_points_are_rejected():
    with pytest.raises(UserError, match=r"not examples of shape \(2,\)"):
        shapes_of(DCGANDiscriminator((4, 6)), jnp.zeros((B, 2)))


def test_bfloat16_compute_keeps_float32_parameters_and_state():
    norm = partial(BatchNorm, dtype=jnp.bfloat16)
    images, generator = shapes_of(DCGANGenerator((8, 8, 1), (6, 4), norm, dtype=jnp.bfloat16), jnp.zeros((B, Z)))
    (logits, features), discriminator = shapes_of(
        DCGANDiscriminator((4, 6), norm, spectral_norm=True, dtype=jnp.bfloat16), jnp.zeros((B, 8, 8, 1))
    )
    assert images.dtype == jnp.bfloat16
    assert {logits.dtype, features.dtype} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves((generator, discriminator))} == {jnp.dtype(jnp.float32)}
