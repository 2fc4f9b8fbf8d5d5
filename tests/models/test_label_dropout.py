"""Labels withheld in training, and guided outputs, on functions that show what they are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.models import label_dropout

X, T = jnp.ones((2, 3)), jnp.zeros(2)


def reveal(x, t, label):
    """Outputs the label, or -1 without one."""
    return (jnp.full(x.shape[0], -1) if label is None else label)[:, None] * jnp.ones_like(x)


def test_a_model_without_labels_gets_none():
    assert label_dropout.no_label(2, None) is None
    batch = {"x": X, "label": jnp.array([0, 1])}
    assert label_dropout.training_label(jax.random.key(0), batch, num_classes=None, drop_label=0.5) is None
    out = label_dropout.guided_output(reveal, X, T, None, num_classes=None, weight=2.0)
    np.testing.assert_array_equal(out, -np.ones((2, 3)))


def test_the_share_of_withheld_labels_is_the_setting():
    n = 20_000
    batch = {"x": jnp.ones((n, 1)), "label": jnp.arange(n) % 10}
    found = label_dropout.training_label(jax.random.key(0), batch, num_classes=10, drop_label=0.3)
    withheld = np.asarray(found == 10)
    assert abs(withheld.mean() - 0.3) < 4 * np.sqrt(0.21 / n)
    np.testing.assert_array_equal(found[~withheld], batch["label"][~withheld])


def test_data_without_labels_are_refused():
    with pytest.raises(UserError):
        label_dropout.training_label(jax.random.key(0), {"x": X}, num_classes=10, drop_label=0.1)


@pytest.mark.parametrize("weight", [0.0, 1.5, -1.0, jnp.array(1.5)])
def test_a_guided_output_is_the_papers(weight):
    label = jnp.array([1, 4])
    out = label_dropout.guided_output(reveal, X, T, label, num_classes=10, weight=weight)
    expected = (1 + float(weight)) * np.array([1.0, 4.0]) - float(weight) * 10
    np.testing.assert_allclose(out, np.tile(expected[:, None], (1, 3)), rtol=1e-6)
    without = label_dropout.guided_output(reveal, X, T, None, num_classes=10, weight=weight)
    np.testing.assert_array_equal(without, np.full((2, 3), 10.0))


CAPTIONS = jnp.array([[3, 4, 0], [5, 0, 0]])


def first_word(x, t, tokens):
    return tokens[:, :1] * jnp.ones_like(x)


def test_captions_are_withheld_whole():
    n = 20_000
    batch = {"x": jnp.ones((n, 1)), "tokens": jnp.ones((n, 3), jnp.int32)}
    found = label_dropout.training_label(jax.random.key(0), batch, num_classes=None, drop_label=0.3, num_tokens=3)
    assert set(np.unique(np.sum(found, axis=1))) == {0, 3}
    np.testing.assert_allclose(np.mean(found[:, 0] == 0), 0.3, atol=4 * np.sqrt(0.3 * 0.7 / n))
    with pytest.raises(UserError, match="data have none: choose data with captions"):
        label_dropout.training_label(jax.random.key(0), {"x": X}, num_classes=None, drop_label=0.1, num_tokens=3)


def test_a_negative_caption_takes_the_place_of_none():
    def guided(tokens, weight, negative=None):
        settings = {"num_classes": None, "num_tokens": 3, "weight": weight, "negative": negative}
        return label_dropout.guided_output(first_word, X, T, tokens, **settings)[:, 0]

    np.testing.assert_array_equal(guided(CAPTIONS, 2.0), [9.0, 15.0])  # 3 y - 2 * 0
    np.testing.assert_array_equal(guided(CAPTIONS, 2.0, jnp.array([1, 0, 0])), [7.0, 13.0])
    np.testing.assert_array_equal(guided(CAPTIONS, 2.0, jnp.zeros(3, jnp.int32)), guided(CAPTIONS, 2.0))
    np.testing.assert_array_equal(guided(CAPTIONS, 0.0, jnp.array([1, 0, 0])), [3.0, 5.0])
    np.testing.assert_array_equal(guided(None, 2.0), [0.0, 0.0])
