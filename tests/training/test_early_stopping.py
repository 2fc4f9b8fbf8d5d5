import itertools

import pytest

from gm_jax.training.early_stopping import is_out_of_patience


def stops_by_hand(values, patience):
    """Counts the validations since the first of the best ones, one by one."""
    best, since = values[0], 0
    for value in values[1:]:
        best, since = (value, 0) if value > best else (best, since + 1)
    return since >= patience


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_training_stops_after_as_many_validations_without_improvement(patience):
    for values in itertools.product((0.0, 1.0, 2.0), repeat=5):
        assert is_out_of_patience(values, patience=patience) == stops_by_hand(values, patience), values


def test_zero_patience_never_stops():
    assert not is_out_of_patience([5.0, 4.0, 3.0, 2.0], patience=0)


def test_training_does_not_stop_before_there_is_something_to_improve_on():
    assert not is_out_of_patience([], patience=1)
    assert not is_out_of_patience([1.0], patience=1)
    assert not is_out_of_patience([1.0, 0.0], patience=2)
    assert is_out_of_patience([1.0, 1.0], patience=1)  # an equal value is no improvement
