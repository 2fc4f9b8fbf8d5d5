import numpy as np
import pytest
from scipy import spatial

from gm_jax.errors import UserError
from gm_jax.evaluation import precision_recall as pr

RNG = np.random.default_rng(0)


def by_definition(real, generated, neighbour):
    def inside(points, centres):
        own = np.sort(spatial.distance.cdist(centres, centres), axis=1)[:, neighbour]
        return np.mean((spatial.distance.cdist(points, centres) <= own[None]).any(axis=1))

    return inside(generated, real), inside(real, generated)


@pytest.mark.parametrize("neighbour", [1, 3])
def test_both_equal_the_definition_with_whole_distance_matrices(neighbour, monkeypatch):
    monkeypatch.setattr(pr, "_CHUNK", 7)
    real, generated = RNG.normal(size=(40, 3)), 0.7 * RNG.normal(size=(30, 3)) + 0.5
    measured = pr.precision_recall(real, generated, neighbour=neighbour)
    np.testing.assert_allclose(measured[:2], by_definition(real, generated, neighbour))
    assert 0.0 < measured.recall < measured.precision < 1.0


def test_points_on_a_line_by_hand():
    # The real balls at 0, 1, 2, 10 have radii 1, 1, 1, 8: they contain the generated 5 and 9, but not -3.
    # The generated balls have radii 4, 4, 8: each of 0, 1, 2, 10 is in at least one of them.
    real, generated = np.array([[0.0], [1.0], [2.0], [10.0]]), np.array([[5.0], [9.0], [-3.0]])
    measured = pr.precision_recall(real, generated, neighbour=1)
    np.testing.assert_allclose(measured.precision, 2 / 3)
    np.testing.assert_allclose(measured.recall, 1.0)


def test_a_missing_mode_costs_recall_and_an_extra_mode_precision():
    near, far = RNG.normal(size=(100, 2)), RNG.normal(size=(100, 2)) + 50.0
    both = np.concatenate([near, far])
    dropped = pr.precision_recall(both, near + 0.01)
    assert dropped.precision > 0.95
    assert 0.4 < dropped.recall < 0.55
    foreign = pr.precision_recall(near, both + 0.01)
    assert foreign.recall > 0.95
    assert 0.4 < foreign.precision < 0.55


def test_a_set_covers_itself_even_if_it_consists_of_copies():
    once = RNG.normal(size=(20, 5)) + 1000.0  # far from the origin, where norms lose digits
    copies = np.repeat(once, 5, axis=0)  # balls of radius 0
    assert pr.precision_recall(copies, copies)[:2] == (1.0, 1.0)
    assert pr.precision_recall(copies, copies[::7] + 0.5).precision == 0.0


def test_bad_input_is_refused():
    good = RNG.normal(size=(5, 3))
    with pytest.raises(UserError, match="3 examples have no neighbour number 3"):
        pr.precision_recall(good, good[:3])
    with pytest.raises(UserError, match="infinite or NaN"):
        pr.precision_recall(good, good * np.nan)
    with pytest.raises(ValueError, match="3 and 2 dimensions"):
        pr.precision_recall(good, good[:, :2])
