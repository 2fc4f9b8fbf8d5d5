import jax
import numpy as np

from gm_jax.networks.digit_classifier import DigitClassifier


def test_logits_are_linear_in_the_features_and_examples_are_independent():
    network, x = DigitClassifier(), jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
    (features, logits), variables = jax.jit(network.init_with_output)(jax.random.key(1), x)
    assert features.shape == (3, 64)
    assert np.all(np.asarray(features) >= 0)
    assert np.any(np.asarray(features) > 0)
    last = variables["params"]["Dense_1"]
    np.testing.assert_allclose(logits, features @ last["kernel"] + last["bias"][None], atol=1e-5)
    mixed, _ = jax.jit(network.apply)(variables, x[::-1].at[0].set(0.0))
    np.testing.assert_allclose(mixed[2], features[0], atol=1e-5)
    assert not np.allclose(mixed[0], features[2], atol=1e-2)


def test_both_sizes_of_digits_need_less_than_a_megabyte_of_parameters():
    for side in (8, 28):
        x = jax.ShapeDtypeStruct((1, side, side, 1), np.float32)
        shapes = jax.eval_shape(DigitClassifier().init, jax.random.key(0), x)
        assert 20_000 < sum(leaf.size for leaf in jax.tree.leaves(shapes)) < 100_000
