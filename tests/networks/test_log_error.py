import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.networks.log_error import LogError
from gm_jax.networks.time_embedding import sinusoids

T = jnp.array([3, 700])
CAPTIONS = jnp.array([[2, 4, 0], [1, 0, 0]])


def test_it_is_the_formula_by_hand(randomized):
    module = LogError(5, 8)
    variables = randomized(module, T, CAPTIONS)
    p = {name: {k: np.asarray(v, np.float64) for k, v in leaf.items()} for name, leaf in variables["params"].items()}
    silu = lambda h: h / (1 + np.exp(-h))  # noqa: E731
    words = np.stack([(p["Embed_0"]["embedding"][[2, 4]]).sum(0) / 3**0.5, p["Embed_0"]["embedding"][1] / 2**0.5])
    h = np.asarray(sinusoids(T, 8), np.float64) @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"] + words
    h = silu(h) @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]
    expected = (silu(h) @ p["Dense_2"]["kernel"] + p["Dense_2"]["bias"])[:, 0]
    np.testing.assert_allclose(module.apply(variables, T, CAPTIONS), expected, rtol=1e-4, atol=1e-5)


def test_padding_is_not_read_and_words_are(randomized):
    module = LogError(5, 8)
    variables = randomized(module, T, CAPTIONS)
    u = module.apply(variables, T, CAPTIONS)
    np.testing.assert_array_equal(module.apply(variables, T, jnp.array([[2, 0, 4], [0, 0, 1]])), u)
    assert np.abs(module.apply(variables, T, jnp.array([[2, 3, 0], [3, 0, 0]])) - u).min() > 1e-3


def test_all_errors_start_with_the_same_weight():
    module = LogError(5, 8)
    variables = module.init(jax.random.key(0), T, CAPTIONS)
    np.testing.assert_array_equal(module.apply(variables, T, CAPTIONS), np.zeros(2))
