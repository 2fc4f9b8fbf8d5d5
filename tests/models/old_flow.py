"""Normalizing flows: a change of variables from data to a simple latent, whatever the network.

    h = prepare(x),  z = f(h),    log p(x) = log p_Z(f(h)) + log |det df/dh| + log |det dh/dx|            (1)

Training minimises -(1), and sampling goes back: z ~ p_Z, h = f^-1(z). The network is f, a module of two methods,

    forward(h [B, ...]) -> (z [B, D], log_det [B]),    inverse(z [B, D]) -> (h [B, ...], log_det [B]),

and an `event_shape`, as `networks.{nice,realnvp,glow,spline_flow}` have. A `Prior` is p_Z, for training and sampling
alike; a `DataSpace` is the way between what the data set ships and the real numbers h.

What (1) says depends on the data. Of points it is log p(x), exact. Levels are dequantised by uniform noise: (1) is then
the exact log-density of the noisy data and, on average over the noise, a lower bound on log P of the levels. `log_prob`
calls it that, with one draw for each example; the bits per dimension that papers give of flows are the same quantity.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import flow as losses
from gm_jax.ops import dequantization
from gm_jax.ops.levels import measure
from gm_jax.types import Array, Batch, Key, Likelihood, LikelihoodKind, Model, ModelState, Objective, Params

TEMPERATURES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the picture


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
    """Independent standard logistics, NICE's choice for images."""
    return Prior(jax.random.logistic, losses.standard_logistic_log_prob)


class DataSpace(NamedTuple):
    """The way from what the data set ships to real numbers, and back.

    Attributes:
        prepare: (key, x [B, ...]) -> (h [B, ...] real, log |det dh/dx| [B]).
        to_data: h -> x, as the data set ships it.
        kind: what (1) says of log p(x).
        measure: of `types.Likelihood`.
        settings: what else must be said with the number.
    """

    prepare: Callable[[Key, Array], tuple[Array, Array]]
    to_data: Callable[[Array], Array]
    kind: LikelihoodKind
    measure: str
    settings: tuple[tuple[str, Any], ...] = ()


def points() -> DataSpace:
    """Real data, as they are."""
    return DataSpace(
        prepare=lambda key, x: (x, jnp.zeros(x.shape[0], x.dtype)),
        to_data=lambda h: h,
        kind="exact",
        measure="continuous",
    )


def dequantized(*, levels: int, alpha: float | None = None) -> DataSpace:
    """Integer levels with uniform noise, on [-1/2, 1/2] or, by a logit, on the real line.

    Args:
        levels: L, of the data.
        alpha: how far the logit's argument stays from 0 and 1; None for no logit.
    """

    def prepare(key: Key, x: Array) -> tuple[Array, Array]:
        uniform = jax.random.uniform(key, x.shape)
        y, log_det = dequantization.uniform_dequantize(x.astype(jnp.int32), uniform, levels=levels)
        if alpha is None:
            return y - 0.5, log_det
        h, more = dequantization.logit(y, alpha=alpha)
        return h, log_det + more

    def to_data(h: Array) -> Array:
        y = h + 0.5 if alpha is None else dequantization.logit_inverse(h, alpha=alpha)[0]
        return dequantization.quantize(y, levels=levels).astype(jnp.uint8)

    return DataSpace(prepare, to_data, "lower_bound", measure(levels), (("dequantization", "uniform"),))


class Flow(NamedTuple):
    """The family's record, and what a latent of its own for every x adds to it.

    Attributes:
        model: init, the one objective, sample, and log_prob: (1).
        sample: (params, model_state, key, n, *, label=None, temperature=None) -> [n, ...]: `model.sample` with the
            latent scaled by a temperature.
        encode: (params, model_state, key, x) -> z [B, D].
        decode: (params, model_state, z [B, D]) -> x [B, ...], as the data set ships it.
        log_density: (params, model_state, h [B, ...]) -> [B] log-density of h, nats: (1) without its last term.
        draw: (params, model_state, key, n) -> (h [n, ...], [n] its log-density as the way back gives it).
    """

    model: Model
    sample: Callable[..., Array]
    encode: Callable[[Params, ModelState, Key, Array], Array]
    decode: Callable[[Params, ModelState, Array], Array]
    log_density: Callable[[Params, ModelState, Array], Array]
    draw: Callable[[Params, ModelState, Key, int], tuple[Array, Array]]


def flow(network: nn.Module, prior: Prior, space: DataSpace) -> Flow:
    """A normalizing flow of any network that keeps the contract.

    Args:
        network: f, with `forward`, `inverse` and the `event_shape` of one h, whose size is D.
        prior: p_Z.
        space: the way from the data to real numbers.
    """
    dim = math.prod(network.event_shape)

    def apply(params: Params, model_state: ModelState, x: Array, method: str) -> tuple[Array, Array]:
        return network.apply({"params": params["flow"], **model_state}, x, method=method)

    def nll(params: Params, model_state: ModelState, h: Array, log_det: Array) -> tuple[Array, Array]:
        """-(1) [B], and all of its log-determinants [B]; `log_det` are those of `prepare`."""
        z, more = apply(params, model_state, h, "forward")
        log_det = log_det + more
        return losses.change_of_variables_nll(prior.log_prob(z), log_det), log_det

    def init(key: Key, batch: Batch) -> tuple[Params, ModelState]:
        prepare_key, params_key = jax.random.split(key)
        # The whole batch: actnorms begin with its statistics.
        h, _ = space.prepare(prepare_key, batch["x"])
        variables = dict(network.init(params_key, h, method="forward"))
        return {"flow": variables.pop("params")}, variables

    def loss(params: Params, model_state: ModelState, key: Key, batch: Batch):
        value, log_det = nll(params, model_state, *space.prepare(key, batch["x"]))
        value = jnp.mean(value)
        return value, (model_state, {"nll": value, "log_det": jnp.mean(log_det)})

    def log_prob(params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        value, _ = nll(params, model_state, *space.prepare(key, x))
        return Likelihood(-value, kind=space.kind, measure=space.measure, settings=space.settings)

    def sample(params, model_state, key, n, *, label=None, temperature=None) -> Array:
        refuse_options(label=label)
        temperature = 1.0 if temperature is None else temperature
        return decode(params, model_state, temperature * prior.sample(key, (n, dim)))

    def encode(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        return apply(params, model_state, space.prepare(key, x)[0], "forward")[0]

    def decode(params: Params, model_state: ModelState, z: Array) -> Array:
        return space.to_data(apply(params, model_state, z, "inverse")[0])

    def log_density(params: Params, model_state: ModelState, h: Array) -> Array:
        return -nll(params, model_state, h, jnp.zeros(h.shape[0], h.dtype))[0]

    def draw(params: Params, model_state: ModelState, key: Key, n: int) -> tuple[Array, Array]:
        z = prior.sample(key, (n, dim))
        h, log_det = apply(params, model_state, z, "inverse")
        return h, -losses.change_of_variables_nll(prior.log_prob(z), -log_det)

    model = Model(init, (Objective("flow", loss),), sample, log_prob)
    return Flow(model, sample, encode, decode, log_density, draw)


def interpolate(
    model: Flow, params: Params, model_state: ModelState, key: Key, x_a: Array, x_b: Array, *, num: int
) -> Array:
    """Data along the straight lines between the latents of pairs; the ends are the pairs themselves.

    Args:
        model: as `flow` makes it.
        params: its parameters.
        model_state: what its network carries besides.
        key: for data that are prepared at random.
        x_a: [B, ...] where the lines begin.
        x_b: [B, ...] where they end.
        num: points on each line, ends included.
    Returns:
        [B, num, ...], as the data set ships them.
    Source: Kingma & Dhariwal, "Glow", NeurIPS 2018, arXiv:1807.03039.
    """
    key_a, key_b = jax.random.split(key)
    z_a, z_b = (model.encode(params, model_state, *pair) for pair in ((key_a, x_a), (key_b, x_b)))
    z = jnp.linspace(z_a, z_b, num, axis=1)
    x = model.decode(params, model_state, z.reshape(-1, z.shape[-1]))
    return x.reshape(*z.shape[:2], *x.shape[1:])


def grids(model: Flow, shape: tuple[int, ...]) -> Mapping[str, Callable]:
    """Pictures of images: functions (params, model_state, key, x) -> [rows, columns, *shape], as the data set ships it.

    temperatures: the same ten latents in every row, scaled by TEMPERATURES, the highest below; interpolations: ten
    lines between pairs of x.

    Args:
        model: as `flow` makes it.
        shape: of one example; of anything but images there are no grids.
    """

    def temperatures(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        return jnp.stack([model.sample(params, model_state, key, 10, temperature=t) for t in TEMPERATURES])

    def interpolations(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        return interpolate(model, params, model_state, key, x[:10], x[10:20], num=10)

    return {"temperatures": temperatures, "interpolations": interpolations} if len(shape) == 3 else {}
