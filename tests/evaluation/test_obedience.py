"""Obedience: the ceiling of real pictures, the floor of shuffled captions, and single faults."""

import numpy as np
import pytest

from gm_jax.data import captions, sources
from gm_jax.errors import UserError
from gm_jax.evaluation import obedience, scene_reader
from tests.data.test_real_tfds_sets import REAL, needs


@pytest.fixture(scope="module")
def heldout():
    return sources.load("captions").splits["test"]


@pytest.mark.parametrize("name", ["captions", pytest.param("captions:mnist", marks=needs("mnist"))])
def test_real_pictures_obey_their_captions(name):
    arrays = sources.load(name, str(REAL)).splits["test"]
    rates = obedience.obedience(arrays["x"], arrays["tokens"])
    assert {group: rates[group]["caption"].count for group in rates} == {"all": 2000, "seen": 1000, "held_out": 1000}
    for group in obedience.GROUPS:
        for attribute in obedience.ATTRIBUTES[:-1]:
            assert rates[group][attribute].rate >= 0.99, (group, attribute)
        assert rates[group]["caption"].rate >= 0.975
    assert 900 < rates["all"]["relation"].count < 1100
    assert rates["all"]["relation"].count + rates["all"]["place"].count < 2000  # some places are not said


def test_shuffled_captions_are_obeyed_by_chance(heldout):
    x, tokens = heldout["x"], heldout["tokens"]
    shuffled = obedience.obedience(x[np.random.default_rng(1).permutation(len(x))], tokens)["all"]
    floor = obedience.floor(x, tokens)["all"]
    # Independent of the reader: one or two digits, nine places, four relations and three greys, equally probable.
    chance = {"count": 1 / 2, "place": 1 / 18, "background": 1 / 3}
    for attribute in obedience.ATTRIBUTES:
        error = shuffled[attribute].standard_error
        assert abs(shuffled[attribute].rate - floor[attribute].rate) < 3 * error, attribute
        if attribute in chance:
            assert abs(shuffled[attribute].rate - chance[attribute]) < 3 * error, attribute
            assert floor[attribute].rate == pytest.approx(chance[attribute], abs=0.02)
    assert floor["caption"].rate < 0.01
    assert floor["digit"].rate < 0.25
    assert floor["relation"].rate < 0.2


def scene(text):
    return captions.parse(captions.encode(text)[None])


def faults(shown, said):
    """What is wrong, attribute -> rate; the picture is given as a caption that says everything, left or upper first."""
    right = obedience.obeyed(scene(shown), scene(said))
    return {name: float(value[0]) for name, value in right.items() if value[0] < 1}


@pytest.mark.parametrize(
    ("shown", "said", "wrong"),
    [
        ("a large red seven left of a small blue two on grey", "a red seven left of a small blue two", {}),
        ("a large red seven left of a small blue two on grey", "a small blue two right of a red seven", {}),
        ("a large red seven above a small blue two on grey", "a small blue two below a large red seven on grey", {}),
        # The digits have changed places: the relation alone is wrong.
        ("a small blue two left of a large red seven on grey", "a red seven left of a blue two", {"relation": 0}),
        ("a large red seven above a small blue two on grey", "a red seven left of a blue two", {"relation": 0}),
        ("a large red seven left of a small red two on grey", "a red seven left of a blue two", {"colour": 0.5}),
        ("a large red one left of a small blue two on grey", "a red seven left of a blue two", {"digit": 0.5}),
        ("a large red six left of a small red six on grey", "a small red six left of a red six", {"size": 0}),
        ("a large red six left of a small red six on grey", "a red six right of a red six", {}),
        (
            "a large red seven at the centre on grey",
            "a small blue two right of a red seven on white",
            {"digit": 0.5, "colour": 0.5, "size": 0, "count": 0, "relation": 0, "background": 0},
        ),
        ("a large red seven at the top left on grey", "a red seven at the top left", {}),
        ("a large red seven at the top left on grey", "a red seven at the top", {"place": 0}),
        ("a large red seven at the top left on grey", "a red seven", {}),
        # Two digits where one is asked for: the better one is compared, and there is no place.
        (
            "a large blue two left of a large red seven on grey",
            "a large red seven at the right on grey",
            {"count": 0, "place": 0},
        ),
    ],
)
def test_each_fault_is_counted_where_it_belongs(shown, said, wrong):
    assert faults(shown, said) == ({**wrong, "caption": 0} if wrong else {})


def test_what_is_not_said_is_not_counted():
    right = obedience.obeyed(scene("a large red seven at the top on grey"), scene("a red seven"))
    for name in ("size", "place", "relation", "background"):
        assert np.isnan(right[name][0]), name


def test_an_empty_picture_obeys_nothing():
    shown = scene_reader.read(np.full((1, 32, 32, 3), 12, np.uint8))
    right = obedience.obeyed(shown, scene("a small red seven at the top on white"))
    assert {name: float(value[0]) for name, value in right.items() if not np.isnan(value[0])} == dict.fromkeys(
        ("digit", "colour", "size", "count", "place", "background", "caption"), 0.0
    )


def test_rates_have_their_standard_errors(heldout):
    x, tokens = heldout["x"][:100].copy(), heldout["tokens"][:100]
    x[:30] = 243  # empty
    rate = obedience.obedience(x, tokens)["all"]["count"]
    assert rate.rate == pytest.approx(0.7)
    p = (70 + 2) / (100 + 4)
    assert rate.standard_error == pytest.approx(np.sqrt(p * (1 - p) / 104))
    assert rate.count == 100
    backgrounds = obedience.obedience(x[30:], tokens[30:])["all"]["background"]
    assert backgrounds.rate == 1.0
    assert (
        0
        < backgrounds.standard_error
        == pytest.approx(np.sqrt(2 * (backgrounds.count + 2)) / (backgrounds.count + 4) ** 1.5)
    )


def test_a_rate_of_no_caption_is_nan_and_one_caption_has_an_error():
    x = np.full((1, 32, 32, 3), 12, np.uint8)
    rates = obedience.obedience(x, captions.encode("a red seven left of a blue two on black")[None])["all"]
    assert np.isnan(rates["place"].rate)
    assert np.isnan(rates["place"].standard_error)
    assert rates["place"].count == 0
    # The one caption is obeyed: three of five with those that are added.
    assert rates["background"] == (1.0, pytest.approx(np.sqrt(0.6 * 0.4 / 5)), 1)


def test_other_captions_or_counts_are_refused(heldout):
    x, tokens = heldout["x"][:2], heldout["tokens"]
    with pytest.raises(ValueError, match="one caption for each picture"):
        obedience.obedience(x, tokens[:3])
    with pytest.raises(ValueError, match="two pictures or more"):
        obedience.floor(x[:1], tokens[:1])
    with pytest.raises(UserError, match="grammar"):
        obedience.obedience(x[:1], captions.encode("red red red")[None])
