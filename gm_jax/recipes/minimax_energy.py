"""The recipe of energies that are trained against a generator."""

from gm_jax.data.sources import Spec
from gm_jax.models.minimax_energy import MinimaxEnergyModel
from gm_jax.recipes.configs.energy import ChainsConfig, MinimaxEBMConfig
from gm_jax.recipes.energy import density_picture, energy_model, measured, small_flow
from gm_jax.recipes.experiment import Experiment, LogProbEvaluation
from gm_jax.recipes.optimizers import make_adam


def build_minimax_ebm(config: MinimaxEBMConfig, spec: Spec) -> Experiment:
    """Builds an energy and a flow as two players; checkpoints are chosen by the computed log Z.

    Raises:
        UserError: the data have one dimension.
    """
    energy = energy_model(config, spec, ChainsConfig(persistent=0))
    family = MinimaxEnergyModel(
        energy=energy,
        generator=small_flow(spec),
        energy_every=config.generator_steps,
        slope_penalty=config.slope_penalty,
        num_samples=config.bound_samples,
    )
    of_energy = measured(config, energy, spec)
    with_log_z = LogProbEvaluation("nll_with_computed_log_z", energy.log_prob)
    steps = config.train.steps
    return Experiment(
        family.model,
        family=family,
        optimizers={
            "generator": make_adam(config.generator, num_updates=steps, section="generator"),
            "energy": make_adam(config.energy, num_updates=steps // config.generator_steps, section="energy"),
        },
        pictures=density_picture(config, energy, spec),
        **{
            **of_energy,
            "evaluations": (with_log_z, *of_energy["evaluations"]),
            "prepare_evaluation": family.calibrate,
            # The bound of the generator flatters more the poorer the generator is.
            "validation": of_energy["validation"] or energy.log_prob,
        },
    )
