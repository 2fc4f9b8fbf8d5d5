"""The recipe of classifiers that are energy-based models."""

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.evaluation.calibration import accuracy, expected_calibration_error
from gm_jax.losses.energy import energy_from_logits
from gm_jax.models.jem import JointEnergyModel
from gm_jax.plotting import energy as plotting
from gm_jax.recipes.configs.energy import JEMConfig
from gm_jax.recipes.energy import density_picture, energy_model, measured
from gm_jax.recipes.experiment import ClassEvaluation, Experiment
from gm_jax.recipes.optimizers import make_optimizer


def build_jem(config: JEMConfig, spec: Spec) -> Experiment:
    """Builds a classifier and the energy of its inputs; chains at another temperature leave it without a likelihood.

    Raises:
        UserError: the data have no labels, or the persistent chains are not a multiple of the batch.
    """
    if spec.num_classes is None:
        raise UserError(f"{spec.name} has no labels to classify: choose another --data.name.")
    has_likelihood = config.chains.temperature == 1.0 and config.chains.clip_gradient is None
    energy = energy_model(
        config,
        spec,
        config.chains,
        penalty=config.penalty,
        has_likelihood=has_likelihood,
        num_classes=spec.num_classes,
        to_energy=energy_from_logits,
    )
    family = JointEnergyModel(energy=energy, num_classes=spec.num_classes, class_weight=config.class_weight)
    of_energy = measured(config, energy, spec)
    classes = ClassEvaluation(
        units={"accuracy": "share", "expected_calibration_error": "share"},
        predict=family.class_log_probs,
        measure=lambda log_probs, labels: {
            "accuracy": accuracy(log_probs, labels),
            "expected_calibration_error": expected_calibration_error(log_probs, labels),
        },
    )
    return Experiment(
        family.model,
        family=family,
        optimizers={"energy": make_optimizer(config.optimizer, num_steps=config.train.steps)},
        pictures={
            **plotting.grids(energy, spec.shape),
            **plotting.class_grids(family, spec.shape),
            **density_picture(config, energy, spec),
        },
        uses_labels=True,
        **{**of_energy, "evaluations": (classes, *of_energy["evaluations"])},
    )
