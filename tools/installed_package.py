"""Tries the installed package from a folder of its own: `tools/try_wheel.sh` copies this file there and runs it.

It is also what a user's own experiment looks like: a configuration, and `runner.main`.
"""

import importlib
import importlib.metadata
import pkgutil
import sys
from pathlib import Path

import gm_jax
from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import VAEConfig

CONFIG = VAEConfig(
    train=TrainConfig(steps=4, batch_size=16, checkpoint_every=2),
    optimizer=OptimizerConfig(learning_rate=1e-3),
    hidden=(8,),
    latent_dim=2,
    importance_samples=2,
)


def check_modules() -> int:
    """Imports every module of the installed package, and returns how many there are."""
    names = [module.name for module in pkgutil.walk_packages(gm_jax.__path__, "gm_jax.")]
    for name in names:
        importlib.import_module(name)
    return len(names)


def check_run(folder: Path) -> None:
    """Opens the run that this file has trained, and samples from it."""
    run = gm_jax.open_run(folder)
    print(f"opened {folder} at step {run.step}: samples {run.sample(3).shape}")


if __name__ == "__main__":
    home = Path(gm_jax.__file__).parent
    print(f"gm_jax {gm_jax.__version__} of {home}, Python {sys.version.split()[0]}")
    print(f"jax {importlib.metadata.version('jax')}, {check_modules()} modules")
    runner.main(CONFIG)
    check_run(next(Path("runs").iterdir()))
