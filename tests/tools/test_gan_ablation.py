"""The ablation: each row is a run of `improved_gan` with the techniques that it names."""

import json
import subprocess
from pathlib import Path

import tyro

from experiments import improved_gan
from gm_jax.config import DataConfig
from tools import gan_ablation


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


def test_each_run_has_its_own_folder_and_a_cell_shows_all_seeds(monkeypatch, tmp_path, capsys):
    values = {"none": (8.0, 7.0, 8.0), "feature matching": (5.0, 1.0, 3.0)}
    ran = []

    def train(command, **settings):
        folder = Path(next(flag for flag in command if flag.startswith("--workdir=")).removeprefix("--workdir="))
        folder.mkdir(parents=True)
        ran.append(command[2])
        value = values[folder.parent.name.replace("-", " ")][int(folder.name)]
        records = [{"name": "modes_covered", "unit": "of 8", "value": value}]
        (folder / "results.json").write_text(json.dumps(records))

    monkeypatch.setattr(subprocess, "run", train)
    gan_ablation.main(gan_ablation.Config(workdir=tmp_path, rows=tuple(values)))
    assert ran == ["experiments.improved_gan"] * 6
    assert capsys.readouterr().out.splitlines() == [
        "| techniques | modes_covered, of 8 |",
        "| --- | --- |",
        "| none | 8 (7 to 8) |",
        "| feature matching | 3 (1 to 5) |",
    ]


def test_images_are_measured_with_the_chosen_features(monkeypatch, tmp_path, capsys):
    def improved_gan_runs(command, **settings):
        workdir = next(flag for flag in command if flag.startswith("--workdir="))
        results = Path(workdir.removeprefix("--workdir=")) / "results.json"
        if "evaluate" not in command:
            results.parent.mkdir(parents=True)
            results.write_text("[]")
        else:
            name = next(flag for flag in command if flag.startswith("--features=")).removeprefix("--features=")
            record = {"name": f"classes_covered[{name}]", "unit": "of 10", "value": 9.0}
            nll = {"name": "nll", "unit": "nats", "value": -18.0, "kind": "estimate", "measure": "continuous"}
            results.write_text(json.dumps([record, nll]))

    monkeypatch.setattr(subprocess, "run", improved_gan_runs)
    config = gan_ablation.Config(workdir=tmp_path, rows=("none",), seeds=(0,), features="digits-cnn")
    gan_ablation.main(config)
    out = capsys.readouterr().out
    assert "classes_covered[digits-cnn], of 10" in out
    assert "nll (~ continuous), nats" in out
