"""Named sources: their contents, their stability, and the message for a wrong name."""

import subprocess
import sys

import numpy as np
import pytest

from gm_jax.data import sources
from gm_jax.errors import UserError
from gm_jax.ops import levels


def test_digits_are_all_of_scikit_learns_images_once():
    from sklearn.datasets import load_digits

    splits = sources.load("digits").splits
    assert {split: len(arrays["x"]) for split, arrays in splits.items()} == {
        "train": 1437,
        "validation": 180,
        "test": 180,
    }
    rows = np.concatenate([arrays["x"].reshape(-1, 64) for arrays in splits.values()])
    labels = np.concatenate([arrays["label"] for arrays in splits.values()])
    ours = np.concatenate([rows, labels[:, None]], axis=1)
    reference = load_digits()
    theirs = np.concatenate([reference.data.astype(int), reference.target[:, None]], axis=1)
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_digits_have_17_levels_and_10_classes_in_every_split():
    spec, splits = sources.load("digits")
    assert spec[:4] == ("digits", (8, 8, 1), 17, 10)
    assert spec.measure == "17 levels"
    for arrays in splits.values():
        assert arrays["x"].dtype == np.uint8
        assert arrays["x"].shape[1:] == (8, 8, 1)
        assert arrays["label"].dtype == np.int32
        assert set(arrays["label"].tolist()) == set(range(10))
    assert splits["train"]["x"].max() == 16


def test_digits_are_the_data_of_the_published_numbers():
    # A change here changes the data behind every published number on digits.
    assert sources.load("digits").spec.fingerprint == "c55e4e3c5b52f24cfbc800688cfc6a6a755f601d0277d31fd6a20d41a76081d9"


def test_toys_are_continuous_points_with_their_modes_as_labels():
    spec, splits = sources.load("toy:pinwheel")
    assert spec[:4] == ("toy:pinwheel", (2,), None, 5)
    assert spec.measure == "continuous"
    assert list(splits) == ["train", "validation", "test"]


def test_loading_twice_gives_the_same_data():
    assert sources.load("toy:two_moons").spec == sources.load("toy:two_moons").spec


@pytest.mark.parametrize("count", [2, 17, 256, None])
def test_the_measure_of_a_source_is_that_of_a_likelihood(count):
    assert sources.Spec("x", (2,), count, None, "").measure == levels.measure(count)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: {"train": {"x": x + 1}},  # bytes
        lambda x: {"train": {"x": x.astype(np.int64)}},  # dtype
        lambda x: {"train": {"x": x.reshape(3, 2)}},  # shape
        lambda x: {"train": {"y": x}},  # array name
        lambda x: {"test": {"x": x}},  # split name
        lambda x: {"train": {"x": x, "label": x}},  # an extra array
    ],
)
def test_the_fingerprint_changes_with_any_part_of_the_data(change):
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert sources.fingerprint({"train": {"x": x}}) != sources.fingerprint(change(x))


def test_the_fingerprint_ignores_dict_order_byte_order_and_strides():
    x, y = np.arange(6, dtype="<i4").reshape(2, 3), np.ones(2)
    one = {"train": {"x": x, "label": y}, "test": {"x": x}}
    other = {"test": {"x": x.astype(">i4")}, "train": {"label": y, "x": np.asfortranarray(x)}}
    assert sources.fingerprint(one) == sources.fingerprint(other)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("digit", "'digits'"),
        ("Digits", "'digits'"),
        ("fashion-mnist", "'fashion_mnist'"),
        ("two_moons", "'toy:two_moons'"),
        ("cifar_10", "'cifar10'"),
        ("mnist:latest", "'mnist'"),
    ],
)
def test_an_unknown_name_suggests_the_nearest_ones(name, nearest, tmp_path):
    with pytest.raises(UserError, match="There is no data set") as caught:
        sources.load(name, str(tmp_path))
    assert nearest in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(("name", "nearest"), [("toy:two_moon", "'toy:two_moons'"), ("wave:tone", "'wave:tones'")])
def test_an_unknown_toy_or_waveform_suggests_the_nearest(name, nearest):
    with pytest.raises(UserError, match=f"Did you mean {nearest}.*\nKnown names: ") as caught:
        sources.load(name)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("name", ["", "../etc", "qqqqqqqqqqqq", "mnist/../..", "toy:", "toy:nothing"])
def test_a_name_without_similar_ones_is_a_user_error(name, tmp_path):
    with pytest.raises(UserError, match="There is no"):
        sources.load(name, str(tmp_path))


def test_importing_data_imports_neither_jax_nor_heavy_libraries():
    code = (
        "import sys, time; start = time.process_time(); import gm_jax.data.sources; own = time.process_time() - start;"
        "heavy = {'jax', 'flax', 'tensorflow_datasets', 'tensorflow', 'sklearn', 'scipy', 'PIL'} & set(sys.modules);"
        "assert not heavy, heavy; assert own < 0.3, own  # seconds of CPU"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
