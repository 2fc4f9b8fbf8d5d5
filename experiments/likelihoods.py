"""What a pixel is to a model: choices of a likelihood that experiments share. It is no experiment of its own."""

from typing import TYPE_CHECKING

from gm_jax.errors import UserError

if TYPE_CHECKING:
    from gm_jax.models.autoregressive_networks import PixelLikelihood
    from gm_jax.models.decoder_likelihoods import DecoderLikelihood


def of_decoder(config, spec) -> "tuple[DecoderLikelihood, str | None]":
    """What a VAE's decoder says of the data, and the name of the binarisation where there is one.

    Args:
        config: with the fields decoder, binarization and log_var; where decoder is None the data's own is taken.
        spec: of the data.
    """
    from gm_jax.models import decoder_likelihoods

    decoder = config.decoder or _usual_decoder(spec)
    for flag, value, owner in (
        ("binarization", config.binarization, "bernoulli"),
        ("log-var", config.log_var, "normal"),
    ):
        if value is not None and decoder != owner:
            raise UserError(f"--{flag} is for a {owner} decoder, and that of {spec.name} is {decoder}.")
    if decoder == "normal":
        return decoder_likelihoods.normal(levels=spec.levels, log_var=config.log_var), None
    if spec.levels is None:
        raise UserError(f"a {decoder} decoder is for images with levels, not for {spec.name}: --decoder normal")
    if decoder == "discretized_logistic":
        return decoder_likelihoods.discretized_logistic(levels=spec.levels), None
    return binary(config.binarization, spec)


def of_conditionals(config, spec) -> "tuple[PixelLikelihood, dict]":
    """The distribution of one level given those before it, and what every result must say of it.

    Args:
        config: with the fields output, components and binarization.
        spec: of the data.
    """
    from gm_jax.models import autoregressive_networks

    if config.output == "bernoulli":
        observation, binarization = binary(config.binarization, spec)
        distribution = autoregressive_networks.bernoulli(observation.prepare, levels=spec.levels)
        return distribution, {"binarization": binarization}
    if config.binarization is not None:
        raise UserError(f"--binarization is for --output bernoulli, and this is {config.output}.")
    mixture = config.output == "logistic_mixture"
    make = autoregressive_networks.discretized_logistic_mixture if mixture else autoregressive_networks.categorical
    return make(levels=spec.levels), {}


def binary(binarization: str | None, spec) -> "tuple[DecoderLikelihood, str]":
    """Bernoulli pixels of images made binary, and the name of the way there.

    Args:
        binarization: the way; None for static where the data are binary and dynamic where they are not.
        spec: of the data.
    """
    import jax

    from gm_jax.models import decoder_likelihoods
    from gm_jax.ops import binarization as ops

    name = binarization or ("static" if spec.levels == 2 else "dynamic")
    if (name == "static") != (spec.levels == 2):
        raise UserError(f"{spec.name} has {spec.levels} levels: static binarisation is for binary data, and only it.")
    ways = {
        "static": lambda key, x: ops.static(x),
        "dynamic": lambda key, x: ops.dynamic(x, jax.random.uniform(key, x.shape), levels=spec.levels),
        "threshold": lambda key, x: ops.threshold(x, levels=spec.levels),
    }
    return decoder_likelihoods.bernoulli(ways[name], levels=spec.levels), name


def _usual_decoder(spec) -> str:
    """Points have a density. Grey images are nearly black and white in the sets that VAEs are shown on; colours not."""
    if spec.levels is None:
        return "normal"
    return "bernoulli" if len(spec.shape) == 3 and spec.shape[-1] == 1 else "discretized_logistic"
