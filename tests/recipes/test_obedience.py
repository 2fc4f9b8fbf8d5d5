"""The evaluation of obedience: which pictures and captions each of its numbers is of."""

import jax
import numpy as np
import pytest

from gm_jax.data import sources
from gm_jax.evaluation import obedience
from gm_jax.recipes.obedience import obedience_evaluation
from tests.captioned_model import IMAGES, STATE, captioned

NUM, KEY = 40, jax.random.key(0)


@pytest.fixture(scope="module")
def test_split():
    return {name: array[:NUM] for name, array in sources.load("captions").splits["test"].items()}


def test_numbers_are_of_samples_the_data_reconstructions_and_shuffled_captions(test_split):
    evaluation = obedience_evaluation(captioned()[0], num_samples=NUM)
    x, tokens = test_split["x"], test_split["tokens"]
    grey = np.full_like(x, 120)
    # The data as samples, and nothing in what is reconstructed.
    numbers = evaluation.measure(x, tokens, x, grey)
    assert set(numbers) == set(evaluation.units)
    rates = obedience.obedience(x, tokens)
    for attribute in obedience.ATTRIBUTES:
        for name, group in (("obedience_seen", "seen"), ("obedience_held_out", "held_out"), ("ceiling", "all")):
            np.testing.assert_equal(tuple(numbers[f"{name}_{attribute}"]), rates[group][attribute])
    assert numbers["ceiling_caption"].value > 0.9
    assert numbers["reconstructed_caption"].value == 0.0
    assert numbers["reconstructed_caption"].captions == NUM
    assert numbers["floor_caption"].value < 0.1
    assert numbers["floor_size"].standard_error > 0.0


def test_a_reconstruction_is_what_strength_0_returns():
    model, params = captioned()
    evaluation = obedience_evaluation(model, num_samples=NUM)
    expected = model.edit(params, STATE, KEY, IMAGES, strength=0.0)
    np.testing.assert_array_equal(evaluation.reconstruct(params, STATE, KEY, IMAGES), expected)
