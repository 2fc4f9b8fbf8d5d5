import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.text_encoder import TextEncoder

CAPTION = jnp.array([[3, 1, 4, 2, 0, 0]])
ENCODER = TextEncoder((6,), 7, 5, features=8, heads=2, layers=2)


def context(variables, tokens):
    return tuple(np.asarray(part) for part in ENCODER.apply(variables, tokens))


@pytest.fixture
def variables(randomized):
    return randomized(ENCODER, CAPTION)


def test_the_context_is_the_start_and_the_words(variables):
    found, counts = context(variables, CAPTION)
    assert found.shape == (1, 7, 5)
    np.testing.assert_array_equal(counts, [[True] * 5 + [False] * 2])
    # The null caption is the start alone, and it can be read.
    np.testing.assert_array_equal(context(variables, jnp.zeros((1, 6), jnp.int32))[1], [[True] + [False] * 6])


def test_words_do_not_read_the_padding_and_their_order_counts(variables):
    before, counts = context(variables, CAPTION)
    row = variables["params"]["embedding"]["embedding"]
    other = jax.tree.map(lambda leaf: leaf, variables)
    other["params"]["embedding"]["embedding"] = row.at[0].multiply(-3.0)  # of the padding
    after, _ = context(other, CAPTION)
    np.testing.assert_array_equal(before[counts], after[counts])
    assert np.abs(before[~counts] - after[~counts]).max() > 0.01
    swapped, _ = context(variables, CAPTION[:, jnp.array([1, 0, 2, 3, 4, 5])])
    assert np.abs(before[:, 0] - swapped[:, 0]).max() > 1e-3


def test_the_summary_is_the_sum_of_start_and_words_over_the_root_of_their_number(variables):
    found, counts = (jnp.asarray(part) for part in context(variables, CAPTION))
    summary = np.asarray(ENCODER.summary(found, counts))
    np.testing.assert_allclose(summary[0], np.sum(found[0, :5], axis=0) / np.sqrt(5.0), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(ENCODER.clone(sums=False).summary(found, counts), found[:, 0])


def test_the_summary_is_at_first_a_sum_over_words_whose_order_does_not_count():
    variables = ENCODER.init(jax.random.key(0), CAPTION)
    tables = variables["params"]
    for table in ("embedding", "positions_0"):
        assert abs(np.std(tables[table]["embedding"]) - 1.0) < 0.3
    others = [leaf for path, leaf in jax.tree.leaves_with_path(tables["blocks_0"]) if "out" in str(path)]
    np.testing.assert_array_equal(others[0], 0.0)

    def alone(token):
        caption = jnp.zeros((1, 6), jnp.int32).at[0, 2].set(token)
        return context(variables, caption)[0][0, 3]

    # A word's context does not depend on the words around it.
    for token in (1, 4):
        caption = CAPTION.at[0, 2].set(token)
        np.testing.assert_allclose(context(variables, caption)[0][0, 3], alone(token), rtol=1e-5, atol=1e-5)


def test_captions_of_another_length_are_refused(variables):
    with pytest.raises(ValueError, match=r"reads 6 tokens, not \[5\]"):
        ENCODER.apply(variables, CAPTION[:, :5])
