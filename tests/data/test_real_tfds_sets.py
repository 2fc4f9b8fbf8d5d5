"""The real TFDS image sets, if they are prepared in TFDS_DATA_DIR."""

import os
import pathlib

import numpy as np
import pytest

from gm_jax.data import array_cache, sources, tfds_sources

REAL = pathlib.Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def needs(name):
    return pytest.mark.skipif(not (REAL / name).is_dir(), reason=f"{name} is not prepared in {REAL}")


@pytest.mark.slow
@needs("binarized_mnist")
def test_static_mnist_is_the_data_set_of_the_literature():
    spec, splits = sources.load("binarized_mnist", str(REAL))
    assert spec[:4] == ("binarized_mnist", (28, 28, 1), 2, None)
    assert {split: len(arrays["x"]) for split, arrays in splits.items()} == {
        "train": 50_000,
        "validation": 10_000,
        "test": 10_000,
    }
    assert all(set(np.unique(arrays["x"]).tolist()) == {0, 1} for arrays in splits.values())
    # Measured here, because the literature reports no means of this set.
    means = [arrays["x"].mean() for arrays in splits.values()]
    np.testing.assert_allclose(means, [0.130562, 0.131127, 0.132512], atol=1e-6)


@pytest.mark.slow
@needs("binarized_mnist")
def test_an_independent_bernoulli_has_the_reference_likelihood_on_static_mnist():
    splits = sources.load("binarized_mnist", str(REAL)).splits
    train, test = splits["train"]["x"], splits["test"]["x"].astype(np.float64)
    # Some pixels are never on in train. The reference does not state its smoothing: Laplace's rule gives its three
    # decimals; add-half and clipping at 1e-4 .. 1e-8 give 205.792 .. 205.801.
    mean = (train.sum(axis=0, dtype=np.float64) + 1) / (len(train) + 2)
    nll = -(test * np.log(mean) + (1 - test) * np.log(1 - mean)).sum(axis=(1, 2, 3)).mean()
    assert abs(nll - 205.793) < 5e-4


@pytest.mark.slow
@needs("mnist")
def test_mnist_is_split_as_in_the_literature():
    spec, splits = sources.load("mnist:3.0.1", str(REAL))
    assert spec[1:4] == ((28, 28, 1), 256, 10)
    assert [len(arrays["x"]) for arrays in splits.values()] == [50_000, 10_000, 10_000]
    train = np.concatenate([splits["train"]["x"], splits["validation"]["x"]])
    np.testing.assert_allclose([train.mean() / 255, train.std() / 255], [0.1307, 0.3081], atol=1e-4)
    np.testing.assert_array_equal(
        np.bincount(splits["test"]["label"]), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )


@pytest.mark.slow
@needs("mnist")
def test_a_real_set_is_the_same_from_the_cache(monkeypatch):
    first = sources.load("mnist", str(REAL)).spec
    monkeypatch.setattr(tfds_sources, "decode_split", None)
    assert sources.load("mnist", str(REAL)).spec == first
    assert array_cache.read("nothing") is None


@pytest.mark.slow
@needs("cifar10_jpeg")
def test_colour_images_of_a_set_without_a_builder_class_are_read():
    spec, splits = sources.load("cifar10_jpeg", str(REAL))
    assert spec[1:4] == ((32, 32, 3), 256, 10)
    assert [len(arrays["x"]) for arrays in splits.values()] == [41_667, 8_333, 10_000]
