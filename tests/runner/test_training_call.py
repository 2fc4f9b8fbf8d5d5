"""The whole loop as a call from Python: with networks and data of one's own, resumed, stopped, refused."""

import dataclasses
import json
import sys
import threading
import types

import numpy as np
import optax
import pytest

import gm_jax
from experiments import vae as vae_experiment
from gm_jax.config import OptimizerConfig, TrainConfig, saved
from gm_jax.errors import UserError
from gm_jax.models import autoregressive, autoregressive_networks, decoder_likelihoods, vae
from gm_jax.networks.mlp import MLPDecoder, MLPEncoder
from gm_jax.networks.pixelcnn import GatedPixelCNN
from gm_jax.ops import binarization
from gm_jax.recipes import configs
from gm_jax.training.metrics import NonFiniteError

RNG = np.random.default_rng(0)
X = (RNG.random((60, 6, 6)) < np.linspace(0.1, 0.9, 6)).astype(np.uint8)
LABELS = np.arange(60) % 3
SHORT = {"steps": 20, "batch_size": 8, "checkpoint_every": 10, "log_every": 5, "steps_per_call": 5}


def make_family(latent_dim=2):
    return vae.VAE(
        encoder=MLPEncoder((8,), latent_dim),
        decoder=MLPDecoder((8,), (6, 6, 1)),
        likelihood=decoder_likelihoods.bernoulli(lambda key, x: binarization.static(x), levels=2),
        latent_dim=latent_dim,
        objective=vae.elbo_objective(),
        num_importance_samples=4,
    )


def two_channels():
    return dataclasses.replace(make_family(), decoder=MLPDecoder((8,), (6, 6, 2)))


def pixels_of_two_outputs():
    network = GatedPixelCNN((6, 6, 1), levels=2, outputs_per_dim=2, features=4, layers=1, first_size=3)
    return autoregressive.Autoregressive(
        network=autoregressive_networks.image_network(network),
        likelihood=autoregressive_networks.bernoulli(lambda key, x: binarization.static(x), levels=2),
        shape=(6, 6, 1),
    )


def message_of(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A family of one's own, trained on arrays, with an optax optimiser; tests must not change its folder."""
    folder = tmp_path_factory.mktemp("own") / "run"
    return gm_jax.train(
        make_family(), (X, LABELS), folder, optimizer=optax.sgd(0.1, momentum=0.9), train=SHORT, data_name="stripes"
    )


def test_own_networks_are_trained_on_arrays_evaluated_and_drawn(trained):
    assert (trained.step, trained.spec.name, trained.spec.num_classes) in (
        (20, "arrays:stripes", 3),
        (10, "arrays:stripes", 3),
    )
    records = {(record.name, record.unit): record for record in trained.results}
    assert set(records) == {(name, unit) for name in ("nll", "negative_elbo") for unit in ("nats", "bits/dim")}
    nll = records["nll", "nats"]
    assert (nll.data, nll.examples, nll.settings["K"]) == ("arrays:stripes", 6, 4)
    assert nll.settings["splits"] == "validation, test: 1/10 of train each"
    found = trained.log_prob(trained.data["test"]["x"]).log_prob
    np.testing.assert_allclose(-np.mean(np.asarray(found, np.float64)), nll.value, rtol=1e-6)
    assert trained.log_prob(X[..., None], num_importance_samples=9).settings[0] == ("K", 9)
    files = {path.name for path in trained.folder.iterdir()}
    assert {"samples.png", "reconstructions.png", "curves.png", "metrics.jsonl", "config.json"} <= files


def test_the_optimiser_that_is_given_is_the_one_that_trains(trained, tmp_path):
    again = gm_jax.train(make_family(), X, tmp_path, optimizer={"vae": optax.sgd(0.0)}, train=SHORT, evaluate=False)
    lines = [json.loads(line) for line in (again.folder / "metrics.jsonl").read_text().splitlines()]
    validations = [line["log_prob"] for line in lines if line["split"] == "validation"]
    assert len(validations) == 2
    assert len(set(validations)) == 1  # a rate of 0 learns nothing
    assert again.results == []
    assert "optimizer is given for gan: give one for vae" in message_of(
        lambda: gm_jax.train(make_family(), X, tmp_path / "b", optimizer={"gan": optax.sgd(0.1)}, train=SHORT)
    )


def test_a_run_of_own_networks_opens_with_the_same_networks(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = trained.folder
    again = gm_jax.open_run(folder, model=make_family())
    np.testing.assert_array_equal(again.sample(5), trained.sample(5))
    assert "which its folder does not hold: give the same model" in message_of(lambda: gm_jax.open_run(folder))
    assert "belongs to another model" in message_of(lambda: gm_jax.open_run(folder, model=make_family(latent_dim=3)))
    assert "was trained on arrays, which its folder does not hold" in message_of(lambda: again.data)
    other = gm_jax.open_run(folder, model=make_family(), data=1 - X)
    assert "holds a run on other data" in message_of(lambda: other.data)
    same = gm_jax.open_run(folder, model=make_family(), data=(X, LABELS))
    np.testing.assert_array_equal(same.data["test"]["x"], trained.data["test"]["x"])
    assert "is not a model" in message_of(lambda: gm_jax.open_run(folder, model=3))


@pytest.mark.slow
def test_a_longer_call_resumes_and_the_same_call_adds_nothing(tmp_path, capsys):
    def call(steps):
        return gm_jax.train(make_family().model, X, tmp_path / "run", train={**SHORT, "steps": steps}, evaluate=False)

    call(20)
    capsys.readouterr()
    assert gm_jax.open_run(tmp_path / "run", model=make_family(), checkpoint="latest").step == 20
    call(40)
    assert "resuming from step 20 of 40" in capsys.readouterr().out
    whole = gm_jax.train(make_family().model, X, tmp_path / "whole", train={**SHORT, "steps": 40}, evaluate=False)
    parts = gm_jax.open_run(tmp_path / "run", model=make_family().model, checkpoint="latest")
    for one, other in zip(*(run.params["vae"]["decoder"].values() for run in (whole.at("latest"), parts)), strict=True):
        np.testing.assert_array_equal(np.asarray(other.get("kernel", 0)), np.asarray(one.get("kernel", 0)))
    assert "holds a run with another configuration" in message_of(
        lambda: gm_jax.train(make_family(), X, tmp_path / "run", train={**SHORT, "seed": 3})
    )


@pytest.mark.slow
def test_a_configuration_trains_on_arrays_or_on_a_name(tmp_path):
    config = configs.VAEConfig(
        train=TrainConfig(**SHORT), optimizer=OptimizerConfig(), hidden=(8,), latent_dim=2, importance_samples=3
    )
    run = gm_jax.train(config, X, tmp_path / "arrays", validation_samples=2, evaluate=False)
    assert (run.config.data.name, run.config.validation_samples, run.spec.shape) == ("arrays", 2, (6, 6, 1))
    assert gm_jax.open_run(run.folder).sample(2).shape == (2, 6, 6, 1)  # without any argument
    named = gm_jax.train(
        config, "binarized_digits", tmp_path / "named", optimizer={"learning_rate": 1e-2}, evaluate=False
    )
    assert (named.spec.name, named.config.optimizer.learning_rate) == ("binarized_digits", 1e-2)
    small = {"hidden": (8,), "latent_dim": 2, "importance_samples": 3, "validation_samples": 2}
    module = gm_jax.train(vae_experiment, None, tmp_path / "module", train=SHORT, evaluate=False, **small)
    assert module.spec.name == "digits"
    assert saved.load(module.folder / "config.json").command == "experiments.vae"


@pytest.mark.slow
def test_images_of_arrays_are_resized(tmp_path):
    config = configs.VAEConfig(train=TrainConfig(**SHORT), optimizer=OptimizerConfig(), hidden=(8,), latent_dim=2)
    grey = RNG.integers(0, 256, (30, 9, 12), np.uint8)
    run = gm_jax.train(config, grey, tmp_path, data_size=4, evaluate=False, validation_samples=2)
    assert (run.spec.shape, run.config.data.size) == ((4, 4, 1), 4)
    assert gm_jax.open_run(tmp_path, data=grey).data["train"]["x"].shape == (24, 4, 4, 1)


def test_mistakes_are_user_errors_before_anything_is_written(tmp_path):
    folder = tmp_path / "run"
    for call, fault in (
        (lambda: gm_jax.train(make_family(), X), "give the folder of the run"),
        (lambda: gm_jax.train(3, X, folder), "int is not a model"),
        (
            lambda: gm_jax.train("vae", X, folder),
            "'vae' is only a name: give the configuration, gm_jax.recipes.configs.VAEC",
        ),
        (lambda: gm_jax.train("experiments.ddpm_conditional", X, folder), "configs.ConditionalDDPMConfig("),
        (lambda: gm_jax.train(make_family(), X / 2, folder), "images are uint8 levels"),
        (lambda: gm_jax.train(make_family(), X, folder, steps=3), "has no field 'steps': use one of"),
        (lambda: gm_jax.train(make_family(), X, folder, train={"steps": 0}), "train.steps must be at least 1"),
        (lambda: gm_jax.train(make_family(), X, folder, train={"batch_size": 100}), "more than the 48 examples"),
        (lambda: gm_jax.train(make_family(), "digit", folder), "Did you mean 'digits'"),
        (
            lambda: gm_jax.train(two_channels(), X, folder, train=SHORT),
            "the decoder must return [1, 6, 6, 1] for one example, and returns [1, 6, 6, 2].",
        ),
        (
            lambda: gm_jax.train(pixels_of_two_outputs(), X, folder, train=SHORT),
            "the network must return [1, 36, 1] for one example, and returns [1, 36, 2].",
        ),
    ):
        assert fault in message_of(call)
    assert not folder.exists()


def test_divergence_is_an_exception_and_not_the_end_of_the_program(tmp_path):
    with pytest.raises(NonFiniteError):
        gm_jax.train(make_family(), X, tmp_path, optimizer=optax.sgd(1e30), train=SHORT)


@pytest.mark.slow
def test_a_thread_trains_too(tmp_path):
    found = []
    call = lambda: found.append(gm_jax.train(make_family(), X, tmp_path, train=SHORT, evaluate=False))  # noqa: E731
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert found[0].sample(2).shape == (2, 6, 6, 1)


@pytest.mark.slow
def test_a_configuration_of_a_notebook_cell_trains_and_the_command_returns(tmp_path, capsys, monkeypatch):
    """A cell is in __main__, which has no file and no source; the arguments of the process are the kernel's."""
    cell = """
import dataclasses
from gm_jax.recipes.configs import VAEConfig

@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell(VAEConfig):
    \"\"\"Of a cell.\"\"\"
    extra: int = 3
"""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.chdir(tmp_path)
    exec(cell, module.__dict__)
    small = {"hidden": (8,), "latent_dim": 2, "importance_samples": 3, "validation_samples": 2}
    config = module.Cell(train=TrainConfig(**SHORT), optimizer=OptimizerConfig(), **small)
    gm_jax.runner.main(config)  # returns
    assert "nll" in capsys.readouterr().out
    run = gm_jax.open_run("runs/notebook", config_type=module.Cell)
    assert run.config.extra == 3
    with pytest.raises(SystemExit) as ended:
        gm_jax.runner.main(config, ["--extra", "5", "--workdir", "runs/notebook"])
    assert ended.value.code == 2
    run = gm_jax.train(config, X, "runs/call", extra=4, evaluate=False)
    assert run.config.extra == 4


def test_a_family_is_replaced_for_other_samples(trained):
    assert dataclasses.is_dataclass(trained.family)
    assert "has no field 'guidance'" in message_of(lambda: trained.sample(2, guidance=2.0))
