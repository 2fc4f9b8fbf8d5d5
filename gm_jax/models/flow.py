"""Normalizing flows: a change of variables from data to a simple latent, for any invertible network.

    h = prepare(x),  z = f(h),    log p(x) = log p_Z(f(h)) + log |det df/dh| + log |det dh/dx|            (1)

Training minimises -(1). Sampling inverts it: z ~ p_Z, h = f^-1(z). The network f is a module with two methods,

    forward(h [B, ...]) -> (z [B, D], log_det [B]),    inverse(z [B, D]) -> (h [B, ...], log_det [B]),

and an `event_shape`, as in `networks.{nice,realnvp,glow,spline_flow,autoregressive_flow}`. A `Prior` is p_Z, for
training and sampling. A `Dequantization` maps the data set's own form to the real numbers h, and back.

The meaning of (1) depends on the data. For points it is log p(x), exactly. Levels are dequantised by uniform noise, and
(1) is then the exact log-density of the noisy data: its mean over the noise is a lower bound on log P of the levels.
`Flow.log_prob` reports it as a lower bound, with one draw of noise for each example. The bits per dimension that papers
report for flows are the same quantity.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import flow as losses
from gm_jax.networks.couplings import FIXED
from gm_jax.ops import checks, dequantization
from gm_jax.ops.levels import measure, space_setting
from gm_jax.types import (
    Array,
    Batch,
    Fixed,
    Key,
    Likelihood,
    LikelihoodKind,
    Metrics,
    Model,
    ModelState,
    Objective,
    Params,
)


class Prior(NamedTuple):
    """The density of the latent.

    Attributes:
        sample: (key, shape) -> z.
        log_prob: z [B, D] -> [B] nats.
    """

    sample: Callable[[Key, tuple[int, ...]], Array]
    log_prob: Callable[[Array], Array]


def standard_normal() -> Prior:
    """N(0, I)."""
    return Prior(jax.random.normal, losses.standard_normal_log_prob)


def standard_logistic() -> Prior:
    """Independent standard logistics, as NICE uses for images."""
    return Prior(jax.random.logistic, losses.standard_logistic_log_prob)


class Dequantization(NamedTuple):
    """The map from the data as the data set ships them to real numbers, and back.

    Attributes:
        prepare: (key, x [B, ...]) -> (h [B, ...] real, log |det dh/dx| [B]).
        to_data: h -> x, as the data set ships it.
        kind: how (1) relates to log p(x).
        measure: the base measure of p(x), as in `types.Likelihood`.
        settings: settings of `types.Likelihood`.
        side: the range of one dimension in the space of a density, see `ops.levels.space_setting`; None for levels.
        to_unit: h -> (y [B, ...], whose levels lie side by side in [0, 1), and log |det dh/dx| [B]); None for points.
    """

    prepare: Callable[[Key, Array], tuple[Array, Array]]
    to_data: Callable[[Array], Array]
    kind: LikelihoodKind
    measure: str
    settings: tuple[tuple[str, Any], ...] = ()
    side: str | None = None
    to_unit: Callable[[Array], tuple[Array, Array]] | None = None


def no_dequantization() -> Dequantization:
    """For points, which are real already: the identity."""
    return Dequantization(
        prepare=lambda key, x: (x, jnp.zeros(x.shape[0], x.dtype)),
        to_data=lambda h: h,
        kind="exact",
        measure="continuous",
        side="R",
    )


def uniform_dequantization(*, levels: int, alpha: float | None = None) -> Dequantization:
    """Integer levels plus uniform noise, scaled to [-1/2, 1/2] or mapped to the real line by a logit.

    Args:
        levels: L, the number of levels of the data.
        alpha: distance that the logit's argument keeps from 0 and 1; None for no logit.
    """

    def prepare(key: Key, x: Array) -> tuple[Array, Array]:
        uniform = jax.random.uniform(key, x.shape)
        y, log_det = dequantization.uniform_dequantize(x.astype(jnp.int32), uniform, levels=levels)
        if alpha is None:
            return y - 0.5, log_det
        h, logit_log_det = dequantization.logit(y, alpha=alpha)
        return h, log_det + logit_log_det

    def to_unit(h: Array) -> tuple[Array, Array]:
        log_det = jnp.full(h.shape[:1], -math.prod(h.shape[1:]) * math.log(levels), h.dtype)
        if alpha is None:
            return h + 0.5, log_det
        y, inverse_log_det = dequantization.logit_inverse(h, alpha=alpha)
        return y, log_det - inverse_log_det

    def to_data(h: Array) -> Array:
        return dequantization.quantize(to_unit(h)[0], levels=levels).astype(jnp.uint8)

    settings = (("dequantization", "uniform"),)
    return Dequantization(prepare, to_data, "lower_bound", measure(levels), settings, to_unit=to_unit)


def symmetric_dequantization(*, levels: int) -> Dequantization:
    """Integer levels plus uniform noise, scaled to [-1, 1], where models in continuous time diffuse images."""
    half = uniform_dequantization(levels=levels)

    def prepare(key: Key, x: Array) -> tuple[Array, Array]:
        h, log_det = half.prepare(key, x)
        return 2.0 * h, log_det + math.prod(x.shape[1:]) * math.log(2.0)

    return half._replace(prepare=prepare, to_data=lambda x_0: half.to_data(0.5 * x_0))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Flow:
    """A normalizing flow of any network that keeps the contract.

    Attributes:
        network: f, with `forward`, `inverse` and the `event_shape` of one h, whose size is D.
        prior: p_Z.
        dequantization: the map from the data to real numbers.
    """

    network: nn.Module
    prior: Prior
    dequantization: Dequantization

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and sampling use."""
        # A flow has no statistics of batches: what its network holds beside parameters is drawn once.
        sync = {FIXED: Fixed()}
        return Model(self.init, (Objective("flow", self.loss),), self.sample, self.log_prob, sync)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the network on a whole batch, whose statistics actnorms start from, and checks its outputs."""
        prepare_key, params_key = jax.random.split(key)
        h, _ = self.dequantization.prepare(prepare_key, batch["x"])
        checks.check_example(self.network.event_shape, h)  # NICE would repeat dimensions of a smaller h
        outputs, variables = self.network.init_with_output(params_key, h, method="forward")
        checks.check_outputs("the flow, forward,", outputs, (len(h), math.prod(h.shape[1:])), (len(h),))
        variables = dict(variables)
        return {"flow": variables.pop("params")}, variables

    def loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Computes the mean of -(1), and the mean of all its log-determinants as a metric."""
        value, log_det = self._nll(params, model_state, *self.dequantization.prepare(key, batch["x"]))
        value = jnp.mean(value)
        return value, (model_state, {"nll": value, "log_det": jnp.mean(log_det)})

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes (1), with one draw of dequantisation noise for each example."""
        value, _ = self._nll(params, model_state, *self.dequantization.prepare(key, x))
        settings = (*self.dequantization.settings, *space_setting(self.dequantization.side, x.shape[1:]))
        return Likelihood(-value, self.dequantization.kind, self.dequantization.measure, settings)

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
        """Draws [n, ...] as the data set ships it; the temperature multiplies the latent."""
        refuse_options(label=label)
        temperature = 1.0 if temperature is None else temperature
        return self.decode(params, model_state, temperature * self._sample_prior(key, n))

    def encode(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        """Computes the latent z [B, D] of x [B, ...]; the key dequantises x."""
        return self._forward(params, model_state, self.dequantization.prepare(key, x)[0])[0]

    def decode(self, params: Params, model_state: ModelState, z: Array) -> Array:
        """Computes x [B, ...], as the data set ships it, from z [B, D]."""
        return self.dequantization.to_data(self._inverse(params, model_state, z)[0])

    def log_density(self, params: Params, model_state: ModelState, h: Array) -> Array:
        """Computes the log-density [B], in nats, of h [B, ...]: (1) without its last term."""
        return -self._nll(params, model_state, h, jnp.zeros(h.shape[0], h.dtype))[0]

    def sample_with_log_density(self, params: Params, model_state: ModelState, key: Key, n: int) -> tuple[Array, Array]:
        """Draws h [n, ...], and computes its log-density [n] from the inverse pass alone."""
        z = self._sample_prior(key, n)
        h, log_det = self._inverse(params, model_state, z)
        return h, -losses.change_of_variables_nll(self.prior.log_prob(z), -log_det)

    def _nll(self, params: Params, model_state: ModelState, h: Array, log_det: Array) -> tuple[Array, Array]:
        """-(1) [B], and the sum of its log-determinants [B]; `log_det` is the one of `prepare`."""
        z, network_log_det = self._forward(params, model_state, h)
        log_det = log_det + network_log_det
        return losses.change_of_variables_nll(self.prior.log_prob(z), log_det), log_det

    def _forward(self, params: Params, model_state: ModelState, h: Array) -> tuple[Array, Array]:
        checks.check_example(self.network.event_shape, h)
        variables = {"params": params["flow"], **model_state}
        return cast(tuple[Array, Array], self.network.apply(variables, h, method="forward"))

    def _inverse(self, params: Params, model_state: ModelState, z: Array) -> tuple[Array, Array]:
        variables = {"params": params["flow"], **model_state}
        outputs = self.network.apply(variables, z, method="inverse")
        checks.check_outputs("the flow, inverse,", outputs, (len(z), *self.network.event_shape), (len(z),))
        return cast(tuple[Array, Array], outputs)

    def _sample_prior(self, key: Key, n: int) -> Array:
        return self.prior.sample(key, (n, math.prod(self.network.event_shape)))
