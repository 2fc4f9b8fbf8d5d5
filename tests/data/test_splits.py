"""Missing splits are cut by one fixed rule."""

import numpy as np
import pytest

from gm_jax.data import splits
from gm_jax.errors import UserError


def of(num):
    return {"x": np.arange(num), "label": np.arange(num) % 3}


def test_each_missing_split_is_a_tenth_and_no_example_is_in_two():
    cut, rule = splits.cut_missing({"train": of(205)}, "mine")
    assert list(cut) == ["train", "validation", "test"]
    assert [len(arrays["x"]) for arrays in cut.values()] == [165, 20, 20]
    np.testing.assert_array_equal(np.sort(np.concatenate([arrays["x"] for arrays in cut.values()])), np.arange(205))
    for arrays in cut.values():
        np.testing.assert_array_equal(arrays["label"], arrays["x"] % 3)
        assert np.ptp(arrays["x"]) > 100  # from all of the data
    assert rule == "validation, test: 1/10 of train each"
    again, _ = splits.cut_missing({"train": of(205)}, "mine")
    np.testing.assert_array_equal(again["test"]["x"], cut["test"]["x"])


def test_the_rule_does_not_change():
    cut, _ = splits.cut_missing({"train": of(20)}, "mine")
    assert [cut[name]["x"].tolist() for name in ("validation", "test")] == [[15, 18], [3, 5]]


def test_what_is_shipped_stays():
    shipped = {"train": of(4), "validation": of(2), "test": of(1)}
    assert splits.cut_missing(shipped, "mine") == (shipped, None)
    cut, rule = splits.cut_missing({"train": of(30), "test": of(5)}, "mine")
    assert [len(arrays["x"]) for arrays in cut.values()] == [27, 3, 5]
    assert rule == "validation: 1/10 of train"


@pytest.mark.parametrize("num", [0, 1, 2])
def test_too_few_examples_are_refused(num):
    with pytest.raises(UserError, match=f"mine has {num} examples to train on, too few"):
        splits.cut_missing({"train": of(num)}, "mine")
    assert [len(part) for part in splits.cut_indices(3, ["validation", "test"], "mine")] == [1, 1, 1]
