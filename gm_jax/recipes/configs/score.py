"""The configuration of score-based models in continuous time: score SDEs, NCSN, EDM, flow matching."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from gm_jax.config import (
    Added,
    Count,
    CountOrZero,
    DataConfig,
    Guidance,
    Measuring,
    OptimizerConfig,
    Rate,
    RateOrZero,
    Sampling,
    Share,
    TrainConfig,
)
from gm_jax.recipes.configs.diffusion import MLPConfig, UNetConfig
from gm_jax.recipes.configs.preset import PresetName


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathSamplerConfig:
    """How samples are drawn."""

    method: Annotated[
        Literal[
            "euler",
            "heun",
            "dpmpp",
            "adaptive",
            "euler_maruyama",
            "ancestral",
            "predictor_corrector",
            "annealed_langevin",
        ],
        Sampling,
        arg(
            help="The probability-flow ODE by euler, heun, dpmpp (DPM-Solver++(2M)) or adaptive steps; or new noise by "
            "euler_maruyama, ancestral, predictor_corrector or annealed_langevin."
        ),
    ] = "heun"
    steps: Annotated[
        Count,
        Sampling,
        arg(
            help="Times that the sampler visits; at the last it returns the predicted data. That is one network "
            "evaluation each; heun has two at all but the last. No effect on adaptive."
        ),
    ] = 18
    grid: Annotated[
        Literal["uniform", "trailing", "log_snr", "karras"],
        Sampling,
        arg(help="Where the times lie: equal steps of the time, or of log snr, or EDM's (Karras et al. 2022)."),
    ] = "karras"
    rho: Annotated[Rate, Sampling, arg(help="Of the karras grid: larger puts more times near the data.")] = 7.0
    churn: Annotated[RateOrZero, Sampling, arg(help="Noise that heun adds before its steps, S_churn of EDM.")] = 0.0
    corrector_steps: Annotated[
        Count | None, Sampling, arg(help="Langevin steps of predictor_corrector at each time; by default 1.")
    ] = None
    snr: Annotated[
        Rate | None, Sampling, arg(help="Step size of predictor_corrector's Langevin steps; by default 0.16.")
    ] = None
    langevin_steps: Annotated[
        Count | None, Sampling, arg(help="Steps of annealed_langevin at each time; by default 5.")
    ] = None
    langevin_step_size: Annotated[
        Rate | None,
        Sampling,
        arg(help="Step size of annealed_langevin, in units of the variance of the noise; by default 0.2, as in NCSN."),
    ] = None
    clip: Annotated[
        bool | None,
        Sampling,
        arg(help="Whether predicted images are clipped to the range of the data; by default not."),
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ODELikelihoodConfig:
    """How the likelihood of the probability-flow ODE is computed."""

    tolerance: Annotated[
        Rate | None,
        Measuring,
        arg(
            help="Relative and absolute tolerance of the solver. By default 1e-5 for points and 1e-3 for data with "
            "levels, whose dequantisation is a larger error."
        ),
    ] = None
    probes: Annotated[
        CountOrZero | None,
        Measuring,
        arg(
            help="Random directions in the estimate of the divergence; 0 for the exact divergence, of at most 64 "
            "dimensions. By default 0 for points of at most 64 dimensions and 2 for other data, because an exact "
            "divergence takes as many derivatives of the network as there are dimensions."
        ),
    ] = None
    bound_times: Annotated[
        Count, Measuring, arg(help="Times that the evaluation of the variational bound draws for each example.")
    ] = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """A score-based model in continuous time."""

    recipe: ClassVar[str] = "gm_jax.recipes.score:build_score"
    preset: PresetName = None
    data: DataConfig = DataConfig()
    train: TrainConfig
    optimizer: OptimizerConfig
    network: UNetConfig | MLPConfig | None = None
    """By default a UNetConfig for images and an MLPConfig for other data."""
    path: Literal["vp", "sub_vp", "ve", "cosine", "edm", "linear", "trigonometric"] = "vp"
    """How data become noise: the variance-preserving, sub-variance-preserving or variance-exploding SDE, DDPM's cosine,
    EDM, the straight line of flow matching, or the arc."""
    beta_min: Rate | None = None
    """Of vp and sub_vp: the first noise rate; by default 0.1."""
    beta_max: Rate | None = None
    """Of vp and sub_vp: the last noise rate; by default 20."""
    sigma_min: Rate | None = None
    """Of ve and edm: the least noise; by default 0.01 and 0.002."""
    sigma_max: Rate | None = None
    """Of ve and edm: the most noise, about the largest distance between two examples; by default 50 and 80."""
    prediction: Literal["noise", "data", "velocity", "preconditioned"] = "noise"
    """What the network predicts: eps, x_0, the velocity of flow matching, or EDM's preconditioned output."""
    times: Literal["uniform", "log_snr", "log_normal"] = "uniform"
    """At which times training draws its noise: uniform, uniform in log snr (with the noise prediction it trains for
    likelihood), or with a normal log sigma, as EDM."""
    log_normal_mean: float = -1.2
    """Of --times log_normal: the mean of log sigma."""
    log_normal_std: Rate = 1.2
    """Of --times log_normal: the standard deviation of log sigma."""
    sigma_data: Rate | None = None
    """Standard deviation of the data, which scales the network's input; by default 0.5 for images, which lie in
    [-1, 1], and 2 for points."""
    labels: bool = False
    """Train with labels as well: likelihoods, and samples without a label, are of the unconditional model."""
    guidance: Annotated[
        Guidance,
        Sampling,
        arg(
            help="w of classifier-free guidance for samples with a label: 0 for the conditional model, -1 for the "
            "unconditional one. Other libraries call 1 + w the guidance scale."
        ),
    ] = 0.0
    drop_label: Share = 0.1
    """Share of training examples whose label is hidden from the network."""
    reflow: Annotated[Share, Added(before=0.0)] = 0.0
    """Share of the steps, the last ones, that train a copy of the flow on pairs of noise and the first flow's samples,
    so that few sampling steps are enough; 0 for no second stage."""
    coupling: Annotated[Literal["independent", "optimal"], Added(before="independent")] = "independent"
    """How training pairs data and noise: at random, or at the least cost in each batch, which straightens the flow
    (OT-CFM)."""
    augment: Annotated[Share, Added(before=0.0)] = 0.0
    """EDM's augmentation of training images: each is mirrored with probability 1/2 and, with this probability each, is
    flipped, scaled, rotated, stretched and moved. The network is conditioned on it, and samples show no augmentation.
    The paper has 0.12 for CIFAR-10, without --data.flip. 0 for none."""
    sampler: PathSamplerConfig = PathSamplerConfig()
    likelihood: ODELikelihoodConfig = ODELikelihoodConfig()
    validation_times: Count = 20
    """Times of the variational bound that are drawn at a validation in training."""
