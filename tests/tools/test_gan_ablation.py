"""The ablation: each row is a run of `improved_gan` with the techniques that it names."""

import sys
from pathlib import Path

import pytest
import tyro

from experiments import improved_gan
from gm_jax.config import DataConfig
from gm_jax.errors import UserError
from gm_jax.evaluation import results
from tools import gan_ablation


def record(name, value, unit):
    return results.Record(name, value, unit, "estimate", "digits", "continuous", "test", 9, {})


def chosen(row):
    return gan_ablation.flags(gan_ablation.Config(workdir=Path("there")), row, 1)


def techniques(row):
    """Returns which techniques the flags of a row switch on."""
    config = tyro.cli(
        type(improved_gan.CONFIG),
        default=improved_gan.CONFIG,
        args=[flag for flag in chosen(row) if not flag.startswith("--workdir")],
    )
    assert (config.train.steps, config.train.seed, config.data.name) == (6_000, 1, "toy:eight_gaussians")
    fields = ("feature_matching", "minibatch_discrimination", "historical_averaging", "label_smoothing")
    return tuple(bool(getattr(config, field)) for field in (*fields, "virtual_batch_norm"))


def test_a_row_switches_on_only_the_techniques_that_it_names():
    assert techniques("none") == (False,) * 5
    assert techniques("all five") == (True,) * 5
    assert techniques("all but feature matching") == (False, True, True, True, True)
    for index, name in enumerate(gan_ablation.SWITCHES):
        assert techniques(name) == tuple(other == index for other in range(5)), name


def test_other_data_and_networks_have_their_own_folders():
    config = gan_ablation.Config(data=DataConfig("digits", "there"), network="mlp", workdir=Path("here"))
    chosen = gan_ablation.flags(config, "none", 0)
    assert chosen[0] == "--workdir=here/digits-mlp/none/0"
    assert {"--data.name=digits", "--data.dir=there", "--network=mlp"} < set(chosen)


def test_each_run_has_its_own_folder_and_a_cell_shows_all_seeds(monkeypatch, tmp_path):
    values = {"none": (8.0, 7.0, 8.0), "feature matching": (5.0, 1.0, 3.0)}
    ran = []

    def train(*command):
        folder = Path(next(flag for flag in command if flag.startswith("--workdir=")).removeprefix("--workdir="))
        folder.mkdir(parents=True)
        ran.append(folder)
        value = values[folder.parent.name.replace("-", " ")][int(folder.name)]
        results.write(folder / "results.json", [record("modes_covered", value, "of 8")])

    monkeypatch.setattr(gan_ablation, "_improved_gan", train)
    shown = gan_ablation.ablate(gan_ablation.Config(workdir=tmp_path, rows=tuple(values)))
    assert len(set(ran)) == 6
    assert shown.splitlines() == [
        "| techniques | modes_covered, of 8 |",
        "| --- | --- |",
        "| none | 8 (7 to 8) |",
        "| feature matching | 3 (1 to 5) |",
    ]


def test_images_are_measured_with_the_chosen_features(monkeypatch, tmp_path):
    def improved_gan_runs(*command):
        workdir = next(flag for flag in command if flag.startswith("--workdir="))
        path = Path(workdir.removeprefix("--workdir=")) / "results.json"
        if "evaluate" not in command:
            path.parent.mkdir(parents=True)
            results.write(path, [])
        else:
            name = next(flag for flag in command if flag.startswith("--features=")).removeprefix("--features=")
            results.write(path, [record(f"classes_covered[{name}]", 9.0, "of 10"), record("nll", -18.0, "nats")])

    monkeypatch.setattr(gan_ablation, "_improved_gan", improved_gan_runs)
    config = gan_ablation.Config(workdir=tmp_path, rows=("none",), seeds=(0,), features="digits-cnn")
    out = gan_ablation.ablate(config)
    assert "classes_covered[digits-cnn], of 10" in out
    assert "nll (~ continuous), nats" in out


def test_a_run_that_fails_and_a_result_that_is_not_finite_are_named(monkeypatch, tmp_path):
    config = gan_ablation.Config(workdir=tmp_path, rows=("none",), seeds=(0,), steps=1)
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(UserError, match=r"python -m experiments.improved_gan --workdir=.* ended with code 1"):
        gan_ablation.ablate(config)

    def train(*command):
        folder = tmp_path / "toy-eight_gaussians" / "none" / "0"
        folder.mkdir(parents=True)
        results.write(folder / "results.json", [record("nll", None, "nats")])

    monkeypatch.setattr(gan_ablation, "_improved_gan", train)
    with pytest.raises(UserError, match=r"nll \(~ continuous\), nats of .* is not finite"):
        gan_ablation.ablate(config)
