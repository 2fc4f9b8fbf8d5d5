"""Denoising diffusion (Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239): the whole algorithm, top to bottom.

Times, schedules and q as in `ops.diffusion_process`: t = 1 ... T, and t = 0 is the data. A `Parameterization` turns a
network's output at (x_t, t) into a prediction of (x_0, eps). Training draws t uniformly from 1 ... T and minimises the
parameterisation's squared error, divided by the number of dimensions D,

    L = 1/D |target - network(x_t, t)|^2,    x_t = a_t x_0 + sigma_t eps                                  (1)

which is the paper's simple loss if the target is eps. `log_prob` is the variational bound of the reverse process

    p(x_s | x_t) = N(mu_ts(x_t, x0_hat), var_ts),    s = t - 1,    p(x_T) = N(0, I)                       (2)

with a decoder p(x_0 | x_1) of variance beta_1, and with x0_hat clipped to the range of the data:

    log p(x_0) >= -L_T - sum_(t=2..T) L_(t-1) - L_0                                                       (3)

Each L_(t-1) is estimated from one draw of x_t; the sum is over all t, or over K random ones, times (T - 1) / K.

A network with labels or captions gets "none", number C or an empty caption, for a share of the training examples, so it
is two models, p(x | y) and p(x). `log_prob`, and samples without a label, belong to p(x); others are guided:

    (1 + w) f(x_t, y) - w f(x_t)                                                                          (4)

(Ho & Salimans, "Classifier-Free Diffusion Guidance", arXiv:2207.12598, eq. 6), f the network's output.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import refuse_options
from gm_jax.losses import diffusion as losses
from gm_jax.models import label_dropout
from gm_jax.models.diffusion_space import DiffusionSpace
from gm_jax.models.path_sampling import PathSampler, draw_on_path
from gm_jax.ops import checks, predictions
from gm_jax.ops.diffusion_process import Schedule
from gm_jax.ops.levels import space_setting
from gm_jax.ops.predictions import Prediction
from gm_jax.samplers import diffusion as samplers
from gm_jax.types import Array, Batch, Key, Likelihood, Metrics, Model, ModelState, Objective, Params


class Parameterization(NamedTuple):
    """The meaning of the network's output; the choice decides how a squared error weighs the times.

    Attributes:
        predict: (x_t, output, a_t, sigma_t) -> Prediction.
        loss: (x_0, eps, output, a_t, sigma_t) -> [B], summed over the event.
        num_outputs: how many outputs the network has for each value of x_t, one behind the other in the last axis.
    """

    predict: Callable[[Array, Array, Array, Array], Prediction]
    loss: Callable[[Array, Array, Array, Array, Array], Array]
    num_outputs: int = 1


def noise_prediction() -> Parameterization:
    """Makes the parameterisation of DDPM: the output is eps."""
    loss = lambda x_0, eps, output, a_t, sigma_t: losses.noise_prediction_loss(eps, output)  # noqa: E731
    return Parameterization(predictions.prediction_from_eps, loss)


def data_prediction() -> Parameterization:
    """Makes the parameterisation whose output is x_0."""
    loss = lambda x_0, eps, output, a_t, sigma_t: losses.x0_prediction_loss(x_0, output)  # noqa: E731
    return Parameterization(predictions.prediction_from_x0, loss)


def v_prediction() -> Parameterization:
    """Makes the parameterisation whose output is v (Salimans & Ho, ICLR 2022, arXiv:2202.00512)."""
    return Parameterization(predictions.prediction_from_v, losses.v_prediction_loss)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Diffusion:
    """A diffusion model of any network that keeps the contract.

    Attributes:
        network: (x_t [B, ...], t [B] int32, label [B] or None, train=...) -> [B, ...]; it may draw "dropout". With
            labels it has num_classes + 1 of them; with captions the label is [B, L] tokens, 0 for padding.
        space: the way from the data to x_0.
        schedule: of T steps; shape: of one example.
        parameterization: what the network's output is.
        sampler: steps of the schedule, or a sampler of continuous paths, which has no trajectory.
        variance_fn: (log abar_s, log abar_t) -> var_ts of (2), for the bound: `diffusion_process.posterior_variance` or
            `transition_variance`.
        num_bound_terms: K; None for the whole sum.
        num_classes, num_tokens: C and L; None for a model without labels, or without captions.
        drop_label: the share of training examples whose label or caption is withheld from the network.
        guidance: w of samples with a label.
        negative: [L] tokens that guidance leads away from; None for no caption.
    """

    network: nn.Module
    space: DiffusionSpace
    schedule: Schedule
    shape: tuple[int, ...]
    parameterization: Parameterization
    sampler: samplers.Sampler | PathSampler
    variance_fn: Callable[[Array, Array], Array]
    num_bound_terms: int | None = None
    num_classes: int | None = None
    num_tokens: int | None = None
    drop_label: float = 0.1
    guidance: float | Array = 0.0
    negative: Array | np.ndarray | None = None

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and samplers see."""
        return Model(self.init, (Objective("diffusion", self.loss),), self.sample, self.log_prob)

    @property
    def labels(self) -> dict[str, int | None]:
        """C and L."""
        return {"num_classes": self.num_classes, "num_tokens": self.num_tokens}

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the network from the shape of one example, and checks the shape of its output."""
        x_0 = self.space.prepare(batch["x"][:1])
        checks.check_example(self.shape, x_0)
        label = label_dropout.no_label(1, **self.labels)
        y, variables = self.network.init_with_output(key, x_0, jnp.ones(1, jnp.int32), label)
        checks.check_outputs("the network", y, (*x_0.shape[:-1], self.parameterization.num_outputs * x_0.shape[-1]))
        return {"diffusion": variables["params"]}, {}

    def loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Computes the loss (1), averaged over the batch; each example has its own time and noise."""
        return jnp.mean(self.squared_error(params, key, batch)[0]) / int(np.prod(self.shape)), (model_state, {})

    def squared_error(self, params: Params, key: Key, batch: Batch) -> tuple[Array, Array, Array | None]:
        """Draws noise: the error [B], summed over D, of times [B], and the labels that the network saw, some hidden."""
        time_key, noise_key, label_key, dropout_key = jax.random.split(key, 4)
        x_0 = self.space.prepare(batch["x"])
        t = jax.random.randint(time_key, x_0.shape[:1], 1, self.schedule.num_steps + 1)
        eps = jax.random.normal(noise_key, x_0.shape, x_0.dtype)
        a_t, sigma_t = self.schedule.signal(t), self.schedule.noise(t)
        x_t = predictions.diffuse(x_0, eps, a_t, sigma_t)
        label = label_dropout.training_label(label_key, batch, drop_label=self.drop_label, **self.labels)
        output = self.output(params, x_t, t, label, train=True, rngs={"dropout": dropout_key})
        return self.parameterization.loss(x_0, eps, output, a_t, sigma_t), t, label

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the bound (3), and states its settings T and K."""
        bound, num_steps = self.variational_bound(params, model_state, key, x), self.schedule.num_steps
        terms = (("T", num_steps), ("bound_terms", self.num_bound_terms or num_steps - 1))
        settings = (*terms, *space_setting(self.space.side, x.shape[1:]))
        return Likelihood(bound, kind="lower_bound", measure=self.space.measure, settings=settings)

    def variational_bound(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        """Computes the bound (3) on log p(x) of x [B, ...] as the data set ships it: [B] nats."""
        predict_fn = self.predict_fn(params, model_state, None)

        def reverse(x_t: Array, t: Array) -> tuple[Array, Array]:
            log_var = jnp.log(self.variance_fn(self.schedule.at(t - 1), self.schedule.at(t)))
            return self.clipped(predict_fn(x_t, jnp.full(x_t.shape[:1], t, jnp.int32)).x_0), log_var

        return self.bound_of(reverse, key, x)

    def bound_of(self, reverse_fn: Callable[[Array, Array], tuple[Array, Array]], key: Key, x: Array) -> Array:
        """Computes the bound (3) of a reverse process (x_t [B, ...], scalar t) -> (x0_hat, log var_ts of (2))."""
        time_key, noise_key = jax.random.split(key)
        x_0, schedule = self.space.prepare(x), self.schedule

        def reverse(t: Array) -> tuple[Array, Array]:
            eps = jax.random.normal(jax.random.fold_in(noise_key, t), x_0.shape, x_0.dtype)
            return reverse_fn(predictions.diffuse(x_0, eps, schedule.signal(t), schedule.noise(t)), t)

        def denoising_kl(t: Array) -> Array:
            x0_hat, log_var = reverse(t)
            return losses.denoising_kl(x_0, x0_hat, schedule.at(t - 1), schedule.at(t), log_var=log_var)

        return losses.variational_bound(
            losses.prior_kl(x_0, schedule.at(schedule.num_steps)),
            jax.lax.map(denoising_kl, self._bound_times(time_key)),
            self.space.decoder_nll(x, reverse(jnp.int32(1))[0], jax.nn.log1mexp(-schedule.at(1))),
            num_steps=schedule.num_steps,
        )

    def clipped(self, x_0: Array) -> Array:
        """Clips a prediction of x_0 to the range of the data, if it has one."""
        return x_0 if self.space.clip is None else jnp.clip(x_0, *self.space.clip)

    def sample(
        self,
        params: Params,
        model_state: ModelState,
        key: Key,
        n: int,
        *,
        label: Array | None = None,
        temperature: float | Array | None = None,
    ) -> Array:
        """Draws n samples [n, ...] as the data set ships them, guided by (4) if labels [n] are given."""
        refuse_options(temperature=temperature)
        return self.space.to_data(self._draw(samplers.sample, params, model_state, key, n, label))

    def trajectory(
        self, params: Params, model_state: ModelState, key: Key, n: int, *, label: Array | None = None
    ) -> samplers.Trajectory:
        """Draws the same samples as `sample`, with every state on the way, on the scale of x_0."""
        return self._draw(samplers.sample_trajectory, params, model_state, key, n, label)

    def predict_fn(self, params: Params, model_state: ModelState, label: Array | None) -> samplers.PredictFn:
        """Makes the function (x_t, t) -> Prediction of p(x) or, with labels [B], of the guided p(x | y).

        Times are integers of the schedule, or floating times of its path.
        """
        if self.num_classes is None and self.num_tokens is None:
            refuse_options(label=label)
        guided = {"weight": self.guidance, "negative": self.negative, **self.labels}

        def predict(x_t: Array, t: Array) -> Prediction:
            output = label_dropout.guided_output(functools.partial(self.output, params), x_t, t, label, **guided)
            grid = self.schedule if jnp.issubdtype(t.dtype, jnp.integer) else self.schedule.path()
            return self.parameterization.predict(x_t, output, grid.signal(t), grid.noise(t))

        return predict

    def output(self, params: Params, x_t: Array, t: Array, label: Array | None = None, **settings: Any) -> Array:
        """Calls the network on x_t [B, ...] and times t [B]; other arguments are the network's."""
        return cast(Array, self.network.apply({"params": params["diffusion"]}, x_t, t, label, **settings))

    def _bound_times(self, key: Key) -> Array:
        """The times of the denoising terms: all of 2 ... T, or one in each K-th of them, all equally likely."""
        times, num_terms = jnp.arange(2, self.schedule.num_steps + 1), self.num_bound_terms
        if num_terms is None:
            return times
        places = (jnp.arange(num_terms) + jax.random.uniform(key)) * (len(times) / num_terms)
        return times[jnp.minimum(places.astype(jnp.int32), len(times) - 1)]

    def _draw(
        self, run: Callable[..., Any], params: Params, model_state: ModelState, key: Key, n: int, label: Array | None
    ) -> Any:
        noise_key, key = jax.random.split(key)
        x_T = jax.random.normal(noise_key, (n, *self.shape))
        predict_fn = functools.partial(self.predict_fn, params, model_state)
        if isinstance(self.sampler, PathSampler):
            return draw_on_path(self.sampler, predict_fn, self.schedule.path(), key, x_T, label)
        step_fn, times = self.sampler
        return run(step_fn, predict_fn(label), self.schedule, key, x_T, times, clip=self.space.clip)
