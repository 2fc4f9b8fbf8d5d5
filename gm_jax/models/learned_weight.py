"""Diffusion whose squared errors are divided by their expected size, given the time and the caption.

    L = mean( e exp(-u(t, y)) + u(t, y) ),    e = 1/D |target - network(x_t, t, y)|^2                       (1)

u is learned beside the network, so that exp(u) approaches the mean of e given t and y, and every time and caption adds
about the same to the loss. A weight that does not depend on x_0 leaves the best network what it is: the mean of the
target given x_t, t and y. Samples and the bound are those of `models.diffusion`.

Not as in EDM2: u depends on the caption too, is a perceptron (`networks.log_error`), and the error is that of the
parameterisation, such as v, in place of EDM's weighted error of x_0.

Sources: see `losses.combine`.
"""

import dataclasses
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.losses import combine
from gm_jax.models import label_dropout
from gm_jax.models.diffusion import Diffusion
from gm_jax.types import Array, Batch, Key, Metrics, ModelState, Params

_NAME = "log_error"  # of its parameters, beside those of the network


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class WeightedDiffusion(Diffusion):
    """A diffusion model that is trained by (1).

    Attributes:
        log_error: u, (t [B] int32, labels [B], captions [B, L] or None) -> [B].
    """

    log_error: nn.Module

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the network as `Diffusion` does, and u."""
        params, model_state = super().init(key, batch)
        label = label_dropout.no_label(1, **self.labels)
        variables = self.log_error.init(jax.random.fold_in(key, 1), jnp.ones(1, jnp.int32), label)
        return {"diffusion": {**params["diffusion"], _NAME: variables["params"]}}, model_state

    def loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Computes the loss (1), and reports the mean of e."""
        squared_error, t, label = self.squared_error(params, key, batch)
        error = squared_error / int(np.prod(self.shape))
        log_error = cast(Array, self.log_error.apply({"params": params["diffusion"][_NAME]}, t, label))
        loss = jnp.mean(combine.uncertainty_weighted_loss(error, log_error))
        return loss, (model_state, {"squared_error": jnp.mean(error)})
