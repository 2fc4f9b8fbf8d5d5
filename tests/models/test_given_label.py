"""A network with its labels filled in: repeated for copies of the batch, and refused without labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.models import given_label
from gm_jax.networks.class_conditional import LabelledInput
from gm_jax.networks.mlp import MLP

LABEL = jnp.array([2, 0, 1])
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


def test_copies_of_the_batch_have_its_labels_again():
    network = LabelledInput(MLP((5,), 2), 3)
    given = given_label.given_label(network, LABEL)
    outputs, variables = given.init_with_output(jax.random.key(0), X)
    for found in (outputs, given.apply(variables, X)):
        np.testing.assert_array_equal(found, network.apply(variables, X, jnp.array([2, 0, 1, 2, 0, 1])))


def test_a_batch_gives_its_labels_or_is_refused():
    np.testing.assert_array_equal(given_label.label_of({"x": X[:3], "label": LABEL}), LABEL)
    with pytest.raises(UserError, match="conditioned on labels, but the data have none"):
        given_label.label_of({"x": X})


def test_labels_that_are_not_given_are_drawn_evenly():
    np.testing.assert_array_equal(given_label.label_or_random(jax.random.key(0), 3, LABEL, 3), LABEL)
    drawn = given_label.label_or_random(jax.random.key(0), 3000, None, 3)
    np.testing.assert_allclose(np.bincount(drawn, minlength=3), 1000, atol=5 * np.sqrt(3000 * 2 / 9))
