"""Label dropout: training hides some labels, so that one network is the conditional and the unconditional model.

A network with C labels has one more, number C, which stands for "no label". The label of a network of text is a
caption, L tokens; "no label" is L tokens of padding, 0.

    guided output:   (1 + w) f(x_t, y) - w f(x_t, none)                                                  (1)

A negative caption takes the place of "none" in (1).

Source: Ho & Salimans, "Classifier-Free Diffusion Guidance", arXiv:2207.12598, eq. 6.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.errors import NO_CAPTIONS, NO_LABELS, UserError
from gm_jax.samplers.guidance import classifier_free_guidance
from gm_jax.types import Array, Batch, Key


def no_label(n: int, num_classes: int | None = None, num_tokens: int | None = None) -> Array | None:
    """Returns n labels "none", [n], or n empty captions [n, L]; None for a model without labels."""
    if num_tokens is not None:
        return jnp.zeros((n, num_tokens), jnp.int32)
    return None if num_classes is None else jnp.full(n, num_classes, jnp.int32)


def training_label(
    key: Key, batch: Batch, *, num_classes: int | None, drop_label: float, num_tokens: int | None = None
) -> Array | None:
    """Returns the labels of a batch, replaced by "none" for a share of the examples; None for a model without labels.

    Raises:
        UserError: the batch has no labels, or no captions.
    """
    none = no_label(batch["x"].shape[0], num_classes, num_tokens)
    if none is None:
        return None
    name, message = ("label", NO_LABELS) if num_tokens is None else ("tokens", NO_CAPTIONS)
    if name not in batch:
        raise UserError(message)
    is_kept = jax.random.bernoulli(key, 1.0 - drop_label, none.shape[:1])
    return jnp.where(is_kept if num_tokens is None else is_kept[:, None], batch[name], none)


def guided_output(
    apply_fn: Callable[[Array, Array, Array | None], Array],
    x_t: Array,
    t: Array,
    label: Array | None,
    *,
    num_classes: int | None,
    weight: float | Array,
    num_tokens: int | None = None,
    negative: Array | None = None,
    guide: Callable[..., Array] = classifier_free_guidance,
) -> Array:
    """Computes a network's output without labels, with labels [B], or guided by (1), with one call for both models.

    Args:
        apply_fn: (x_t, t [B], label [B] or None) -> output [B, ...].
        x_t: [B, ...].
        t: [B].
        label: [B], captions [B, L], or None for p(x).
        num_classes: C; None for a model without labels.
        weight: w.
        num_tokens: L; None for a model without captions.
        negative: a caption [L] in place of "none" in (1).
        guide: (conditional, unconditional, weight=w) -> output; (1) by default.
    Returns:
        [B, ...] output.
    """
    none = no_label(x_t.shape[0], num_classes, num_tokens)
    # The value of a weight that is an array is unknown here.
    has_weight = not (isinstance(weight, float) and weight == 0.0)
    if label is not None and none is not None and has_weight:
        other = none if negative is None else jnp.broadcast_to(negative[None], none.shape)
        twice = (jnp.concatenate(pair) for pair in ((x_t, x_t), (t, t), (label, other)))
        conditional, unconditional = jnp.split(apply_fn(*twice), 2)
        return guide(conditional, unconditional, weight=weight)
    return apply_fn(x_t, t, none if label is None else label)
