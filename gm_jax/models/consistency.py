"""Consistency models (Song et al., ICML 2023, arXiv:2303.01469), distilled from an EDM in the same run.

The first stage trains a teacher (`models.score`). Then a copy of it learns where the teacher's flow ends, as f of
`losses.consistency`, with neighbours t > s on Karras' grid of N times and a step of Heun's method from x_t to x_s.
With c the standard deviation of the data, e the first time and F the network's output,

    f(x, t) = c^2 / ((t - e)^2 + c^2) x + c (t - e) / sqrt(t^2 + c^2) F(x, t),    f(x, e) = x            (1)

is EDM's denoiser moved by e. The student starts at the teacher's last parameters, not at their average; it learns
without dropout by the pseudo-Huber distance over t - s (Song & Dhariwal, ICLR 2024, arXiv:2310.14189) in place of
LPIPS. A sample is f of noise; with K steps, noise is added to it again and f repeated:

    x = f(x + sqrt(t_k^2 - e^2) z, t_k)                                                                  (2)
"""

import dataclasses

import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses.consistency import consistency_loss
from gm_jax.models import label_dropout, second_stage
from gm_jax.models.score import ScoreModel
from gm_jax.ops.predictions import per_example
from gm_jax.samplers import ode, time_grids
from gm_jax.types import Array, Batch, Key, Metrics, Model, ModelState, Objective, Params, steps


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ConsistencyModel:
    """A teacher on EDM's path and a student that does its work in one step.

    Attributes:
        teacher: with preconditioned output, on a path without a change of the signal (a = 1, s = t).
        teacher_steps: train steps of the first stage.
        num_times: N.
        num_steps: K of (2).
    """

    teacher: ScoreModel
    teacher_steps: int
    num_times: int = 18
    num_steps: int = 1

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and samplers see; one step has no likelihood."""
        objectives = (
            Objective("score", self.teacher.loss, steps(0, self.teacher_steps)),
            Objective("consistency", self.loss, steps(self.teacher_steps)),
        )
        return Model(self.init, objectives, self.sample)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the teacher; the student is a copy."""
        params, model_state = self.teacher.init(key, batch)
        return second_stage.difference(params, "score", "consistency"), model_state

    def loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Computes the consistency loss, averaged over the batch, with one pair of neighbours for each example."""
        teacher, path = self.teacher, self.teacher.path
        space_key, time_key, noise_key, label_key = jax.random.split(key, 4)
        x_0 = teacher.space.prepare(space_key, batch["x"])[0]
        times = time_grids.karras(path, self.num_times)
        place = jax.random.randint(time_key, x_0.shape[:1], 0, self.num_times - 1)
        t, s = times[place], times[place + 1]
        label = label_dropout.training_label(
            label_key, batch, num_classes=teacher.num_classes, drop_label=teacher.drop_label
        )
        x_t = x_0 + per_example(t, x_0) * jax.random.normal(noise_key, x_0.shape, x_0.dtype)
        flow = ode.flow_fn(teacher.predict_fn(params, model_state, label), path)
        x_s = jax.lax.stop_gradient(ode.heun_step(flow, x_t, t, s))
        student = self.student(params)
        end, earlier_end = self.end(student, x_t, t, label), self.end(student, x_s, s, label)
        return jnp.mean(consistency_loss(end, earlier_end, t - s)), (model_state, {})

    def end(self, student: Params, x: Array, t: Array, label: Array | None = None) -> Array:
        """Computes (1) for x [B, ...] at times t [B], with the student's own parameters."""
        teacher, distance = self.teacher, t - self.teacher.path.range[0]
        c = teacher.sigma_data
        skip = c**2 / (jnp.square(distance) + c**2)
        scale = c * distance / jnp.sqrt(jnp.square(t) + c**2)
        if label is None:
            label = label_dropout.no_label(x.shape[0], teacher.num_classes)
        return per_example(skip, x) * x + per_example(scale, x) * teacher.output(student, x, t, label)

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
        """Draws n samples [n, ...] as the data set ships them by K steps (2), of the classes [n] if there are any."""
        refuse_options(temperature=temperature)
        if self.teacher.num_classes is None:
            refuse_options(label=label)
        x, student = jnp.zeros((n, *self.teacher.shape)), self.student(params)
        first, key = self.teacher.path.range[0], jax.random.split(key)[0]
        for k, t in enumerate(time_grids.karras(self.teacher.path, self.num_steps + 1)[:-1]):
            # The first noise is that of the teacher's `sample`.
            noise = jax.random.normal(jax.random.fold_in(key, k) if k else key, x.shape)
            lifted = x + jnp.sqrt(jnp.square(t) - first**2) * noise
            x = self.end(student, lifted, jnp.full(n, t), label)
        return self.teacher.space.to_data(x)

    def student(self, params: Params) -> Params:
        """Returns the student's parameters, as those of a `ScoreModel`."""
        return second_stage.second_params(params, "score", "consistency")
