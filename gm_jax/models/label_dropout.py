"""Label dropout: training hides some labels, so that one network is the conditional and the unconditional model.

A network with C labels has one more, number C, which stands for "no label":

    guided output:   (1 + w) f(x_t, y) - w f(x_t, none)                                                  (1)

Source: Ho & Salimans, "Classifier-Free Diffusion Guidance", arXiv:2207.12598, eq. 6.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.errors import NO_LABELS, UserError
from gm_jax.samplers.guidance import classifier_free_guidance
from gm_jax.types import Array, Batch, Key


def no_label(n: int, num_classes: int | None) -> Array | None:
    """Returns n labels "none"; None for a model without labels."""
    return None if num_classes is None else jnp.full(n, num_classes, jnp.int32)


def training_label(key: Key, batch: Batch, *, num_classes: int | None, drop_label: float) -> Array | None:
    """Returns the labels of a batch, replaced by "none" for a share of the examples; None for a model without labels.

    Raises:
        UserError: the batch has no labels.
    """
    none = no_label(batch["x"].shape[0], num_classes)
    if none is None:
        return None
    if "label" not in batch:
        raise UserError(NO_LABELS)
    return jnp.where(jax.random.bernoulli(key, 1.0 - drop_label, none.shape), batch["label"], none)


def guided_output(
    apply_fn: Callable[[Array, Array, Array | None], Array],
    x_t: Array,
    t: Array,
    label: Array | None,
    *,
    num_classes: int | None,
    weight: float | Array,
) -> Array:
    """Computes a network's output without labels, with labels [B], or guided by (1), with one call for both models.

    Args:
        apply_fn: (x_t, t [B], label [B] or None) -> output [B, ...].
        x_t: [B, ...].
        t: [B].
        label: [B], or None for p(x).
        num_classes: C; None for a model without labels.
        weight: w.
    Returns:
        [B, ...] output.
    """
    none = no_label(x_t.shape[0], num_classes)
    # The value of a weight that is an array is unknown here.
    has_weight = not (isinstance(weight, float) and weight == 0.0)
    if label is not None and none is not None and has_weight:
        twice = (jnp.concatenate(pair) for pair in ((x_t, x_t), (t, t), (label, none)))
        conditional, unconditional = jnp.split(apply_fn(*twice), 2)
        return classifier_free_guidance(conditional, unconditional, weight=weight)
    return apply_fn(x_t, t, none if label is None else label)
