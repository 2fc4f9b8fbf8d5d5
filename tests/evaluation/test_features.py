"""Extractors: their outputs, their inputs, and refusals of at most three lines."""

import jax
import numpy as np
import pytest

from gm_jax.data import sources
from gm_jax.errors import UserError
from gm_jax.evaluation import features

DIGITS = features.load("digits-cnn")
RNG = np.random.default_rng(0)


def images(count=4, side=8, channels=1):
    return RNG.integers(0, 256, (count, side, side, channels)).astype(np.uint8)


def refused(match, call, *args, **kwargs):
    with pytest.raises(UserError, match=match) as caught:
        call(*args, **kwargs)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(("data", "levels"), [("digits", 17), ("binarized_digits", 2)])
def test_the_committed_classifier_knows_held_out_digits(data, levels):
    test = sources.load(data).splits["test"]
    out = jax.jit(DIGITS.apply)(DIGITS.params, features.as_images(test["x"], DIGITS, levels=levels))
    assert out.features.shape == (180, DIGITS.num_features)
    assert np.mean(np.argmax(out.log_probs, axis=1) == test["label"]) > 0.95
    np.testing.assert_allclose(np.exp(out.log_probs).sum(axis=1), 1.0, rtol=1e-5)
    # The features are neither dead nor redundant: their covariance has a high rank.
    assert np.linalg.matrix_rank(np.cov(np.asarray(out.features, np.float64).T), tol=1e-4) > 40


@pytest.mark.parametrize("name", ["digits-cnn", "mnist-cnn", "glyphs-cnn"])
def test_committed_weights_are_small_and_state_how_they_were_made(name):
    path = features.WEIGHTS / f"{name}.safetensors"
    assert path.stat().st_size < 500_000
    _, metadata = features.read_weights(path)
    assert metadata["command"].startswith("python -m tools.train_digit_classifier")
    assert float(metadata["test_accuracy"]) > 0.95


def test_the_reader_of_glyphs_compares_no_samples():
    refused("there is no feature extractor 'glyphs-cnn'", features.load, "glyphs-cnn")
    assert features.digit_classifier("glyphs-cnn").side == 14


def test_the_facts_name_extractor_weights_and_resize_rule():
    assert DIGITS.facts == {"extractor": "digits-cnn", "weights": DIGITS.weights, "resize": "none"}
    assert len(DIGITS.weights) == 64


def test_data_with_any_number_of_levels_become_images_of_256():
    x = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(2, axis=0)
    np.testing.assert_array_equal(features.as_images(x % 2, DIGITS, levels=2), 255 * (x % 2))
    np.testing.assert_array_equal(features.as_images(x % 17, DIGITS, levels=17), np.rint(x % 17 * (255 / 16)))
    np.testing.assert_array_equal(features.as_images(x, DIGITS), x)


def test_arrays_that_are_not_suitable_images_are_refused():
    floats = images().astype(np.float32)
    refused(r"\[N, H, W, C\] of uint8, got \[4, 8, 8, 1\] of float32", features.as_images, floats, DIGITS)
    refused(r"got \[4, 64\]", features.as_images, images().reshape(4, 64), DIGITS)
    refused("of 1 channels, got 3", features.as_images, images(channels=3), DIGITS)
    refused("images of 8x8, got 28x28", features.as_images, images(side=28), DIGITS)
    refused("at least two images, got 1", features.as_images, images(count=1), DIGITS)
    refused(r"levels 0\.\.16, got 17", features.as_images, np.full((2, 8, 8, 1), 17, np.uint8), DIGITS, levels=17)


def test_an_unknown_name_and_unexpected_weights_are_refused(tmp_path):
    refused("there is no feature extractor 'resnet'", features.load, "resnet")
    refused("omit the file of weights", features.load, "digits-cnn", tmp_path / "x")
    refused("inception needs a file of weights", features.load, "inception")


def test_missing_and_damaged_files_of_weights_are_refused(tmp_path):
    refused("there is no file of weights", features.load, "inception", tmp_path / "none.safetensors")
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"not at all")
    refused("not a file of weights, or is damaged", features.load, "inception", path)
    refused("not a file of weights, or is damaged", features.load, "inception", tmp_path)
    features.write_weights(path, {"a": np.arange(4.0)}, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    refused("is damaged", features.load, "inception", path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused("its weights do not match their stored SHA-256", features.load, "inception", path)
    path.write_bytes(whole)
    assert features.read_weights(path)[0]["a"].tolist() == [0, 1, 2, 3]


def test_weights_of_another_checkpoint_need_any_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    features.write_weights(path, {"a": np.zeros(2, np.float32)}, {"checkpoint_sha256": "0" * 64})
    refused("not converted from the public checkpoint", features.load, "inception", path)
    # With any_weights the file is opened, and its tensors are checked.
    refused(r"no tensor 'Conv2d_1a_3x3\.bn\.bias'", features.load, "inception", path, any_weights=True)
    features.write_weights(path, {"a": np.zeros(2, np.float32)}, {"checkpoint_sha256": features.INCEPTION_CHECKPOINT})
    refused("no tensor", features.load, "inception", path)


def test_unflatten_inverts_flatten():
    tree = {"a": {"b": np.ones(2), "c": {"d": np.zeros(3)}}, "e": np.arange(2)}
    flat = features.flatten(tree)
    assert sorted(flat) == ["a.b", "a.c.d", "e"]
    assert jax.tree.structure(features.unflatten(flat)) == jax.tree.structure(tree)
