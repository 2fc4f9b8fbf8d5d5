"""A folder of images, from training to an evaluation of moved data; the default folder of each data set."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import gm_jax
from experiments import vae
from gm_jax.errors import UserError
from gm_jax.runner import cli, train

SMALL = (
    *("--hidden", "8", "--latent-dim", "2", "--importance-samples", "2", "--validation-samples", "2"),
    *("--train.steps", "4", "--train.batch-size", "8", "--train.steps-per-call", "2", "--train.checkpoint-every", "4"),
    *("--optimizer.schedule", "constant", "--decoder", "normal"),
)


@pytest.mark.parametrize(
    ("flags", "folder"),
    [
        ([], "runs/vae"),
        (["--data.name", "digits"], "runs/vae"),
        (["--data.name", "toy:two_moons"], "runs/vae-two_moons"),
        (["--data.name=binarized_mnist", "--data.dir", "x"], "runs/vae-binarized_mnist"),
        (["--data.name", "folder:/photos/my birds"], "runs/vae-my-birds"),
        (["--data.name", "npz:a/b.npz"], "runs/vae-b"),
        (["--data.name", "toy:two_moons", "--workdir", "there"], "there"),
        (["--data.name", "toy:two_moons", "--workdir", "runs/vae"], "runs/vae"),
    ],
)
def test_each_data_set_has_a_folder_of_its_own(flags, folder):
    assert cli.parse(vae.CONFIG, flags, module=vae)[1].workdir == Path(folder)
    assert train.default_workdir(Path("a/b"), "x", "x") == Path("a/b")


def test_the_help_states_both_folders(command):
    text = " ".join(command("--help").out.replace("│", " ").split())
    assert "(default: runs/vae, or runs/vae-NAME for another --data.name)" in text


@pytest.mark.slow
def test_a_folder_of_two_sizes_trains_and_is_found_again_when_it_moves(command, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for number in range(20):
        side = 12 + 4 * (number % 2)
        (tmp_path / "photos" / "birds").mkdir(parents=True, exist_ok=True)
        image = PIL.Image.fromarray(rng.integers(0, 256, (side, side), np.uint8))
        image.save(tmp_path / "photos" / "birds" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    flags = (*SMALL, "--data.name", "folder:photos/birds")
    assert "give --data.size N" in command(*flags).err
    assert not Path("runs").exists()
    ended = command(*flags, "--data.size", 8)
    assert ended.code == 0, ended.err
    assert "folder:birds does not ship all splits: validation, test: 1/10 of train each (16 train" in ended.out
    run = tmp_path / "runs" / "vae-birds"
    saved = json.loads((run / "config.json").read_text())
    assert saved["config"]["data"] == {
        "name": "folder:birds",
        "dir": str(tmp_path / "photos"),
        "size": 8,
        "flip": False,
    }
    records = json.loads((run / "results.json").read_text())
    for record in records:
        assert record["data"] == "folder:birds"
        assert record["settings"]["splits"] == "validation, test: 1/10 of train each"
        assert record["settings"]["size"] == 8
    # The same command again resumes; evaluation and Python work from any directory, also after the data have moved.
    assert command(*flags, "--data.size", 8).code == 0
    monkeypatch.chdir("/")
    assert command("evaluate", "--workdir", run).code == 0
    (tmp_path / "photos").rename(tmp_path / "moved")
    assert f"{tmp_path}/photos/birds is not a folder" in command("evaluate", "--workdir", run).err
    assert command("evaluate", "--workdir", run, "--data-dir", tmp_path / "moved").code == 0
    assert json.loads((run / "results.json").read_text()) == records
    opened = gm_jax.open_run(run)
    assert opened.sample(3).shape == (3, 8, 8, 1)
    with pytest.raises(UserError, match="is not a folder"):
        opened.data  # noqa: B018
    assert len(gm_jax.open_run(run, data_dir=str(tmp_path / "moved")).data["test"]["x"]) == 2
