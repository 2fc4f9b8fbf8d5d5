"""Denoising diffusion (Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239): the whole algorithm, top to bottom.

Times, schedules and q are those of `ops.diffusion_process`: t = 1 ... T, and t = 0 is the data. A network says of x_t
and t what a `Parameterization` makes a prediction of (x_0, eps) of. Training draws t uniformly from 1 ... T and
minimises the parameterisation's squared error over the number of dimensions D,

    L = 1/D |target - network(x_t, t)|^2,    x_t = a_t x_0 + sigma_t eps                                  (1)

the paper's simple loss where the target is eps. `log_prob` is the variational bound of the reverse process

    p(x_s | x_t) = N(mu_ts(x_t, x0_hat), var_ts),    s = t - 1,    p(x_T) = N(0, I)                       (2)

with the decoder p(x_0 | x_1) of the data space, whose variance is beta_1, and x0_hat cut to the range of the data:

    log p(x_0) >= -L_T - sum_(t=2..T) L_(t-1) - L_0                                                       (3)

each L_(t-1) from one draw of x_t, and the sum over all t, or over K of them drawn at random, times (T - 1) / K.

A network that takes labels is also told "none", label C, for a share of the training examples; so it is two models,
p(x | y) and p(x). `log_prob`, and samples without a label, are p(x)'s; samples by label are guided:

    (1 + w) f(x_t, y) - w f(x_t)                                                                          (4)

(Ho & Salimans, "Classifier-Free Diffusion Guidance", arXiv:2207.12598, eq. 6), f the network's output.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import UserError, refuse_options
from gm_jax.losses import diffusion as losses
from gm_jax.models.diffusion_space import DataSpace
from gm_jax.models.parameterization import Parameterization
from gm_jax.ops import diffusion_process
from gm_jax.ops.diffusion_process import Prediction, Schedule
from gm_jax.samplers import diffusion as samplers
from gm_jax.types import Array, Batch, Key, Likelihood, Model, ModelState, Objective, Params


class Sampler(NamedTuple):
    """How samples are drawn: a step, and the times that it visits.

    Attributes:
        step_fn: of `samplers.diffusion`.
        times: falling, in 1 ... T.
    """

    step_fn: samplers.StepFn
    times: np.ndarray


def ancestral(schedule: Schedule, num_steps: int, *, variance_fn: Callable) -> Sampler:
    """DDPM's sampler, at `num_steps` of the T times, spaced evenly; variance_fn is beta's or beta~'s."""
    step_fn = partial(samplers.ancestral_step, variance_fn=variance_fn)
    return Sampler(step_fn, samplers.trailing_times(schedule.num_steps, num_steps))


def ddim(schedule: Schedule, num_steps: int, *, eta: float = 0.0) -> Sampler:
    """DDIM, at `num_steps` of the T times, spaced evenly."""
    step_fn = partial(samplers.ddim_step, eta=eta)
    return Sampler(step_fn, samplers.trailing_times(schedule.num_steps, num_steps))


class Diffusion(NamedTuple):
    """The family's record, and what its chains add to it.

    Attributes:
        model: init, the one objective, sample, and log_prob: the bound (3).
        sample: `model.sample` with the guidance w of (4) and the sampler as arguments besides.
        trajectory: the same signature -> samplers.Trajectory of the samples that `sample` draws, on the scale of x_0.
        predict_fn: (params, model_state, label [B] or None, guidance) -> samplers.PredictFn.
        space: the way from the data to x_0.
        schedule: of T steps.
        shape: of one example.
        num_classes: C; None where there are no labels.
    """

    model: Model
    sample: Callable[..., Array]
    trajectory: Callable[..., samplers.Trajectory]
    predict_fn: Callable[..., samplers.PredictFn]
    space: DataSpace
    schedule: Schedule
    shape: tuple[int, ...]
    num_classes: int | None


def diffusion(
    network: nn.Module,
    space: DataSpace,
    schedule: Schedule,
    *,
    shape: tuple[int, ...],
    parameterization: Parameterization,
    sampler: Sampler,
    variance_fn: Callable[[Array, Array], Array],
    num_bound_terms: int | None = None,
    num_classes: int | None = None,
    drop_label: float = 0.1,
    guidance: float = 0.0,
) -> Diffusion:
    """A diffusion model of any network that keeps the contract.

    Args:
        network: (x_t [B, ...], t [B] int32, label [B] or None, train=...) -> [B, ...]; it may draw "dropout". With
            labels it knows num_classes + 1 of them.
        space: the way from the data to x_0.
        schedule: of T steps.
        shape: of one example.
        parameterization: what the network's output is.
        sampler: of `model.sample`.
        variance_fn: (log abar_s, log abar_t) -> var_ts of (2), for the bound: `diffusion_process.posterior_variance`
            or `transition_variance`.
        num_bound_terms: K; None for the whole sum.
        num_classes: C; None for a model without labels.
        drop_label: the share of training examples whose label is kept from the network.
        guidance: w of samples by label.
    """
    num_steps, num_dims = schedule.num_steps, int(np.prod(shape))

    def apply(params: Params, x_t: Array, t: Array, label: Array | None, **settings) -> Array:
        return network.apply({"params": params["diffusion"]}, x_t, t, label, **settings)

    def no_label(n: int) -> Array | None:
        return None if num_classes is None else jnp.full(n, num_classes, jnp.int32)

    def predict_fn(params: Params, model_state: ModelState, label: Array | None, guidance: float | Array):
        def predict(x_t: Array, t: Array) -> Prediction:
            none = no_label(x_t.shape[0])
            # A weight that is an array is not known here.
            if label is None or (isinstance(guidance, float) and guidance == 0.0):
                output = apply(params, x_t, t, none if label is None else label)
            else:
                # Both in one pass.
                twice = (jnp.concatenate(pair) for pair in ((x_t, x_t), (t, t), (label, none)))
                output = samplers.classifier_free_guidance(*jnp.split(apply(params, *twice), 2), weight=guidance)
            return parameterization.predict(x_t, output, schedule.at(t))

        return predict

    def init(key: Key, batch: Batch) -> tuple[Params, ModelState]:
        x_0 = space.prepare(batch["x"][:1])
        variables = network.init(key, x_0, jnp.ones(1, jnp.int32), no_label(1))
        return {"diffusion": variables["params"]}, {}

    def loss(params: Params, model_state: ModelState, key: Key, batch: Batch):
        time_key, noise_key, label_key, dropout_key = jax.random.split(key, 4)
        x_0 = space.prepare(batch["x"])
        t = jax.random.randint(time_key, x_0.shape[:1], 1, num_steps + 1)
        eps = jax.random.normal(noise_key, x_0.shape, x_0.dtype)
        x_t = diffusion_process.diffuse(x_0, eps, schedule.at(t))
        label = no_label(x_0.shape[0])
        if num_classes is not None:
            if "label" not in batch:
                raise UserError("the model is conditioned on labels and the data have none")
            kept = jax.random.bernoulli(label_key, 1.0 - drop_label, label.shape)
            label = jnp.where(kept, batch["label"], label)
        output = apply(params, x_t, t, label, train=True, rngs={"dropout": dropout_key})
        value = jnp.mean(parameterization.loss(x_0, eps, output, schedule.at(t))) / num_dims
        return value, (model_state, {})

    def log_prob(params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        bound = variational_bound(
            predict_fn(params, model_state, None, 0.0),
            *(space, schedule, key, x),
            variance_fn=variance_fn,
            num_terms=num_bound_terms,
        )
        settings = (("T", num_steps), ("bound_terms", num_bound_terms or num_steps - 1))
        return Likelihood(bound, kind="lower_bound", measure=space.measure, settings=settings)

    def draw(run, params, model_state, key, n, *, label=None, guidance=guidance, sampler=sampler):
        if num_classes is None:
            refuse_options(label=label)
        noise_key, key = jax.random.split(key)
        x_T = jax.random.normal(noise_key, (n, *shape))
        predict = predict_fn(params, model_state, label, guidance)
        return run(sampler.step_fn, predict, schedule, key, x_T, sampler.times, clip=space.clip)

    def sample(params: Params, model_state: ModelState, key: Key, n: int, *, temperature=None, **settings) -> Array:
        refuse_options(temperature=temperature)
        return space.to_data(draw(samplers.sample, params, model_state, key, n, **settings))

    model = Model(init, (Objective("diffusion", loss),), sample, log_prob)
    trajectory = partial(draw, samplers.sample_trajectory)
    return Diffusion(model, sample, trajectory, predict_fn, space, schedule, shape, num_classes)


def variational_bound(
    predict_fn: samplers.PredictFn,
    space: DataSpace,
    schedule: Schedule,
    key: Key,
    x: Array,
    *,
    variance_fn: Callable[[Array, Array], Array],
    num_terms: int | None,
) -> Array:
    """The bound (3) on log p(x) [B], in nats and the measure of x.

    Args:
        predict_fn: what the model says of x_t.
        space: the way from x to x_0.
        schedule: of T steps.
        key: noise, and the times where not all are summed over.
        x: [B, ...] as the data set ships it.
        variance_fn: (log abar_s, log abar_t) -> var_ts.
        num_terms: K, how many of the T - 1 denoising terms are drawn, evenly; None for all of them.
    """
    time_key, key = jax.random.split(key)
    x_0, num_steps = space.prepare(x), schedule.num_steps

    def predicted(t: Array) -> Array:
        """x0_hat from a draw of x_t."""
        eps = jax.random.normal(jax.random.fold_in(key, t), x_0.shape, x_0.dtype)
        x_t = diffusion_process.diffuse(x_0, eps, schedule.at(t))
        x0_hat = predict_fn(x_t, jnp.full(x_0.shape[:1], t, jnp.int32)).x_0
        return x0_hat if space.clip is None else jnp.clip(x0_hat, *space.clip)

    def denoising_kl(t: Array) -> Array:
        log_alpha_bars = schedule.at(t - 1), schedule.at(t)
        log_var = jnp.log(variance_fn(*log_alpha_bars))
        return losses.denoising_kl(x_0, predicted(t), *log_alpha_bars, log_var=log_var)

    times = jnp.arange(2, num_steps + 1)
    if num_terms is not None:
        # One in each K-th of them, from one draw: each time is as likely as any other.
        places = (jnp.arange(num_terms) + jax.random.uniform(time_key)) * ((num_steps - 1) / num_terms)
        times = times[jnp.minimum(places.astype(jnp.int32), num_steps - 2)]
    decoder_log_var = jax.nn.log1mexp(-schedule.at(1))
    return losses.variational_bound(
        losses.prior_kl(x_0, schedule.at(num_steps)),
        jax.lax.map(denoising_kl, times),
        space.decoder_nll(x, predicted(jnp.int32(1)), decoder_log_var),
        num_steps=num_steps,
    )
