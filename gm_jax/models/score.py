"""Score-based models in continuous time (Song et al., ICLR 2021, arXiv:2011.13456): the algorithm, top to bottom.

One family for score SDEs (VE, VP, sub-VP), NCSN, EDM and flow matching: they differ in the Gaussian path

    x_t = a(t) x_0 + s(t) eps,    x_T ~ N(0, s_T^2 I) approximately                                      (1)

in what the network predicts and at which times it is trained (`models.path_objectives`), and in the sampler. The
network f sees an input of about unit variance and the logarithm of the noise level,

    output = f(x_t / sqrt(a^2 c^2 + s^2), 25 log(s / a)),    c the standard deviation of the data        (2)

and its output gives x_0, eps, the score -eps / s and the velocity u at every time. Training minimises its squared error
divided by the number of dimensions. Two likelihoods come from the same network. The probability-flow ODE dx / dt = u
gives the density of its exact solution, which is not the density of a sampler's few steps (`losses.continuous_flow`),

    log p(x) = log N(x_T; 0, s_T^2 I) + int div u dt                                                     (3)

and the reverse SDE has a variational bound (`losses.score_matching`, eq. 7). Both start at t_min, whose noise s_min is
part of the model, and levels are dequantised by uniform noise, so that (3) is a lower bound for them, as for flows.

Labels are withheld from a share of the examples, and guide samples, as in `models.diffusion`.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import refuse_options
from gm_jax.losses import continuous_flow, diffusion, score_matching
from gm_jax.models import augmentation, label_dropout, path_likelihoods
from gm_jax.models.flow import Dequantization
from gm_jax.models.path_objectives import (
    LevelFn,
    Parameterization,
    TimesFn,
    log_noise_level,
    log_snr_at,
    log_snr_times,
    spread,
)
from gm_jax.models.path_sampling import PathSampler, draw_on_path
from gm_jax.ops import checks, predictions
from gm_jax.ops.gaussian_path import GaussianPath
from gm_jax.ops.levels import space_setting
from gm_jax.ops.predictions import Prediction, per_example
from gm_jax.samplers.ode import PredictFn
from gm_jax.types import Array, Batch, Key, Likelihood, Metrics, Model, ModelState, Objective, Params

_AUGMENTATION = 0xFFFFFFFC  # folded into the key of a loss, so that its other draws stay


class ODELikelihood(NamedTuple):
    """How (3) is computed.

    Attributes:
        tolerance: relative and absolute, of the solver.
        num_probes: K of Hutchinson's estimate of the divergence; 0 for the exact divergence.
    """

    tolerance: float = 1e-5
    num_probes: int = 0


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ScoreModel:
    """A score-based model of any network that keeps the contract.

    Attributes:
        network: (x [B, ...], noise level [B], label [B] or None, train=...) -> [B, ...]; it may draw "dropout". With
            labels it has num_classes + 1 of them.
        space: the map from the data to real numbers.
        path: the Gaussian path.
        shape: of one example.
        parameterization: what the network's output is.
        times_fn: how training draws the times.
        sampler: of `sample`.
        sigma_data: c of (2).
        level_fn: what the network sees of the time.
        likelihood: how (3) is computed.
        num_bound_times: K, times in the bound of each example.
        num_classes: C; None for a model without labels.
        drop_label: the share of training examples whose label is withheld from the network.
        guidance: w of samples with a label.
        augment: p of `augmentation.augment`, for training images; 0 for no augmentation. A network with `augmented`
            numbers is given zeros in samples and likelihoods.
    """

    network: nn.Module
    space: Dequantization
    path: GaussianPath
    shape: tuple[int, ...]
    parameterization: Parameterization
    times_fn: TimesFn
    sampler: PathSampler
    sigma_data: float
    likelihood: ODELikelihood
    level_fn: LevelFn = log_noise_level
    num_bound_times: int = 100
    num_classes: int | None = None
    drop_label: float = 0.1
    guidance: float | Array = 0.0
    augment: float = 0.0

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and samplers see."""
        return Model(self.init, (Objective("score", self.loss),), self.sample, self.log_prob)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the network from the shape of one example, and checks the shape of its output."""
        x_0 = self.space.prepare(key, batch["x"][:1])[0]
        checks.check_example(self.shape, x_0)
        label = label_dropout.no_label(1, self.num_classes)
        output, variables = self.network.init_with_output(key, x_0, jnp.ones(1), label)
        checks.check_outputs("the network", output, x_0.shape)
        return {"score": variables["params"]}, {}

    def loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Computes the squared error of the output, averaged over the batch, at times spread evenly over the batch."""
        space_key, time_key, noise_key, label_key, dropout_key = jax.random.split(key, 5)
        x_0, more = self.space.prepare(space_key, batch["x"])[0], {}
        if self.augment:
            x_0, more["changes"] = augmentation.augment(
                jax.random.fold_in(key, _AUGMENTATION), x_0, probability=self.augment
            )
        t = self.times_fn(self.path, spread(time_key, x_0.shape[0]))
        eps = jax.random.normal(noise_key, x_0.shape, x_0.dtype)
        label = label_dropout.training_label(label_key, batch, num_classes=self.num_classes, drop_label=self.drop_label)
        return self.loss_of_pairs(params, dropout_key, x_0, eps, t, label, **more), (model_state, {})

    def loss_of_pairs(
        self, params: Params, key: Key, x_0: Array, eps: Array, t: Array, label: Array | None = None, **more: Array
    ) -> Array:
        """Computes the loss of pairs of data and noise [B, ...], in the space that is diffused, at times [B].

        `more` are further inputs of the network, e.g. changes [B, A].
        """
        x_t = predictions.diffuse(x_0, eps, self.path.signal(t), self.path.noise(t))
        output = self.output(params, x_t, t, label, train=True, rngs={"dropout": key}, **more)
        squared_error = jnp.mean(self.parameterization.loss(self.path, x_0, eps, output, t))
        return squared_error / int(np.prod(self.shape))

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes (3) for x [B, ...] as the data set ships it, with one draw of dequantisation noise."""
        space_key, probe_key = jax.random.split(key)
        x_0, log_det = self.space.prepare(space_key, x)
        count, tolerance = self.likelihood.num_probes, self.likelihood.tolerance
        probes = jax.random.rademacher(probe_key, (count, *x_0.shape), x_0.dtype) if count else None
        by_probe = self.log_densities(params, model_state, x_0, probes)
        error = continuous_flow.standard_error_of_probes(by_probe) if count > 1 else None
        kind = "estimate" if count and self.space.kind == "exact" else self.space.kind
        first, last = self.path.range
        # Images lie in [-1, 1], and points have the root mean square c.
        largest = self.sigma_data if self.space.side == "R" else 1.0
        prior_kl = path_likelihoods.prior_kl(self.path, self.shape, largest=largest)
        ends = (("t_min", first), ("t_max", last), ("prior_kl", prior_kl))
        solver = (*ends, ("rtol", tolerance), ("atol", tolerance), *((("probes", count),) if count else ()))
        settings = (*solver, *self._space_settings(x))
        return Likelihood(jnp.mean(by_probe, axis=0) + log_det, kind, self.space.measure, settings, error)

    def log_density(self, params: Params, model_state: ModelState, x_0: Array) -> Array:
        """Computes (3) [B] for x_0 [B, ...] in the space that is diffused, with the exact divergence."""
        return self.log_densities(params, model_state, x_0, None)[0]

    def log_densities(self, params: Params, model_state: ModelState, x_0: Array, probes: Array | None) -> Array:
        """Computes (3) [K, B] for x_0 [B, ...], by each of the probes [K, B, ...] or, with None, exactly (K = 1)."""
        predict_fn, tolerance = self.predict_fn(params, model_state, None), self.likelihood.tolerance
        return path_likelihoods.ode_log_densities(predict_fn, self.path, x_0, probes, tolerance=tolerance)

    def bound(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the variational bound of the reverse SDE at K times that are spread over log snr."""
        space_key, time_key, noise_key = jax.random.split(key, 3)
        x_0, log_det = self.space.prepare(space_key, x)
        predict_fn, ends = self.predict_fn(params, model_state, None), jnp.asarray(self.path.range, x_0.dtype)
        (a_0, a_T), (s_0, s_T) = self.path.signal(ends), self.path.noise(ends)

        def predict(key: Key, t: Array) -> tuple[Array, Prediction]:
            eps = jax.random.normal(key, x_0.shape, x_0.dtype)
            x_t = predictions.diffuse(x_0, eps, self.path.signal(t), self.path.noise(t))
            return eps, predict_fn(x_t, jnp.full(x_0.shape[:1], t))

        def noise_loss(at: tuple[Array, Array]) -> Array:
            eps, prediction = predict(jax.random.fold_in(noise_key, at[0]), at[1])
            return diffusion.noise_prediction_loss(eps, prediction.eps)

        count = self.num_bound_times
        times = log_snr_times(self.path, spread(time_key, count))
        first = predict(jax.random.fold_in(noise_key, count), ends[0])[1].x_0
        log_snr = log_snr_at(self.path, ends)
        bound = score_matching.continuous_bound(
            score_matching.continuous_prior_kl(x_0, a_T, s_T),
            jax.lax.map(noise_loss, (jnp.arange(count), times)),
            diffusion.decoder_normal_nll(x_0, first, log_var=2.0 * jnp.log(s_0 / a_0)),
            log_snr_range=log_snr[0] - log_snr[1],
        )
        settings = (("t_min", self.path.range[0]), ("bound_times", count), *self._space_settings(x))
        return Likelihood(bound + log_det, "lower_bound", self.space.measure, settings)

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
        """Draws n samples [n, ...] as the data set ships them, guided if labels [n] are given."""
        refuse_options(temperature=temperature)
        noise_key, key = jax.random.split(key)
        last = jnp.asarray(self.path.range[1], jnp.float32)
        x_T = self.path.noise(last) * jax.random.normal(noise_key, (n, *self.shape))
        predict_fn = functools.partial(self.predict_fn, params, model_state)
        return self.space.to_data(draw_on_path(self.sampler, predict_fn, self.path, key, x_T, label))

    def predict_fn(self, params: Params, model_state: ModelState, label: Array | None) -> PredictFn:
        """Makes the function (x_t, t) -> Prediction of p(x) or, with labels [B], of the guided p(x | y)."""
        if self.num_classes is None:
            refuse_options(label=label)

        def predict(x_t: Array, t: Array) -> Prediction:
            output = label_dropout.guided_output(
                functools.partial(self.output, params),
                x_t,
                t,
                label,
                num_classes=self.num_classes,
                weight=self.guidance,
            )
            return self.parameterization.predict(self.path, x_t, output, t)

        return predict

    def output(self, params: Params, x_t: Array, t: Array, label: Array | None, **settings: Any) -> Array:
        """Computes (2) for x_t [B, ...] at times t [B]; other arguments are the network's."""
        a_t, s_t = self.path.signal(t), self.path.noise(t)
        x = x_t / per_example(jnp.sqrt(jnp.square(a_t * self.sigma_data) + jnp.square(s_t)), x_t)
        level = self.level_fn(self.path, t)
        return cast(Array, self.network.apply({"params": params["score"]}, x, level, label, **settings))

    def _space_settings(self, x: Array) -> tuple[tuple[str, Any], ...]:
        return (*self.space.settings, *space_setting(self.space.side, x.shape[1:]))
