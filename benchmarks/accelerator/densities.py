"""Small models of continuous time and of energies, for `benchmarks.accelerator.families`.

Each builder takes the precision of the network's computation, None for float32. Log p of continuous time is the bound
at a few times: the adaptive steps of the exact one depend on rounding, by up to 2e-4.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gm_jax.models.energy import EnergyBasedModel
    from gm_jax.models.flow import Flow
    from gm_jax.models.score import ScoreModel
    from gm_jax.types import Model

BATCH, LEVELS, CLASSES = 8, 17, 3
IMAGE, POINT = (4, 4, 1), (2,)


def binarize(key: Any, x: Any) -> Any:
    """Makes pixels of levels 0 or 1, without noise."""
    from gm_jax.ops import binarization

    return binarization.threshold(x, levels=LEVELS)


def score_of_images(dtype: Any) -> "Model":
    """A variance-preserving SDE with a U-Net."""
    from gm_jax.models import flow, path_objectives, path_sampling, score
    from gm_jax.networks.unet import UNet
    from gm_jax.ops import gaussian_path
    from gm_jax.samplers import sde, time_grids

    def draw(key: Any, predict_fn: Callable, path: Any, x_T: Any) -> Any:
        return sde.euler_maruyama(key, predict_fn, path, x_T, time_grids.uniform(path, 6))

    family = score.ScoreModel(
        network=UNet((4, 8), groups=2, dtype=dtype),
        space=flow.symmetric_dequantization(levels=LEVELS),
        path=gaussian_path.variance_preserving(),
        shape=IMAGE,
        parameterization=path_objectives.noise_prediction(),
        times_fn=path_objectives.uniform_times,
        sampler=path_sampling.PathSampler(draw, (-1.0, 1.0)),
        sigma_data=0.5,
        likelihood=score.ODELikelihood(),
        num_bound_times=3,
    )
    return family.model._replace(log_prob=family.bound)


def edm(dtype: Any) -> "Model":
    """EDM with a perceptron."""
    family = _edm(dtype)
    return family.model._replace(log_prob=family.bound)


def _edm(dtype: Any) -> "ScoreModel":
    from gm_jax.models import path_objectives
    from gm_jax.networks.diffusion_mlp import DiffusionMLP
    from gm_jax.ops import gaussian_path
    from gm_jax.samplers import ode, time_grids

    return _score_of_points(
        DiffusionMLP(16, 1, dtype=dtype),
        gaussian_path.edm(),
        parameterization=path_objectives.preconditioned_prediction(sigma_data=1.0),
        times_fn=functools.partial(path_objectives.log_normal_times, mean=-1.2, std=1.2),
        draw=lambda key, predict_fn, path, x_T: ode.heun(predict_fn, path, x_T, time_grids.karras(path, 6)),
    )


def _score_of_points(network: Any, path: Any, *, draw: Callable, **settings: Any) -> "ScoreModel":
    from gm_jax.models import flow, path_sampling, score

    return score.ScoreModel(
        network=network,
        space=flow.no_dequantization(),
        path=path,
        shape=POINT,
        sampler=path_sampling.PathSampler(draw),
        sigma_data=1.0,
        likelihood=score.ODELikelihood(),
        num_bound_times=3,
        **settings,
    )


def _linear_path(network: Any, **settings: Any) -> "ScoreModel":
    """A velocity on the straight path from noise to data."""
    from gm_jax.models import path_objectives
    from gm_jax.ops import gaussian_path
    from gm_jax.samplers import ode, time_grids

    return _score_of_points(
        network,
        gaussian_path.linear()._replace(range=(0.01, 0.99)),
        parameterization=path_objectives.velocity_prediction(),
        times_fn=path_objectives.uniform_times,
        draw=lambda key, predict_fn, path, x_T: ode.euler(predict_fn, path, x_T, time_grids.uniform(path, 6)),
        **settings,
    )


def flow_matching(dtype: Any) -> "Model":
    """Conditional flow matching with a perceptron."""
    from gm_jax.networks.diffusion_mlp import DiffusionMLP

    family = _linear_path(DiffusionMLP(16, 1, dtype=dtype))
    return family.model._replace(log_prob=family.bound)


def optimal_transport(dtype: Any) -> "Model":
    """Flow matching on pairs of least cost, which have no bound: it has no log p here."""
    from gm_jax.models.optimal_transport import OptimalTransportFlow
    from gm_jax.networks.diffusion_mlp import DiffusionMLP

    flow = _linear_path(DiffusionMLP(16, 1, dtype=dtype))
    return OptimalTransportFlow(flow=flow).model._replace(log_prob=None)


def mean_flow(dtype: Any) -> "Model":
    """MeanFlow, whose loss has a derivative along the path."""
    from gm_jax.models import meanflow, path_objectives
    from gm_jax.networks.diffusion_mlp import DiffusionMLP
    from gm_jax.networks.two_times import TwoTimes

    network = TwoTimes(DiffusionMLP(16, 1, dtype=dtype))
    inner = _linear_path(network, level_fn=path_objectives.uniform_level)
    return meanflow.MeanFlow(flow=inner, same_time=0.5).model._replace(log_prob=inner.bound)


def consistency_model(dtype: Any) -> "Model":
    """A teacher of EDM and its student; one step has no likelihood."""
    from gm_jax.models import consistency

    return consistency.ConsistencyModel(teacher=_edm(dtype), teacher_steps=2).model


def _energy(dtype: Any, chains: Any, **settings: Any) -> "EnergyBasedModel":
    from gm_jax.models import energy, energy_space
    from gm_jax.networks.energy import EnergyMLP

    network_settings = {name: settings.pop(name) for name in ("num_classes",) if name in settings}
    return energy.EnergyBasedModel(
        network=EnergyMLP((12,), not network_settings, dtype=dtype, **network_settings),
        space=energy_space.points(),
        shape=POINT,
        chains=chains,
        base_std=2.0,
        **settings,
    )


def _gaussian() -> "Flow":
    from gm_jax.models import flow
    from gm_jax.networks.affine_flow import AffineFlow

    return flow.Flow(network=AffineFlow(POINT), prior=flow.standard_normal(), dequantization=flow.no_dequantization())


def energy_with_chains(dtype: Any) -> "Model":
    """An energy trained with persistent chains."""
    from gm_jax.models.energy import Chains

    return _energy(dtype, Chains(num_steps=5, step_size=0.1, num_persistent=2 * BATCH, sampling_steps=10)).model


def noise_contrastive_model(dtype: Any) -> "Model":
    """An energy that tells data from the samples of a Gaussian."""
    from gm_jax.models import noise_contrastive
    from gm_jax.models.energy import Chains

    chains = Chains(step_size=0.1, num_persistent=None, sampling_steps=10)
    return noise_contrastive.NoiseContrastiveModel(energy=_energy(dtype, chains), noise=_gaussian()).model


def joint_energy_model(dtype: Any) -> "Model":
    """A classifier whose logits are energies."""
    from gm_jax.losses.energy import energy_from_logits
    from gm_jax.models import jem
    from gm_jax.models.energy import Chains

    chains = Chains(num_steps=5, step_size=0.1, num_persistent=2 * BATCH, sampling_steps=10)
    inner = _energy(dtype, chains, num_classes=CLASSES, to_energy=energy_from_logits)
    return jem.JointEnergyModel(energy=inner, num_classes=CLASSES).model


def minimax_energy_model(dtype: Any) -> "Model":
    """An energy and a Gaussian generator as two players; the bound of log Z, which follows training, is set."""
    import jax.numpy as jnp

    from gm_jax.models import minimax_energy
    from gm_jax.models.energy import Chains

    inner = _energy(dtype, Chains(num_persistent=None))
    settings = {"energy_every": 5, "slope_penalty": 0.1}
    model = minimax_energy.MinimaxEnergyModel(energy=inner, generator=_gaussian(), **settings).model

    def init(key: Any, batch: Any) -> Any:
        params, state = model.init(key, batch)
        return params, {**state, "bound": {"value": jnp.float32(0.5), "is_known": jnp.bool_(True)}}

    return model._replace(init=init)


def boltzmann_machine(dtype: Any) -> "Model":
    """A restricted Boltzmann machine with persistent chains."""
    from gm_jax.models import rbm
    from gm_jax.networks.rbm import RBM

    return rbm.RestrictedBoltzmannMachine(
        network=RBM(16, 12), binarize=binarize, levels=LEVELS, shape=IMAGE, num_chains=BATCH, sampling_sweeps=10
    ).model
