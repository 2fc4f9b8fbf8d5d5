"""A network with its labels filled in, which a family of unlabelled data uses like any other.

So the losses, bounds and samplers of p(x|y) are those of p(x), line for line: `conditional_vae`, `conditional_gan`.
"""

import dataclasses
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import NO_LABELS, UserError
from gm_jax.types import Array, Batch, Key, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class GivenLabel:
    """A network (x [B, ...], label [B], ...) as one of x alone.

    Attributes:
        network: takes (x, label).
        label: [B] int32. For K B rows of x, which are K copies of the batch, it is repeated K times.
    """

    network: nn.Module
    label: Array

    def init_with_output(self, key: Key, x: Array, **settings: Any) -> tuple[Any, PyTree]:
        """Initialises the network on x."""
        return self.network.init_with_output(key, x, self._rows(x), **settings)

    def apply(self, variables: PyTree, x: Array, **settings: Any) -> Any:
        """Applies the network to x."""
        return self.network.apply(variables, x, self._rows(x), **settings)

    def _rows(self, x: Array) -> Array:
        return jnp.tile(self.label, x.shape[0] // self.label.shape[0])


def given_label(network: nn.Module, label: Array) -> nn.Module:
    """Returns the network with its label filled in; a family calls only its `init_with_output` and `apply`."""
    return cast(nn.Module, GivenLabel(network, label))


def label_of(batch: Batch) -> Array:
    """Returns the labels of a batch.

    Raises:
        UserError: it has none.
    """
    if "label" not in batch:
        raise UserError(NO_LABELS)
    return batch["label"]


def label_or_random(key: Key, n: int, label: Array | None, num_classes: int) -> Array:
    """Returns the labels [n] that are asked for, or draws them; every class is equally probable."""
    return jax.random.randint(key, (n,), 0, num_classes) if label is None else label
