"""Configuration to experiment: what a command line or a saved configuration describes, as a model that can be trained.

configs/            the configurations, as data
presets/            published configurations
experiment.py       what a recipe returns
vae.py  autoregressive.py  masked.py  d3pm.py  flow.py  gan.py  diffusion.py  score.py  rbm.py  energy.py
jem.py  one_step.py  minimax_energy.py  text_to_image.py  vq_vae.py   (configuration, data spec) -> Experiment
first_stage.py      autoencoders of latent diffusion
obedience.py        how samples obey their captions
dit.py              diffusion transformers and their text encoders
own_model.py        the recipe of a model that was made in Python
path_samplers.py    samplers on Gaussian paths
likelihoods.py      what a pixel is to a model
labels.py           the classes that a model is conditioned on
run_length.py       defaults that depend on the length of the run
image_shapes.py     what networks for images ask of the data
optimizers.py       optimiser configurations to optax transformations
legacy_configs.py     configurations of runs that older versions have saved

This package, `configs` and `presets` import no jax, so that `--help` answers at once.
"""

import importlib
from typing import TYPE_CHECKING

from gm_jax.config import ExperimentConfig
from gm_jax.recipes import presets
from gm_jax.recipes.run_length import resolved

if TYPE_CHECKING:
    from gm_jax.data.sources import Spec
    from gm_jax.recipes.experiment import Experiment


def build(config: ExperimentConfig, spec: "Spec") -> "Experiment":
    """Builds the experiment that a configuration describes for some data: functions only, nothing is computed yet.

    Args:
        config: the configuration; its `recipe` names the function that builds.
        spec: shape, levels and classes of the data.

    Raises:
        UserError: the configuration does not fit the data, or its fields contradict each other.
    """
    presets.check(config, spec.name, spec.shape)
    module, _, function = config.recipe.partition(":")
    return getattr(importlib.import_module(module), function)(resolved(config), spec)
