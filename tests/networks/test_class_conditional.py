"""Networks that see a label: each example its own, and at the start as if there were none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.class_conditional import LabelledInput, ProjectionDiscriminator
from gm_jax.networks.convnet import ConvEncoder
from gm_jax.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator
from gm_jax.networks.mlp import MLPDecoder, MLPEncoder

LABEL = jnp.array([2, 0, 1, 2])
X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 1)), jnp.float32)
Z = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)


@pytest.mark.parametrize(
    ("network", "x", "settings"),
    [
        (LabelledInput(MLPEncoder((5,), 2), 3, flat=True), X, {}),
        (LabelledInput(ConvEncoder((4, 4), 2, hidden=5), 3), X, {}),
        (LabelledInput(MLPDecoder((5,), (8, 8, 1)), 3), Z, {}),
        (LabelledInput(MLPGenerator((5,), (2,)), 3), Z, {"train": False}),
        (LabelledInput(DCGANGenerator((8, 8, 1), (4, 4)), 3), Z, {"train": False}),
    ],
)
def test_each_example_sees_its_own_label(network, x, settings):
    variables = network.init(jax.random.key(0), x, LABEL, **settings)
    first = lambda label: jax.tree.leaves(network.apply(variables, x, label, **settings))[0]  # noqa: E731
    changed = jnp.any((first(LABEL) != first(LABEL.at[1].set(2))).reshape(4, -1), axis=1)
    np.testing.assert_array_equal(changed, [False, True, False, False])


def test_a_flat_input_is_followed_by_one_number_for_each_class():
    network = LabelledInput(MLPEncoder((5,), 2), 3, flat=True)
    kernels = network.init(jax.random.key(0), X, LABEL)["params"]["network"]["MLP_0"]["Dense_0"]["kernel"]
    assert kernels.shape == (64 + 3, 5)


@pytest.mark.parametrize("inner", [MLPDiscriminator((5, 6)), DCGANDiscriminator((4, 6), norm=None)])
def test_a_projection_is_the_label_times_the_features(inner):
    network = ProjectionDiscriminator(inner, 3)
    variables = network.init(jax.random.key(0), X, LABEL, train=False)
    logits, features = network.apply(variables, X, LABEL, train=False)
    alone = inner.apply({"params": variables["params"]["discriminator"]}, X, train=False)
    np.testing.assert_array_equal(logits, alone[0])  # the vectors start at zero
    np.testing.assert_array_equal(features, alone[1])
    vectors = np.random.default_rng(2).normal(size=(3, features.shape[1]))
    params = {**variables["params"], "Embed_0": {"embedding": jnp.asarray(vectors, jnp.float32)}}
    moved, _ = network.apply({"params": params}, X, LABEL, train=False)
    expected = [logit + vectors[y] @ phi for logit, y, phi in zip(logits, LABEL, features, strict=True)]
    np.testing.assert_allclose(moved, expected, rtol=1e-4)
