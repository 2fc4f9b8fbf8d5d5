"""Rectified flow, twice (Liu, Gong & Liu, ICLR 2023, arXiv:2209.03003): flow matching, then reflow.

The first stage trains a flow on independent pairs of data and noise. The second trains a copy on pairs of noise and
what the first flow makes of it,

    (x_0, eps),    x_0 = the end of the first flow that starts at eps                                     (1)

whose straight lines cross less, so that few steps are enough on the linear path. Samples and likelihoods are those of
the second flow; a variational bound has no meaning for it, because it does not denoise independent noise.
"""

import dataclasses

import jax
import jax.numpy as jnp

from gm_jax.models import second_stage
from gm_jax.models.path_objectives import spread
from gm_jax.models.path_sampling import draw_on_path
from gm_jax.models.score import ScoreModel
from gm_jax.samplers.ode import PredictFn
from gm_jax.types import Array, Batch, Key, Likelihood, Metrics, Model, ModelState, Objective, Params, steps


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Reflow:
    """A flow, and a straighter flow that learns from it.

    Attributes:
        flow: of both stages.
        teacher: the same model, with the sampler that makes x_0 of (1). It must follow the flow and add no noise.
        first_steps: train steps of the first stage.
    """

    flow: ScoreModel
    teacher: ScoreModel
    first_steps: int

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and samplers see."""
        objectives = (
            Objective("score", self.flow.loss, steps(0, self.first_steps)),
            Objective("reflow", self.loss, steps(self.first_steps)),
        )
        return Model(self.init, objectives, self.sample, self.log_prob)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the first flow; the second one is a copy."""
        params, model_state = self.flow.init(key, batch)
        return second_stage.difference(params, "score", "reflow"), model_state

    def loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Computes the loss of the second flow on pairs (1); of the batch it uses the number of examples."""
        time_key, noise_key, teacher_key, dropout_key = jax.random.split(key, 4)
        flow, count = self.flow, batch["x"].shape[0]
        eps = jax.random.normal(noise_key, (count, *flow.shape))
        x_T = flow.path.noise(jnp.asarray(flow.path.range[1])) * eps

        def predict_fn(label: Array | None) -> PredictFn:
            return self.teacher.predict_fn(params, model_state, label)

        x_0 = draw_on_path(self.teacher.sampler, predict_fn, flow.path, teacher_key, x_T, None)
        t = flow.times_fn(flow.path, spread(time_key, count))
        value = flow.loss_of_pairs(self.second(params), dropout_key, jax.lax.stop_gradient(x_0), eps, t)
        return value, (model_state, {})

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
        """Draws n samples [n, ...] of the second flow."""
        return self.flow.sample(self.second(params), model_state, key, n, label=label, temperature=temperature)

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the likelihood of the second flow."""
        return self.flow.log_prob(self.second(params), model_state, key, x)

    def second(self, params: Params) -> Params:
        """Returns the second network's parameters, as those of a `ScoreModel`."""
        return second_stage.second_params(params, "score", "reflow")
