"""Networks that also see a class label, made of networks that do not.

    input        f(concat(x, onehot(y)))            generators, decoders and encoders                     (1)
    projection   l(x, y) = l(x) + v_y . phi(x)      discriminators, phi(x) their features                 (2)

Source: (1) Mirza & Osindero, "Conditional Generative Adversarial Nets", arXiv:1411.1784; Sohn, Lee & Yan, "Learning
    Structured Output Representation using Deep Conditional Generative Models", NeurIPS 2015. (2) Miyato & Koyama,
    "cGANs with Projection Discriminator", ICLR 2018, arXiv:1802.05637, eq. 5.
"""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.types import Array


class LabelledInput(nn.Module):
    """A network whose input is followed by the label, (1): (x [B, ..., D], label [B]) -> the network's outputs.

    The one-hot vector [C] is appended to the last axis, at every place of an image.

    Attributes:
        network: takes x with C more channels, or C more numbers.
        num_classes: C.
        flat: whether x is made a vector first, which keeps the input of a perceptron small.
    """

    network: nn.Module
    num_classes: int
    flat: bool = False

    @nn.compact
    def __call__(self, x: Array, label: Array, **settings: Any) -> Any:
        """Maps x [B, ...] and labels [B] to the network's outputs; `settings` are passed on, such as train."""
        x = x.reshape(x.shape[0], -1) if self.flat else x
        one_hot = jax.nn.one_hot(label, self.num_classes, dtype=x.dtype)
        one_hot = one_hot.reshape(x.shape[0], *(1,) * (x.ndim - 2), self.num_classes)
        planes = jnp.broadcast_to(one_hot, (*x.shape[:-1], self.num_classes))
        return cast(Any, self.network)(jnp.concatenate([x, planes], axis=-1), **settings)


class ProjectionDiscriminator(nn.Module):
    """A discriminator of pairs, (2): (x [B, ...], label [B]) -> (logits [B], features [B, F]).

    The vectors v start at zero, so that it starts as if it had no labels. They are not divided by a singular value,
    also if the discriminator's kernels are.

    Attributes:
        discriminator: keeps the contract of `gan_mlp`.
        num_classes: C.
    """

    discriminator: nn.Module
    num_classes: int

    @nn.compact
    def __call__(self, x: Array, label: Array, *, train: bool) -> tuple[Array, Array]:
        """Maps x [B, ...] and labels [B] to (logits [B], features [B, F])."""
        logits, features = cast(Any, self.discriminator)(x, train=train)
        vectors = nn.Embed(self.num_classes, features.shape[-1], embedding_init=nn.initializers.zeros)(label)
        return logits + jnp.sum(vectors * features, axis=-1), features
