from gm_jax.data import names
from gm_jax.errors import UserError


def test_the_message_suggests_similar_names_and_lists_all():
    error = names.unknown_name("toy", "two-Moon", ["two_moons", "pinwheel"])
    assert isinstance(error, UserError)
    assert str(error) == "There is no toy 'two-Moon'. Did you mean 'two_moons'?\nKnown names: two_moons, pinwheel."


def test_nothing_similar_gives_no_suggestion():
    error = names.unknown_name("toy", "zzz", ["two_moons"], listed="many")
    assert str(error) == "There is no toy 'zzz'.\nKnown names: many."
