"""A trained run in Python: the same numbers and samples as the verbs, without the data, from any directory."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import gm_jax
from gm_jax.config import AdamConfig, DataConfig, OptimizerConfig, TrainConfig, saved
from gm_jax.data import sources
from gm_jax.errors import UserError
from gm_jax.models.conditional_vae import ConditionalVAE
from gm_jax.recipes import configs
from gm_jax.recipes import vae as vae_recipe
from gm_jax.recipes.run_length import resolved
from gm_jax.runner.folder import Folder
from gm_jax.runner.run import assemble
from gm_jax.runner.trained_run import TrainedRun
from gm_jax.training.checkpoint import Checkpointer

TEST = sources.load("digits").splits["test"]["x"]


def message_of(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def test_a_run_is_opened_from_another_directory_without_its_data(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "load", None)  # calling it would raise
    run = gm_jax.open_run(whole)
    assert isinstance(run, TrainedRun)
    assert (run.config.hidden, run.spec.shape, run.folder) == ((16,), (8, 8, 1), whole)
    assert run.family.latent_dim == 2
    assert run.sample(5).shape == (5, 8, 8, 1)
    assert run.log_prob(TEST[:3]).log_prob.shape == (3,)
    assert repr(run) == f"TrainedRun({str(whole)!r}, step={run.step}, data='digits')"


def test_samples_are_those_of_the_verb(finished, command):
    assert command("sample", "--workdir", finished, "--num", 6, "--seed", 3).code == 0
    run = gm_jax.open_run(finished)
    np.testing.assert_array_equal(run.sample(6, seed=3), np.load(finished / "samples-seed3.npy"))
    assert (run.sample(6, seed=4) != run.sample(6, seed=3)).any()


def test_log_probabilities_are_those_of_the_evaluation_in_any_batches(whole):
    run = gm_jax.open_run(whole)
    (nll,) = [record for record in run.results if (record.name, record.unit) == ("nll", "nats")]
    found = run.log_prob(TEST)
    assert (found.kind, found.measure, dict(found.settings)["K"]) == ("lower_bound", "binary", 3)
    np.testing.assert_allclose(-np.mean(np.asarray(found.log_prob, np.float64)), nll.value, rtol=1e-6)
    np.testing.assert_allclose(run.log_prob(TEST, batch_size=7).log_prob, found.log_prob, rtol=1e-5)
    np.testing.assert_array_equal(run.log_prob(TEST).log_prob, found.log_prob)
    assert np.abs(run.log_prob(TEST, seed=1).log_prob - found.log_prob).max() > 0.1
    more = run.log_prob(TEST, importance_samples=50)
    assert dict(more.settings)["K"] == 50
    assert np.mean(more.log_prob) > np.mean(found.log_prob) + 0.05  # the bound rises with K


def test_every_checkpoint_and_both_sets_of_parameters_can_be_chosen(whole):
    best = gm_jax.open_run(whole)
    latest = gm_jax.open_run(whole, checkpoint="latest")
    assert latest.step == 60
    other = best.at(50)
    assert other.step == 50
    with Checkpointer(whole / "checkpoints", read_only=True) as checkpointer:
        like = assemble(latest.config, whole).abstract_state()
        saved = checkpointer.restore_step(like, 60).state
    raw = gm_jax.open_run(whole, checkpoint=60, ema=False)
    for run, expected in ((latest, saved.ema_params), (raw, saved.params)):
        jax.tree.map(np.testing.assert_array_equal, run.params, expected)
    assert np.abs(latest.log_prob(TEST[:20]).log_prob - raw.log_prob(TEST[:20]).log_prob).max() > 1e-4
    assert "no checkpoint of step 7" in message_of(lambda: best.at(7))
    assert "there is no checkpoint 'newest'" in message_of(lambda: best.at("newest"))


def test_a_vae_encodes_decodes_reconstructs_and_interpolates(whole):
    run = gm_jax.open_run(whole)
    mean, log_var = run.encode(TEST[:4])
    assert mean.shape == log_var.shape == (4, 2)
    np.testing.assert_allclose(run.decode(mean), run.reconstruct(TEST[:4]), rtol=1e-5, atol=1e-5)
    lines = run.interpolate(TEST[:3], TEST[3:6], num=5)
    assert lines.shape == (3, 5, 8, 8, 1)
    assert 0.0 <= float(lines.min()) < float(lines.max()) <= 16.0
    assert "has no 'trajectory': use sample, log_prob, encode, decode, reconstruct, interpolate" in message_of(
        lambda: run.trajectory(3)
    )


def test_the_data_are_loaded_when_they_are_asked_for(whole):
    np.testing.assert_array_equal(gm_jax.open_run(whole).data["test"]["x"], TEST)


def test_what_does_not_fit_is_refused_in_one_line(whole):
    run = gm_jax.open_run(whole)
    takes = "this run takes integer levels from 0 to 16, [N, 8, 8, 1], as digits has them"
    for x in (TEST[..., 0], TEST / 16, TEST + np.uint8(9), TEST[0], np.array(["a"])):
        assert takes in message_of(lambda x=x: run.log_prob(x))
    assert run.log_prob(TEST[:2].astype(int)).log_prob.shape == (2,)
    assert "x has no examples" in message_of(lambda: run.log_prob(TEST[:0]))
    assert "n must be at least 1, got 0" in message_of(lambda: run.sample(0))
    assert "leave the label out" in message_of(lambda: run.sample(2, label=3))
    assert "--label 10 does not exist: digits has 10 classes" in message_of(lambda: run.sample(2, label=10))
    assert "label is int64 [3]: give a class, or [2] integers" in message_of(lambda: run.sample(2, label=np.arange(3)))
    assert "leave the temperature out" in message_of(lambda: run.sample(2, temperature=0.5))
    for name, value in (("label", 3), ("temperature", 0.5)):
        assert message_of(lambda: run.log_prob(TEST, **{name: value})).startswith(  # noqa: B023
            f"{name!r} is an option of sample: log_prob computes p(x)"
        )
    assert "'hidden' is not an option of this run, which can change importance_samples" in message_of(
        lambda: run.log_prob(TEST, hidden=(3,))
    )
    assert "importance_samples must be at least 1, got 0" in message_of(
        lambda: run.log_prob(TEST, importance_samples=0)
    )


DAMAGES = [
    (lambda folder: shutil.rmtree(folder), "holds no run: it does not exist"),
    (lambda folder: (folder / "config.json").unlink(), "holds no run: it has no config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "is damaged or is not a run's configuration"),
    (lambda folder: (folder / "config.json").write_text("[1]"), "is damaged or is not a run's configuration"),
    (lambda folder: shutil.rmtree(folder / "checkpoints"), "holds no checkpoint yet: train there first"),
    (lambda folder: spoil_config(folder, recipe="os:abort"), "holds a run of os:abort, which is not in gm_jax"),
    (lambda folder: spoil_config(folder, recipe="experiments.mine"), "was made by experiments.mine, which is not an"),
    (lambda folder: spoil_config(folder, data={"name": "digits"}), "does not describe the run's data"),
    (lambda folder: spoil_config(folder, config={}), "the saved configuration is of another version of gm_jax"),
]


def spoil_config(folder: Path, **changes) -> None:
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(document | changes))


@pytest.mark.parametrize(("damage", "fault"), DAMAGES, ids=[fault[:40] for _, fault in DAMAGES])
def test_a_damaged_or_foreign_folder_is_the_error_of_the_command_line(finished, damage, fault, command):
    damage(finished)
    message = message_of(lambda: gm_jax.open_run(finished))
    assert fault in message
    ended = command("sample", "--workdir", finished)
    assert ended.code == 2
    if "os:abort" not in fault:  # a command has its own configuration
        assert ended.err == f"error: {message}\n"


def test_damaged_results_are_named(finished):
    (finished / "results.json").write_text("{")
    assert "results.json is damaged" in message_of(lambda: gm_jax.open_run(finished).results)
    (finished / "results.json").unlink()
    assert gm_jax.open_run(finished).results == []


# Of the other families: runs of step 0, whose parameters are enough for their functions.

SMALL = {
    "flow": configs.RealNVPConfig(
        train=TrainConfig(steps=4, batch_size=8), optimizer=OptimizerConfig(), network="mlp", hidden=(8,), pairs=1
    ),
    "diffusion": configs.ConditionalDDPMConfig(
        train=TrainConfig(steps=4, batch_size=8),
        optimizer=OptimizerConfig(),
        data=DataConfig(name="toy:two_moons"),
        network=configs.MLPConfig(hidden=8, blocks=1),
        diffusion_steps=8,
        sampler=configs.SamplerConfig(steps=8),
        schedule="cosine",
        guidance=0.0,
    ),
    "latent": configs.LatentDiffusionConfig(
        train=TrainConfig(steps=4, batch_size=8),
        optimizer=OptimizerConfig(),
        autoencoder=configs.AutoencoderConfig(hidden=(8,), latent_dim=3, steps=2),
        network=configs.MLPConfig(hidden=8, blocks=1),
        diffusion_steps=8,
        sampler=configs.SamplerConfig(steps=8),
        schedule="cosine",
        beta_min=None,
    ),
    "made": configs.MADEConfig(
        train=TrainConfig(steps=4, batch_size=8), optimizer=OptimizerConfig(), hidden=(8,), conditional=True
    ),
    "gan": configs.GANConfig(
        train=TrainConfig(steps=4, batch_size=8),
        generator=AdamConfig(),
        discriminator=AdamConfig(),
        network="mlp",
        hidden=(8,),
        latent_dim=3,
        centres=20,
    ),
}
SMALL["vq-vae"] = configs.VQVAEConfig(
    train=TrainConfig(steps=4, batch_size=8),
    optimizer=OptimizerConfig(),
    autoencoder=configs.CodeAutoencoderConfig(features=(8, 8)),
    quantizer=configs.FSQConfig(levels=(3, 2)),
    prior=configs.CodePriorConfig(features=8, layers=1),
)
SMALL["gan with labels"] = dataclasses.replace(SMALL["gan"], conditional=True)
SMALL["vae with labels"] = configs.VAEConfig(
    train=TrainConfig(steps=4, batch_size=8),
    optimizer=OptimizerConfig(),
    hidden=(8,),
    latent_dim=3,
    importance_samples=2,
    conditional=True,
)


@pytest.fixture
def opened(request, tmp_path) -> TrainedRun:
    """A run of `request.param`, saved at step 0."""
    config = resolved(SMALL[request.param])
    run = assemble(config, tmp_path)
    saved.save(Folder(tmp_path).config, config.recipe, config, data=run.spec._asdict())
    with Checkpointer(run.folder.checkpoints, fingerprint=run.fingerprint) as checkpointer:
        checkpointer.save(0, run.strategy.place(run.initial_state()))
    return gm_jax.open_run(tmp_path)


@pytest.mark.parametrize("opened", ["flow"], indirect=True)
def test_the_latents_of_a_flow_decode_to_the_data(opened):
    z = opened.encode(TEST[:3])
    assert z.shape == (3, 64)
    np.testing.assert_array_equal(opened.decode(z), TEST[:3])
    lines = opened.interpolate(TEST[:2], TEST[2:4], num=4)
    np.testing.assert_array_equal(lines[:, 0], TEST[:2])
    np.testing.assert_array_equal(lines[:, -1], TEST[2:4])
    assert (opened.sample(5, temperature=0.1) != opened.sample(5)).any()


@pytest.mark.parametrize("opened", ["diffusion"], indirect=True)
def test_a_diffusion_model_has_a_trajectory_guidance_and_other_samplers(opened):
    label = np.array([1, 0])
    chain = opened.trajectory(2, seed=1, label=label)
    assert chain.x_t.shape == (8, 2, 2)
    np.testing.assert_array_equal(opened.family.space.to_data(chain.x_0), opened.sample(2, seed=1, label=label))
    short = opened.trajectory(2, sampler={"method": "ddim", "steps": 4})
    assert short.x_t.shape == (4, 2, 2)
    by_ddim = opened.sample(2, sampler={"method": "ddim", "steps": 4})
    np.testing.assert_array_equal(opened.family.space.to_data(short.x_0), by_ddim)
    assert opened.sample(2, label=1, guidance=2.0).shape == (2, 2)
    assert "--sampler.steps 9 is more than" in message_of(lambda: opened.sample(2, sampler={"steps": 9}))
    assert "'betas' is not an option" in message_of(lambda: opened.sample(2, sampler={"betas": 9}))


@pytest.mark.parametrize("opened", ["latent"], indirect=True)
def test_latent_diffusion_has_the_functions_of_both(opened):
    assert opened.encode(TEST[:3])[0].shape == (3, 3)
    assert opened.decode(np.zeros((2, 3), np.float32)).shape == (2, 8, 8, 1)
    assert opened.trajectory(2).x_t.shape == (8, 2, 3)


@pytest.mark.parametrize("opened", ["vq-vae"], indirect=True)
def test_the_codes_of_a_vq_vae_decode_to_its_reconstructions(opened):
    codes = opened.encode(TEST[:3])
    assert (codes.shape, codes.dtype) == ((3, 2, 2, 1), np.int32)
    np.testing.assert_array_equal(opened.decode(codes), opened.reconstruct(TEST[:3]))
    assert (opened.sample(5, temperature=0.1) != opened.sample(5)).any()
    assert opened.log_prob(TEST[:3]).kind == "lower_bound"


@pytest.mark.parametrize("opened", ["made"], indirect=True)
def test_an_autoregressive_model_completes_what_is_kept(opened):
    completed = opened.complete(TEST[:4], 32, label=3)
    assert completed.shape == (4, 8, 8, 1)
    assert (completed != opened.complete(TEST[:4], 32, label=3, seed=1)).any()
    assert (opened.sample(2, label=3) == opened.sample(2, label=np.array([3, 3]))).all()
    assert opened.log_prob(TEST[:4]).kind == "exact"


@pytest.mark.parametrize("opened", ["gan"], indirect=True)
def test_the_density_of_a_gan_is_fitted_to_the_validation_split(opened, monkeypatch):
    z = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    assert opened.decode(z[:2]).shape == (2, 8, 8, 1)
    arcs = opened.interpolate(z[:2], z[2:], num=5)
    assert arcs.shape == (2, 5, 8, 8, 1)
    np.testing.assert_array_equal(arcs[:, 0], opened.decode(z[:2]))
    assert "no labels to sample by" in message_of(lambda: opened.decode(z, label=3))
    found = opened.log_prob(TEST[:5])
    assert found.kind == "estimate"
    assert np.isfinite(found.log_prob).all()
    monkeypatch.setattr(sources, "load", lambda *args: (_ for _ in ()).throw(UserError("digits are not here")))
    fresh = gm_jax.open_run(opened.folder)
    assert message_of(lambda: fresh.log_prob(TEST[:5])) == "digits are not here"


@pytest.mark.parametrize("opened", ["gan with labels", "vae with labels"], indirect=True)
def test_latents_of_a_model_with_labels_belong_to_a_class(opened):
    z = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    assert (opened.sample(4, label=3) != opened.sample(4, label=5)).any()
    np.testing.assert_array_equal(opened.decode(z, label=3), opened.decode(z, label=[3, 3]))
    assert (opened.decode(z, label=3) != opened.decode(z, label=5)).any()
    assert "give label=" in message_of(lambda: opened.decode(z))
    assert "--label 10 does not exist: digits has 10 classes" in message_of(lambda: opened.sample(4, label=10))
    assert "--label 10 does not exist" in message_of(lambda: opened.decode(z, label=10))
    if isinstance(opened.family, ConditionalVAE):
        assert opened.encode(TEST[:2], label=[1, 2])[0].shape == (2, 3)
        assert dict(opened.log_prob(TEST[:2]).settings)["labels"] == 10
        assert "has no 'interpolate'" in message_of(lambda: opened.interpolate(TEST[:2], TEST[2:4]))
    else:
        assert opened.interpolate(z[:1], z[1:], num=5, label=3).shape == (1, 5, 8, 8, 1)


def test_a_config_of_a_recipe_outside_gm_jax_opens_with_its_type(finished):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(configs.VAEConfig):
        recipe = "tests.runner.test_trained_run:build_mine"

    spoil_config(finished, recipe=Mine.recipe)
    assert "give its config_type" in message_of(lambda: gm_jax.open_run(finished))
    assert gm_jax.open_run(finished, config_type=Mine).sample(2).shape == (2, 8, 8, 1)


def build_mine(config, spec):
    return vae_recipe.build_vae(config, spec)
