"""Latent diffusion of images of latents, by its command: both stages, resumed in either, and what it is asked for."""

import json
import shutil

import numpy as np
import pytest

import gm_jax
from experiments import latent_diffusion
from gm_jax import runner
from gm_jax.training import metrics

pytestmark = pytest.mark.slow  # every verb compiles programs of its own

TINY = (
    *("--train.steps", "6", "--train.batch-size", "8", "--train.checkpoint-every", "2", "--train.log-every", "1"),
    *("--train.keep-checkpoints", "3", "--train.steps-per-call", "1", "--train.seed", "3"),
    *("--autoencoder", "spatial", "--autoencoder.steps", "4", "--autoencoder.features", "4", "8"),
    *("--autoencoder.groups", "2", "--autoencoder.channels", "2", "--autoencoder.optimizer.warmup-steps", "0"),
    *("--optimizer.warmup-steps", "0", "--diffusion-steps", "30", "--sampler.steps", "5", "--bound-terms", "2"),
    *("--validation-terms", "1", "--elbo-samples", "1", "--autoencoder.log-var", "-5"),
)
NETWORKS = {
    "unet": (
        *("--network", "unet", "--network.features", "8", "8", "--network.groups", "2"),
        *("--network.resample", "adm", "--network.scale-shift"),
    ),
    "dit": ("--network", "dit", "--network.features", "8", "--network.layers", "1", "--network.heads", "2"),
}


def flags(network, folder):
    return "--workdir", folder, *TINY, *NETWORKS[network]


@pytest.fixture(scope="module", params=NETWORKS)
def whole(request, tmp_path_factory):
    """The network and the folder of a tiny run on digits, of 2 x 2 x 2 latents, with its results."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    runner.main(latent_diffusion.CONFIG, list(map(str, flags(request.param, folder))), module=latent_diffusion)
    return request.param, folder


def test_both_stages_train_and_the_scale_is_measured(whole):
    run = gm_jax.open_run(whole[1])
    lines = [line for line in metrics.read(whole[1] / "metrics.jsonl") if line.split == "train"]
    assert [{name.split("/")[0] for name in line.values} for line in lines] == [{"vae"}] * 4 + [{"diffusion"}] * 2
    assert run.family.prior.shape == (2, 2, 2)
    assert run.model_state["latents"]["count"] == 4
    assert run.family.scale(run.model_state) != 1.0
    z, x = run.encode(run.sample(5))[0], run.sample(5)
    assert (z.shape, x.shape, x.dtype) == ((5, 8), (5, 8, 8, 1), np.uint8)
    assert run.reconstruct(x).shape == x.shape
    assert (whole[1] / "reconstructions.png").stat().st_size > 1_000


@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_resumed_in_either_stage_is_the_whole_run(whole, command, state_hash, tmp_path, stop):
    network, folder = whole
    begun = shutil.copytree(folder, tmp_path / "begun")
    for checkpoint in (begun / "checkpoints").iterdir():
        if checkpoint.name.isdigit() and int(checkpoint.name) > stop:
            shutil.rmtree(checkpoint)
    assert state_hash(begun)[1] == stop
    ended = command(*flags(network, begun), experiment=latent_diffusion)
    assert ended.code == 0, ended.err
    assert state_hash(begun) == state_hash(folder)


def test_the_evaluation_has_the_typed_bounds_of_the_model_and_of_its_autoencoder(whole):
    records = {record["name"]: record for record in json.loads((whole[1] / "results.json").read_text())}
    for name, settings in (("nll", {"L": 1, "T": 30, "bound_terms": 2}), ("autoencoder_negative_elbo", {"L": 1})):
        record = records[name]
        assert (record["kind"], record["measure"]) == ("lower_bound", "continuous")
        assert record["settings"]["space"] == "[0,16]^64"
        assert record["settings"].items() >= settings.items()
        assert np.isfinite(record["value"])


def test_a_network_of_the_wrong_kind_is_one_clear_message(command, tmp_path):
    ended = command("--workdir", tmp_path / "run", *TINY, experiment=latent_diffusion)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "--network mlp cannot take: use --network unet or dit, or --autoencoder flat" in ended.err
    ended = command("--workdir", tmp_path / "run", "--network", "unet", experiment=latent_diffusion)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "--network unet cannot take: use --network mlp, or --autoencoder spatial" in ended.err
    assert not (tmp_path / "run").exists()
