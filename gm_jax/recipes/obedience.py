"""How samples obey their captions, as an evaluation of a recipe."""

from collections.abc import Mapping

import numpy as np

from gm_jax.evaluation import obedience
from gm_jax.models.latent_diffusion import LatentDiffusion
from gm_jax.recipes.experiment import CaptionEvaluation, Measured
from gm_jax.types import Array, Key, ModelState, Params

_SETS = ("obedience_seen", "obedience_held_out", "ceiling", "reconstructed", "floor")


def obedience_evaluation(family: LatentDiffusion, *, num_samples: int) -> CaptionEvaluation:
    """Returns the rates at which samples obey their captions, by attribute.

    Names are SET_ATTRIBUTE, with the attributes of `evaluation.obedience`, of five sets: samples whose captions have
    combinations of training only (obedience_seen), samples whose captions have a held-out one (obedience_held_out), the
    data themselves (ceiling), what the autoencoder makes of them (reconstructed), and samples with shuffled captions
    (floor).
    """

    def measure(drawn: np.ndarray, tokens: np.ndarray, x: np.ndarray, kept: np.ndarray) -> Mapping[str, Measured]:
        of_samples = obedience.obedience(drawn, tokens)
        rates = {
            "obedience_seen": of_samples["seen"],
            "obedience_held_out": of_samples["held_out"],
            "ceiling": obedience.obedience(x, tokens)["all"],
            "reconstructed": obedience.obedience(kept, tokens)["all"],
            "floor": obedience.floor(drawn, tokens)["all"],
        }
        return {
            f"{name}_{attribute}": Measured(rate.rate, rate.standard_error, rate.count)
            for name, of in rates.items()
            for attribute, rate in of.items()
        }

    def reconstruct(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        return family.edit(params, model_state, key, x, strength=0.0)

    units = {f"{name}_{attribute}": "share" for name in _SETS for attribute in obedience.ATTRIBUTES}
    return CaptionEvaluation(units, measure, reconstruct, num_samples)
