"""Rows of the contract: diffusion, adversarial and energy-based models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.evaluation import kde
from gm_jax.losses.energy import energy_from_logits
from gm_jax.models import (
    adversarial_objectives,
    conditional_gan,
    consistency,
    decoder_likelihoods,
    diffusion,
    diffusion_space,
    energy,
    energy_space,
    flow,
    gan,
    jem,
    latent_diffusion,
    learned_variance,
    learned_weight,
    meanflow,
    minimax_energy,
    noise_contrastive,
    path_objectives,
    path_sampling,
    rbm,
    reflow,
    score,
    vae,
)
from gm_jax.networks.affine_flow import AffineFlow
from gm_jax.networks.autoencoder import SpatialDecoder, SpatialEncoder
from gm_jax.networks.class_conditional import LabelledInput, ProjectionDiscriminator
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.networks.dit import DiT
from gm_jax.networks.energy import EnergyMLP
from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator
from gm_jax.networks.log_error import LogError
from gm_jax.networks.normalization import WithReferenceBatch
from gm_jax.networks.rbm import RBM
from gm_jax.networks.text_encoder import TextEncoder
from gm_jax.networks.two_times import TwoTimes
from gm_jax.networks.unet import UNet
from gm_jax.ops import binarization, diffusion_process, gaussian_path
from gm_jax.samplers import dpm_solver, ode, time_grids
from gm_jax.samplers.ddim import ddim
from gm_jax.samplers.ddpm import ancestral
from gm_jax.types import Likelihood, Model, Objective, Rows
from tests.models.contract_row import BATCH, Row, with_labels


def _diffusion(network, space, *, shape, parameterization=diffusion.noise_prediction):
    schedule, variance_fn = diffusion_process.cosine_schedule(20), diffusion_process.posterior_variance
    return diffusion.Diffusion(
        network=network,
        space=space,
        schedule=schedule,
        shape=shape,
        parameterization=parameterization(),
        sampler=ancestral(schedule, 5, variance_fn=variance_fn),
        variance_fn=variance_fn,
    )


def _ddpm():
    return _diffusion(UNet((4,), groups=2, dropout=0.1), diffusion_space.pixels(levels=17), shape=(4, 4, 1)).model


def _ddpm_of_points():
    return _diffusion(DiffusionMLP(32, 1), diffusion_space.points(), shape=(2,)).model


def _learned_variance_of_points():
    inner = _diffusion(
        DiffusionMLP(32, 1, outputs=2),
        diffusion_space.points(),
        shape=(2,),
        parameterization=lambda: learned_variance.of_first_output(diffusion.noise_prediction()),
    )
    times = np.array([20, 12, 5])
    return learned_variance.LearnedVariance(
        diffusion=inner, bound_weight=0.1, loss_aware=True, sampling_times=times
    ).model


def _score_model(**settings):
    defaults = {
        "network": DiffusionMLP(32, 1),
        "space": flow.no_dequantization(),
        "path": gaussian_path.linear()._replace(range=(0.01, 0.99)),
        "shape": (2,),
        "parameterization": path_objectives.velocity_prediction(),
        "times_fn": path_objectives.uniform_times,
        "sampler": path_sampling.PathSampler(lambda key, predict_fn, path, x_T: x_T),
        "sigma_data": 1.0,
        "likelihood": score.ODELikelihood(tolerance=1e-3),
    }
    return score.ScoreModel(**{**defaults, **settings})


def _score_of_points():
    def draw(key, predict_fn, path, x_T):
        return dpm_solver.dpm_solver_2m(predict_fn, path, x_T, time_grids.uniform(path, 6))

    return _score_model(sampler=path_sampling.PathSampler(draw)).model


def _reflow_of_points():
    def draw(key, predict_fn, path, x_T):
        return ode.euler(predict_fn, path, x_T, time_grids.uniform(path, 3))

    inner = _score_model(sampler=path_sampling.PathSampler(draw))
    return reflow.Reflow(flow=inner, teacher=inner, first_steps=140).model


def _meanflow_of_points():
    inner = _score_model(network=TwoTimes(DiffusionMLP(32, 1)), level_fn=path_objectives.uniform_level)
    return meanflow.MeanFlow(flow=inner, same_time=0.95).model


def _consistency_of_points():
    teacher = _score_model(
        path=gaussian_path.edm(),
        parameterization=path_objectives.preconditioned_prediction(sigma_data=0.3),
        times_fn=path_objectives.log_snr_times,
        sigma_data=0.3,
    )
    return consistency.ConsistencyModel(teacher=teacher, teacher_steps=140).model


def _gan_of_points():
    kernels = gan.Kernels(kde.likelihood, functools.partial(kde.choose_bandwidth, grid=jnp.ones(3)), num_centres=8)
    return gan.GAN(
        generator=WithReferenceBatch(functools.partial(MLPGenerator, (12,), (2,))),
        discriminator=MLPDiscriminator((12,)),
        losses=adversarial_objectives.non_saturating(),
        scaling=gan.points(),
        latent_dim=2,
        feature_matching=True,
        historical_averaging=1e-3,
        kernels=kernels,
    ).model


def _conditional_gan_of_points():
    kernels = gan.Kernels(kde.likelihood, functools.partial(kde.choose_bandwidth, grid=jnp.ones(3)), num_centres=9)
    game = gan.GAN(
        generator=LabelledInput(MLPGenerator((12,), (2,)), 3),
        discriminator=ProjectionDiscriminator(MLPDiscriminator((12,)), 3),
        losses=adversarial_objectives.non_saturating(),
        scaling=gan.points(),
        latent_dim=2,
        feature_matching=True,
        kernels=kernels,
    )
    return with_labels(conditional_gan.ConditionalGAN(gan=game, num_classes=3).model, _quadrant)


def _ebm():
    return energy.EnergyBasedModel(
        network=EnergyMLP((12,), True),
        space=energy_space.points(),
        shape=(2,),
        chains=energy.Chains(num_steps=5, step_size=0.1, num_persistent=2 * BATCH, sampling_steps=20),
        base_std=2.0,
    ).model


def _noise_contrastive():
    noise = flow.Flow(network=AffineFlow((2,)), prior=flow.standard_normal(), dequantization=flow.no_dequantization())
    model = energy.EnergyBasedModel(
        network=EnergyMLP((12,)),
        space=energy_space.points(),
        shape=(2,),
        chains=energy.Chains(step_size=0.1, num_persistent=None, sampling_steps=20),
        base_std=2.0,
    )
    return noise_contrastive.NoiseContrastiveModel(energy=model, noise=noise).model


def _jem():
    inner = energy.EnergyBasedModel(
        network=EnergyMLP((12,), num_classes=3),
        space=energy_space.points(),
        shape=(2,),
        chains=energy.Chains(num_steps=5, step_size=0.1, num_persistent=2 * BATCH, sampling_steps=20),
        base_std=2.0,
        to_energy=energy_from_logits,
    )
    model = jem.JointEnergyModel(energy=inner, num_classes=3).model
    return with_labels(model, _quadrant)


def _quadrant(x):
    """Returns labels 0 to 2 of points."""
    return (x[:, 0] > 0).astype(jnp.int32) + (x[:, 1] > 0)


def _minimax_energy():
    generator = flow.Flow(
        network=AffineFlow((2,)), prior=flow.standard_normal(), dequantization=flow.no_dequantization()
    )
    model = energy.EnergyBasedModel(
        network=EnergyMLP((12,)),
        space=energy_space.points(),
        shape=(2,),
        chains=energy.Chains(num_persistent=None),
        base_std=2.0,
    )
    model = minimax_energy.MinimaxEnergyModel(
        energy=model, generator=generator, energy_every=25, slope_penalty=0.1
    ).model

    def init(key, batch):  # with a bound, which `calibrate` computes after training
        params, state = model.init(key, batch)
        return params, {**state, "bound": {"value": jnp.float32(0.5), "is_known": jnp.bool_(True)}}

    return model._replace(init=init)


def _rbm():
    return rbm.RestrictedBoltzmannMachine(
        network=RBM(16, 12),
        binarize=lambda key, x: binarization.threshold(x, levels=17),
        levels=17,
        shape=(4, 4, 1),
        num_chains=BATCH,
        sampling_sweeps=20,
    ).model


def _energy_with_chains():
    """Returns a Gaussian with a learned mean, trained on the difference between data and persistent Langevin chains."""

    def init(key, batch):
        mean_key, rows_key = jax.random.split(key)
        chains = {"rows": jax.random.normal(rows_key, (2 * BATCH, 2)), "count": jnp.zeros((), jnp.int32)}
        return {"energy": 2.0 + jax.random.normal(mean_key, (2,))}, {"chains": chains}

    def loss(params, model_state, key, batch):
        chains, mean = model_state["chains"], params["energy"][None]
        rows = 0.5 * (chains["rows"] + jax.lax.stop_gradient(mean)) + 0.5 * jax.random.normal(key, batch["x"].shape)
        energies = [0.5 * jnp.mean(jnp.sum((x - mean) ** 2, axis=1)) for x in (batch["x"], rows)]
        new_state = {"chains": {"rows": rows, "count": chains["count"] + 1}}
        return energies[0] - energies[1], (new_state, {"data_energy": energies[0]})

    def sample(params, model_state, key, n, *, label=None, temperature=None):
        return params["energy"][None] + jax.random.normal(key, (n, 2))

    def log_prob(params, model_state, key, x):
        return Likelihood(
            jnp.sum(jax.scipy.stats.norm.logpdf(x - params["energy"][None]), axis=1), "exact", "continuous"
        )

    return Model(init, (Objective("energy", loss),), sample, log_prob, sync={"chains": Rows()})


def _text_to_image():
    autoencoder = vae.VAE(
        encoder=SpatialEncoder((4,), 1, groups=2, patch=2),
        decoder=SpatialDecoder((4,), (4, 4, 1), 1, 2, groups=2, patch=2),
        likelihood=decoder_likelihoods.discretized_logistic(levels=17),
        latent_dim=4,
        objective=vae.elbo_objective(),
    )
    schedule = diffusion_process.cosine_schedule(8)
    prior = learned_weight.WeightedDiffusion(
        log_error=LogError(6, 4),
        network=DiT(8, layers=1, heads=2, patch=1, text=TextEncoder((3,), 6, 8, features=8, heads=2, layers=1)),
        space=diffusion_space.points(),
        schedule=schedule,
        shape=(2, 2, 1),
        parameterization=diffusion.v_prediction(),
        sampler=ddim(schedule, 4),
        variance_fn=diffusion_process.transition_variance,
        num_tokens=3,
    )
    model = latent_diffusion.LatentDiffusion(autoencoder=autoencoder, prior=prior, levels=17, vae_steps=30).model

    def with_captions(objective):
        def loss(params, model_state, key, batch):
            tokens = 1 + batch["x"][:, 0, :3, 0].astype(jnp.int32) % 5
            return objective.loss(params, model_state, key, {**batch, "tokens": tokens})

        return objective._replace(loss=loss)

    return model._replace(objectives=tuple(map(with_captions, model.objectives)))


ROWS = {
    "ddpm": Row(_ddpm, (4, 4, 1), 17, "lower_bound", "17 levels"),
    "ddpm[points]": Row(_ddpm_of_points, (2,), None, "lower_bound", "continuous"),
    "ddpm[learned variance, points]": Row(_learned_variance_of_points, (2,), None, "lower_bound", "continuous"),
    # The autoencoder trains first and is then fixed.
    "text to image": Row(_text_to_image, (4, 4, 1), 17, "lower_bound", "17 levels", loss="vae/loss"),
    "score[points]": Row(_score_of_points, (2,), None, "exact", "continuous"),
    "meanflow[points]": Row(_meanflow_of_points, (2,), None, "exact", "continuous", loss="squared_error"),
    "reflow[points]": Row(_reflow_of_points, (2,), None, "exact", "continuous", loss="score/loss"),
    # A sample in one step has no likelihood.
    "consistency[points]": Row(_consistency_of_points, (2,), None, "", "", loss="score/loss"),
    # Either player's loss may rise, but feature matching lowers the generator's.
    "gan[points]": Row(_gan_of_points, (2,), None, "estimate", "continuous", loss="generator/loss"),
    "gan[labels, points]": Row(_conditional_gan_of_points, (2,), None, "estimate", "continuous", "generator/loss"),
    # The difference of energies may rise; the energy of the data falls.
    "ebm[points]": Row(_ebm, (2,), None, "estimate", "continuous", loss="data_energy"),
    "ebm[nce, points]": Row(_noise_contrastive, (2,), None, "estimate", "continuous", loss="energy/loss"),
    "jem[points]": Row(_jem, (2,), None, "estimate", "continuous", loss="class_nll"),
    # The energy moves rarely, so that the generator gets closer to it.
    "minimax ebm[points]": Row(_minimax_energy, (2,), None, "upper_bound", "continuous", loss="generator/loss"),
    "rbm": Row(_rbm, (4, 4, 1), 17, "exact", "binary", loss="data_energy"),
    "energy with chains[points]": Row(_energy_with_chains, (2,), None, "exact", "continuous", loss="data_energy"),
}
