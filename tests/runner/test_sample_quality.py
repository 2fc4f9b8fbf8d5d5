"""`evaluate --features`: samples of a run are compared with its data, next to its likelihood in results.json."""

import json

import pytest

from gm_jax.evaluation import features, sample_metrics


def records(folder):
    return json.loads((folder / "results.json").read_text())


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
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(finished, command, flags, message):
    before = records(finished)
    ended = command("evaluate", "--workdir", finished, *flags)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) <= 3
    assert records(finished) == before
