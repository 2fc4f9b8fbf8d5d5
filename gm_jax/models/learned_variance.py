"""DDPM with a learned variance (Nichol & Dhariwal, ICML 2021, arXiv:2102.09672): a better bound, and few steps.

A second output v of the network interpolates the log-variance of each number between the two usual choices,

    log var_ts = v log beta_ts + (1 - v) log beta~_ts                                                     (1)

Training adds the terms of the bound. Of the two outputs their gradient reaches v alone, because x0_hat in them is held
constant:

    L = L_simple + lambda T L_(t-1) / D                                                                   (2)

Times may be drawn by their losses, t ~ p_t, because the terms of the bound differ by orders of magnitude; then they
weigh 1 / (T p_t):

    p_t = 0.9 sqrt(E L_(t-1)^2) / sum_t sqrt(E L_(t-1)^2) + 0.1 / T                                       (3)

for t > 1, with a running mean in place of E, which starts at 1 nat^2; t = 1 has the second term alone, because the
variance of L_0 is fixed and its term trains nothing.

Not as in the paper: it keeps the last ten terms of each time, draws uniformly until all are full, and learns the
variance of L_0 too; the share 0.1 of uniform times is ours; lambda weighs nats; and (3) also draws the times of
L_simple, for which the paper sees no gain.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import refuse_options
from gm_jax.losses import diffusion as losses
from gm_jax.models import label_dropout
from gm_jax.models.diffusion import Diffusion, Parameterization
from gm_jax.ops import diffusion_process, predictions
from gm_jax.ops.levels import space_setting
from gm_jax.samplers import ddpm
from gm_jax.samplers.guidance import classifier_free_guidance
from gm_jax.types import Array, Batch, Key, Likelihood, Mean, Metrics, Model, ModelState, Objective, Params

_UNIFORM = 0.1  # share of (3)
_DECAY = 0.9  # of the running mean, for each drawn time


def of_first_output(parameterization: Parameterization) -> Parameterization:
    """Makes a parameterisation of a network that has a second output, v, behind the first."""
    return Parameterization(
        lambda x_t, output, a_t, sigma_t: parameterization.predict(x_t, _halves(output)[0], a_t, sigma_t),
        lambda x_0, eps, output, a_t, sigma_t: parameterization.loss(x_0, eps, _halves(output)[0], a_t, sigma_t),
        num_outputs=2,
    )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LearnedVariance:
    """A diffusion model whose network has two outputs.

    Attributes:
        diffusion: with a parameterisation `of_first_output`.
        bound_weight: lambda of (2).
        loss_aware: whether times are drawn by (3); otherwise they are uniform.
        sampling_times: the times of ancestral sampling, falling; None for the sampler of `diffusion`.
    """

    diffusion: Diffusion
    bound_weight: float = 1e-3
    loss_aware: bool = False
    sampling_times: np.ndarray | None = None

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and samplers see."""
        return Model(self.init, (Objective("diffusion", self.loss),), self.sample, self.log_prob, {"times": Mean()})

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the network, and the running mean of (3) if times are drawn by it."""
        params, model_state = self.diffusion.init(key, batch)
        if self.loss_aware:
            model_state = {**model_state, "times": {"square": jnp.ones(self.diffusion.schedule.num_steps)}}
        return params, model_state

    def loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Computes (2), averaged over the batch, and reports its second term in nats of the whole bound."""
        time_key, noise_key, dropout_key = jax.random.split(key, 3)
        model, schedule, size = self.diffusion, self.diffusion.schedule, int(np.prod(self.diffusion.shape))
        x_0 = model.space.prepare(batch["x"])
        t, weight = self.draw_times(model_state, time_key, x_0.shape[0])
        eps = jax.random.normal(noise_key, x_0.shape, x_0.dtype)
        a_t, sigma_t = schedule.signal(t), schedule.noise(t)
        x_t = predictions.diffuse(x_0, eps, a_t, sigma_t)
        label_key = jax.random.fold_in(key, 1)
        label = label_dropout.training_label(label_key, batch, drop_label=model.drop_label, **model.labels)
        output = model.output(params, x_t, t, label, train=True, rngs={"dropout": dropout_key})
        simple = model.parameterization.loss(x_0, eps, output, a_t, sigma_t) / size
        x0_hat = model.clipped(model.parameterization.predict(x_t, output, a_t, sigma_t).x_0)
        term = self.bound_term(batch["x"], x_0, jax.lax.stop_gradient(x0_hat), share_of(output), t)
        total = schedule.num_steps * jnp.mean(weight * term)
        value = jnp.mean(weight * simple) + self.bound_weight * total / size
        return value, (self._after(model_state, t, term), {"bound_terms": total})

    def bound_term(self, x: Array, x_0: Array, x0_hat: Array, share: Array, t: Array) -> Array:
        """Computes L_(t-1) [B] at times t [B], nats; L_0, whose variance is fixed, at t = 1."""
        schedule = self.diffusion.schedule
        # Any other time in place of t = 1, so that no gradient is infinite.
        later = jnp.maximum(t, 2)
        log_alpha_bars = schedule.at(later - 1), schedule.at(later)
        log_var = diffusion_process.interpolated_log_variance(share, *log_alpha_bars)
        kl = losses.denoising_kl(x_0, x0_hat, *log_alpha_bars, log_var=log_var)
        decoder = self.diffusion.space.decoder_nll(x, x0_hat, jax.nn.log1mexp(-schedule.at(1)))
        return jnp.where(t == 1, decoder, kl)

    def draw_times(self, model_state: ModelState, key: Key, n: int) -> tuple[Array, Array]:
        """Draws n times [n] in 1 ... T, and the weight 1 / (T p_t) [n] of each."""
        num_steps = self.diffusion.schedule.num_steps
        if not self.loss_aware:
            return jax.random.randint(key, (n,), 1, num_steps + 1), jnp.ones(n)
        root = jnp.sqrt(model_state["times"]["square"]).at[0].set(0.0)
        p = (1.0 - _UNIFORM) * root / jnp.sum(root) + _UNIFORM / num_steps
        place = jax.random.categorical(key, jnp.log(p), shape=(n,))
        return place + 1, 1.0 / (num_steps * p[place])

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the bound with the variances (1), and states its settings T and K."""
        model = self.diffusion

        def reverse(x_t: Array, t: Array) -> tuple[Array, Array]:
            x0_hat, share = self.reverse(params, x_t, jnp.full(x_t.shape[:1], t, jnp.int32))
            return x0_hat, diffusion_process.interpolated_log_variance(
                share, model.schedule.at(t - 1), model.schedule.at(t)
            )

        num_steps = model.schedule.num_steps
        terms = (("T", num_steps), ("bound_terms", model.num_bound_terms or num_steps - 1))
        settings = (*terms, *space_setting(model.space.side, x.shape[1:]))
        return Likelihood(model.bound_of(reverse, key, x), "lower_bound", model.space.measure, settings)

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
        """Draws n samples [n, ...] as the data set ships them, by ancestral steps of variance (1)."""
        refuse_options(temperature=temperature)
        model = self.diffusion
        if self.sampling_times is None:
            return model.sample(params, model_state, key, n, label=label)
        if not any(model.labels.values()):
            refuse_options(label=label)
        noise_key, key = jax.random.split(key)
        x_T = jax.random.normal(noise_key, (n, *model.shape))
        x_0 = ddpm.sample_with_variance(
            lambda x_t, t: self.reverse(params, x_t, t, label), model.schedule, key, x_T, self.sampling_times
        )
        return model.space.to_data(x_0)

    def reverse(self, params: Params, x_t: Array, t: Array, label: Array | None = None) -> tuple[Array, Array]:
        """Computes x0_hat, clipped and guided if labels are given, and v of (1), both [B, ...], from x_t at t [B]."""
        model = self.diffusion
        guided = {"weight": model.guidance, "negative": model.negative, "guide": _guide_first, **model.labels}
        output = label_dropout.guided_output(functools.partial(model.output, params), x_t, t, label, **guided)
        factors = model.schedule.signal(t), model.schedule.noise(t)
        return model.clipped(model.parameterization.predict(x_t, output, *factors).x_0), share_of(output)

    def _after(self, model_state: ModelState, t: Array, term: Array) -> ModelState:
        """Moves the running mean of (3) towards the terms of a batch."""
        if not self.loss_aware:
            return model_state
        square = model_state["times"]["square"]
        count = jnp.zeros_like(square).at[t - 1].add(1.0)
        mean = jnp.zeros_like(square).at[t - 1].add(jnp.square(jax.lax.stop_gradient(term))) / jnp.maximum(count, 1.0)
        moved = square + (1.0 - _DECAY**count) * (mean - square)
        return {**model_state, "times": {"square": moved}}


def share_of(output: Array) -> Array:
    """Returns v [B, ...] of (1): a second output from -1 to 1 stands for 0 to 1, and 0 for the geometric mean."""
    return 0.5 * (_halves(output)[1] + 1.0)


def _halves(output: Array) -> tuple[Array, Array]:
    first, second = jnp.split(output, 2, axis=-1)
    return first, second


def _guide_first(conditional: Array, unconditional: Array, *, weight: float | Array) -> Array:
    """Guides the first output; v stays that of the conditional model, because a guided one would leave [0, 1]."""
    first, second = _halves(conditional)
    guided = classifier_free_guidance(first, _halves(unconditional)[0], weight=weight)
    return jnp.concatenate([guided, second], axis=-1)
