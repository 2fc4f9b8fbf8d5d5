"""Likelihoods of pixels that several recipes share."""

from typing import Any

import jax
import jax.numpy as jnp

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.models import autoregressive_networks, decoder_likelihoods
from gm_jax.ops import binarization as ops
from gm_jax.recipes.experiment import Observation
from gm_jax.recipes.image_shapes import is_image, num_levels


def decoder_likelihood(
    spec: Spec, *, decoder: str | None, binarization: str | None = None, log_var: float | None = None
) -> tuple[decoder_likelihoods.DecoderLikelihood, dict[str, Any]]:
    """Returns p(x|z) of a VAE, and the facts that its results must carry.

    Args:
        spec: of the data.
        decoder: "bernoulli", "normal", "discretized_logistic", or None for the usual one of such data.
        binarization: for bernoulli, as in `binary`.
        log_var: for normal, a fixed log-variance; None for a learned one.

    Raises:
        UserError: an argument is given that the decoder does not have, or the decoder does not fit the data.
    """
    decoder = decoder or _usual_decoder(spec)
    for flag, value, owner in (("binarization", binarization, "bernoulli"), ("log-var", log_var, "normal")):
        if value is not None and decoder != owner:
            raise UserError(
                f"--{flag} has no effect on the {decoder} decoder of {spec.name}: leave it out, or use --decoder "
                f"{owner}."
            )
    if decoder == "normal":
        return decoder_likelihoods.normal(levels=spec.levels, log_var=log_var), {}
    if spec.levels is None:
        raise UserError(f"{spec.name} has no levels, which a {decoder} decoder needs: use --decoder normal.")
    if decoder == "discretized_logistic":
        return decoder_likelihoods.discretized_logistic(levels=spec.levels), {}
    return binary(spec, binarization)


def pixel_likelihood(
    spec: Spec, *, output: str, components: int, binarization: str | None
) -> tuple[autoregressive_networks.PixelLikelihood, dict[str, Any]]:
    """Returns the distribution of one level given the levels before it, and the facts that its results must carry.

    Args:
        spec: of the data.
        output: "bernoulli", "categorical" or "logistic_mixture".
        components: of the mixture.
        binarization: for bernoulli, as in `binary`.

    Raises:
        UserError: binarization is given for another output.
    """
    if output == "bernoulli":
        observation, facts = binary(spec, binarization)
        return autoregressive_networks.bernoulli(observation.prepare, levels=num_levels(spec)), facts
    if binarization is not None:
        raise UserError(
            f"--binarization has no effect with --output {output}: leave it out, or use --output bernoulli."
        )
    mixture = output == "logistic_mixture"
    make = autoregressive_networks.discretized_logistic_mixture if mixture else autoregressive_networks.categorical
    return make(levels=num_levels(spec)), {}


def binary(spec: Spec, binarization: str | None) -> tuple[decoder_likelihoods.DecoderLikelihood, dict[str, Any]]:
    """Returns Bernoulli pixels of images made binary, and the facts that their results must carry.

    Args:
        spec: of the data.
        binarization: "static", "dynamic" or "threshold"; None for static if the data are binary, else dynamic if they
            are images, whose levels can be read as probabilities.

    Raises:
        UserError: the data have no levels, or None is given for other data than these, or static is asked of data that
            are not binary, or another way of data that are.
    """
    levels = num_levels(spec)
    if binarization is None and levels != 2 and not is_image(spec):
        raise UserError(
            f"{spec.name} is not made of pixels, so that its {levels} levels are not probabilities: choose a "
            "--data.name of images, or --binarization threshold to cut the levels at half."
        )
    name = binarization or ("static" if levels == 2 else "dynamic")
    if (name == "static") != (levels == 2):
        other = "static" if levels == 2 else "dynamic"
        raise UserError(
            f"--binarization {name} does not fit {spec.name}, which has {levels} levels: static is for binary "
            f"data, and only for them. Use --binarization {other}."
        )
    ways = {
        "static": lambda key, x: ops.static(x),
        "dynamic": lambda key, x: ops.dynamic(x, jax.random.uniform(key, x.shape), levels=levels),
        "threshold": lambda key, x: ops.threshold(x, levels=levels),
    }
    return decoder_likelihoods.bernoulli(ways[name], levels=levels), {"binarization": name}


def observation(
    likelihood: decoder_likelihoods.DecoderLikelihood | autoregressive_networks.PixelLikelihood, spec: Spec
) -> Observation | None:
    """Returns what samples of a model with this likelihood are compared with; None for the data as shipped."""
    if likelihood.measure != "binary":
        return None
    highest = num_levels(spec) - 1
    return Observation(lambda key, x: (highest * likelihood.prepare(key, x)).astype(jnp.uint8), "binary")


def _usual_decoder(spec: Spec) -> str:
    """Returns normal for points, bernoulli for grey images (VAEs are usually shown on binarised ones)."""
    if spec.levels is None:
        return "normal"
    return "bernoulli" if len(spec.shape) == 3 and spec.shape[-1] == 1 else "discretized_logistic"
