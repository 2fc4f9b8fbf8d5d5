"""MeanFlow (Geng et al., NeurIPS 2025, arXiv:2505.13447): one step from noise to data, without a teacher.

One network of two times gives the mean velocity U(x_t, r, t) of `losses.meanflow` and, at r = t, the velocity u of
flow matching on the same path. Training draws two times for each example; the later one is t, and for a share of the
examples r is t. With `own_direction` the derivative in the loss is along the network's own velocity U(x_t, t, t), as in
improved MeanFlow (Geng et al., CVPR 2026, arXiv:2512.02012, algorithm 1). Samples take K steps

    x_r = x_t - (t - r) U(x_t, r, t)                                                                     (1)

from noise to data, one by default. The times are those of the path without a thousandth at both ends, where the bound
of the flow is not finite. The likelihood is that of the flow of u, solved exactly (`models.score`); it is not
the density of the few steps.

With labels, a part of the training examples shows none to the network. Guidance is trained (section 4.2): examples with
a label have, in place of u of a pair of data and noise, the target

    u_guided = (1 + w) u - w U(x_t, t, t)    with U of no label, a constant to the gradient              (2)

so that U(x_t, r, t) of a label is the mean of the guided velocity, and a guided sample costs no more than another.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import refuse_options
from gm_jax.losses import meanflow
from gm_jax.models import label_dropout
from gm_jax.models.path_objectives import spread
from gm_jax.models.score import ScoreModel
from gm_jax.ops import predictions
from gm_jax.ops.predictions import per_example
from gm_jax.samplers import time_grids
from gm_jax.samplers.guidance import classifier_free_guidance
from gm_jax.types import Array, Batch, Key, Metrics, Model, ModelState, Objective, Params


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MeanFlow:
    """A MeanFlow of any network of two times.

    Attributes:
        flow: the model at r = t. Its output is the velocity, its network has an argument `earlier`
            (`networks.two_times`), and its `level_fn` has moderate derivatives: `path_objectives.uniform_level`.
        same_time: the share of training examples with r = t.
        power: p of `losses.adaptive_weight`.
        num_steps: K of (1).
        guidance: w of (2), which is a part of what is trained; the guidance of `flow` is 0.
        own_direction: take the derivative along U(x_t, t, t), and not along the velocity of the pair of data and noise.
    """

    flow: ScoreModel
    same_time: float = 0.75
    power: float = 0.75
    num_steps: int = 1
    guidance: float | Array = 0.0
    own_direction: bool = False

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and samplers see."""
        return Model(self.flow.init, (Objective("score", self.loss),), self.sample, self.flow.log_prob)

    def loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Computes the weighted loss, averaged over the batch, and reports the squared error of each dimension."""
        flow, path = self.flow, self.flow.path
        space_key, time_key, other_key, same_key, noise_key, label_key, dropout_key = jax.random.split(key, 7)
        x_0 = flow.space.prepare(space_key, batch["x"])[0]
        count = x_0.shape[0]
        times = (
            flow.times_fn(path, spread(time_key, count)),
            flow.times_fn(path, jax.random.uniform(other_key, (count,))),
        )
        is_same = jax.random.bernoulli(same_key, self.same_time, (count,))
        # The first of the two alone is spread evenly over the batch, so it is t where there is one time.
        t = jnp.where(is_same, times[0], jnp.maximum(*times))
        r = jnp.where(is_same, t, jnp.minimum(*times))
        eps = jax.random.normal(noise_key, x_0.shape, x_0.dtype)
        x_t = predictions.diffuse(x_0, eps, path.signal(t), path.noise(t))
        label = label_dropout.training_label(label_key, batch, num_classes=flow.num_classes, drop_label=flow.drop_label)

        def mean_velocity(x: Array, r: Array, t: Array) -> Array:
            earlier = flow.level_fn(path, r)
            return flow.output(params, x, t, label, earlier=earlier, train=True, rngs={"dropout": dropout_key})

        u = self._guided(params, path.velocity(x_0, eps, t), x_t, t, label)
        direction = jax.lax.stop_gradient(mean_velocity(x_t, t, t)) if self.own_direction else None
        squared_error = meanflow.mean_flow_loss(mean_velocity, x_t, u, r, t, direction=direction)
        weight = meanflow.adaptive_weight(squared_error, power=self.power)
        per_dimension = jnp.mean(squared_error) / int(np.prod(flow.shape))
        return jnp.mean(weight * squared_error), (model_state, {"squared_error": per_dimension})

    def _guided(self, params: Params, u: Array, x_t: Array, t: Array, label: Array | None) -> Array:
        """Computes (2), a constant to the gradient, for the examples with a label."""
        if label is None or (isinstance(self.guidance, float) and self.guidance == 0.0):
            return u
        none = label_dropout.no_label(len(t), self.flow.num_classes)
        unconditional = jax.lax.stop_gradient(self.flow.output(params, x_t, t, none))
        guided = classifier_free_guidance(u, unconditional, weight=self.guidance)
        return jnp.where(per_example(label == none, u), u, guided)

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
        """Draws n samples [n, ...] as the data set ships them by K steps (1), of the classes [n] if there are any."""
        refuse_options(temperature=temperature)
        flow, path = self.flow, self.flow.path
        if flow.num_classes is None:
            refuse_options(label=label)
        label = label_dropout.no_label(n, flow.num_classes) if label is None else label
        times = time_grids.uniform(path, self.num_steps + 1)
        # The same x_T as that of `flow.sample`.
        x = path.noise(times[0]) * jax.random.normal(jax.random.split(key)[0], (n, *flow.shape))
        for i in range(self.num_steps):
            t, r = jnp.full(n, times[i]), jnp.full(n, times[i + 1])
            u_mean = flow.output(params, x, t, label, earlier=flow.level_fn(path, r))
            x = x - per_example(t - r, x) * u_mean
        return flow.space.to_data(x)
