"""`evaluate --features`: samples of a run are compared with its data, next to its likelihood in results.json."""

import json

import numpy as np
import pytest

from experiments import latent_diffusion, pixelcnn, vae
from gm_jax.config import saved
from gm_jax.errors import UserError
from gm_jax.evaluation import features, sample_metrics
from gm_jax.runner import sample_quality, samples
from gm_jax.runner.run import assemble


def records(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_samples_are_measured_if_an_extractor_is_named(finished, command, monkeypatch):
    monkeypatch.setattr(sample_metrics, "_SUBSETS", 3)
    before = records(finished)
    ended = command("evaluate", "--workdir", finished, "--features", "digits-cnn", "--num-generated", 130)
    assert ended.code == 0, ended.err
    made = {record["name"]: record for record in records(finished)[len(before) :]}
    frechet = made["frechet[digits-cnn]"]
    names = ("frechet", "kernel_distance", "precision", "recall", "inception_score", "classes_covered")
    assert set(made) == {f"{name}[digits-cnn]" for name in names}
    settings = frechet["settings"]
    assert (settings["num_real"], settings["num_generated"], frechet["split"]) == (1437, 130, "train")
    assert settings["weights"] == features.load("digits-cnn").weights
    assert settings["step"] > 0
    assert "frechet[digits-cnn]" in ended.out
    # Measured again they are the same numbers, and replace the first.
    again = ("--features", "digits-cnn", "--num-generated", 130)
    assert command("evaluate", "--workdir", finished, *again).code == 0
    assert [record["value"] for record in records(finished)] == pytest.approx(
        [record["value"] for record in [*before, *made.values()]], rel=1e-4
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--features", "mnist-cnn"), "images of 28x28, got 8x8"),
        (("--features", "inception"), "inception needs a file of weights"),
        (("--features", "inception", "--weights", "none.safetensors"), "there is no file of weights"),
        (("--features", "digits-cnn", "--num-generated", 1), "at least two images"),
        (("--weights", "none.safetensors"), "--weights has no effect without --features"),
        (("--num-generated", 9), "--num-generated has no effect without --features"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(finished, command, flags, message):
    before = records(finished)
    ended = command("evaluate", "--workdir", finished, *flags)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) <= 3
    assert records(finished) == before


def measured(run, samples, *, settings=None):
    """Measures samples that are given, with the features of digits-cnn; returns the records by name."""
    extractor = features.load("digits-cnn")
    found = sample_quality.measure(run, extractor, lambda num: samples[:num], settings=settings or {"seed": 0})
    return {record.name.partition("[")[0]: record for record in found}


@pytest.mark.parametrize("experiment", [vae, pixelcnn])
def test_binary_samples_are_compared_with_binarised_images(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_metrics, "_SUBSETS", 3)
    run = assemble(experiment.CONFIG, tmp_path)
    x = run.loaded["train"]["x"]
    # A perfect model's samples: the data, binarised with other noise than the real images.
    perfect = (16 * (np.random.default_rng(1).uniform(size=x.shape) < x / 16)).astype(np.uint8)
    made = measured(run, perfect)
    assert {(record.measure, record.split) for record in made.values()} == {("binary", "train")}
    assert made["frechet"].settings["num_real"] == len(x)
    assert made["frechet"].value < 2.0
    assert made["precision"].value > 0.85


def test_a_latent_diffusion_is_compared_with_grey_images_which_its_samples_are(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_metrics, "_SUBSETS", 3)
    config = saved.updated(latent_diffusion.CONFIG, {"autoencoder": {"decoder": "bernoulli"}})
    run = assemble(config, tmp_path)
    x = run.loaded["train"]["x"]
    made = measured(run, x)
    assert {record.measure for record in made.values()} == {"17 levels"}
    assert made["frechet"].value < 0.1


def test_an_experiment_with_another_measure_than_its_data_must_name_its_observation(tmp_path):
    run = assemble(vae.CONFIG, tmp_path)
    run = run._replace(experiment=run.experiment._replace(observation=None))
    with pytest.raises(UserError, match="probabilities are binary and digits has 17 levels"):
        measured(run, run.loaded["train"]["x"])


def test_real_images_have_the_same_noise_for_the_same_seed(tmp_path):
    run = assemble(vae.CONFIG, tmp_path)
    first, again, other = (sample_quality.observed(run, "test", seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert set(np.unique(first)) == {0, 16}
    np.testing.assert_array_equal(first[run.loaded["test"]["x"] == 16], 16)
    np.testing.assert_array_equal(first[run.loaded["test"]["x"] == 0], 0)
    # Each batch of images has noise of its own.
    grey = np.full((samples.BATCH + 5, 8, 8, 1), 8, np.uint8)
    images = sample_quality.observed(run._replace(splits={"test": {"x": grey}}), "test", seed=3)
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
