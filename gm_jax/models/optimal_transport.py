"""Flow matching on pairs of least cost, OT-CFM (Tong et al., TMLR 2024, arXiv:2302.00482; Pooladian et al. 2023).

Flow matching pairs data and noise at random, so that their straight lines cross, and the flow, which follows the mean
of the lines through a point, is curved. Here each batch pairs its noises with its examples anew,

    argmin over permutations pi of    sum_i |x_0i - eps_pi(i)|^2                                          (1)

which leaves the distribution of either side, the flow's start and end, as it is. The lines are shorter and cross less,
so that fewer sampling steps are enough; in the limit of large batches they do not cross.

The velocity is E[u | x_t] of these pairs, and the ODE's samples and likelihood are right as before. A score is not:
given x_0, the noise is no longer normal. So there are no stochastic samplers and no variational bound. Labels are
refused, because the noise of one class would not be normal either, and samples start at normal noise.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import optax

from gm_jax.models.path_objectives import spread
from gm_jax.models.score import ScoreModel
from gm_jax.ops import checks
from gm_jax.types import Array, Batch, Key, Likelihood, Metrics, Model, ModelState, Objective, Params


def optimal_pairs(x_0: Array, eps: Array) -> Array:
    """Puts noises into the order (1), exactly, by the Hungarian algorithm.

    Args:
        x_0: [B, ...] examples.
        eps: [B, ...] noises.

    Returns:
        [B, ...] the noise of each example: all of `eps`, in another order.
    Source: Tong et al., TMLR 2024, arXiv:2302.00482, section 4.2.
    """
    checks.assert_batch_of_events(x_0)
    chex.assert_equal_shape([x_0, eps])
    x, noise = x_0.reshape(len(x_0), -1), eps.reshape(len(eps), -1)
    # The squares of either side are the same for every order.
    rows, columns = optax.assignment.hungarian_algorithm(-jnp.matmul(x, noise.T, precision="highest"))
    return eps[jnp.zeros_like(columns).at[rows].set(columns)]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class OptimalTransportFlow:
    """A flow that is trained on pairs (1) of each batch; several devices pair their own examples.

    Attributes:
        flow: without labels and augmentation. Its output is a velocity, and its sampler follows the ODE.
    """

    flow: ScoreModel

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and samplers see."""
        return Model(self.init, (Objective("score", self.loss),), self.sample, self.log_prob)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the flow."""
        return self.flow.init(key, batch)

    def loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Computes the squared error of the velocity on pairs (1), and reports their squared distance per dimension."""
        space_key, time_key, noise_key, dropout_key = jax.random.split(key, 4)
        flow = self.flow
        x_0 = flow.space.prepare(space_key, batch["x"])[0]
        eps = optimal_pairs(x_0, jax.random.normal(noise_key, x_0.shape, x_0.dtype))
        t = flow.times_fn(flow.path, spread(time_key, len(x_0)))
        value = flow.loss_of_pairs(params, dropout_key, x_0, eps, t)
        return value, (model_state, {"pair_distance": jnp.mean(jnp.square(x_0 - eps))})

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
        """Draws n samples [n, ...] of the flow."""
        return self.flow.sample(params, model_state, key, n, label=label, temperature=temperature)

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the likelihood of the flow by its ODE."""
        return self.flow.log_prob(params, model_state, key, x)
