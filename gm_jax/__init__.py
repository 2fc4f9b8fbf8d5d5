"""Deep generative models in JAX.

`gm_jax.train` trains a model on arrays or on named data, and `gm_jax.open_run` opens a trained run. A subpackage is
imported when it is first used: `import gm_jax; gm_jax.losses.bernoulli_nll`. Importing `gm_jax` itself imports neither
JAX nor any subpackage, so `--help` answers fast and `from gm_jax import losses` stays light.
"""

import importlib
import pkgutil
from typing import Any

_FUNCTIONS = {"open_run": "trained_run", "train": "training_call"}  # of the room `runner`


def __getattr__(name: str) -> Any:
    """Imports a room on first use, and reads the version of the installed package (PEP 562)."""
    if name == "__version__":
        from importlib import metadata  # a tenth of the time of `--help`

        return metadata.version("gm_jax")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"gm_jax.runner.{_FUNCTIONS[name]}"), name)
    if name in _rooms():
        return importlib.import_module(f"gm_jax.{name}")
    raise AttributeError(f"module 'gm_jax' has no attribute {name!r}; it has {', '.join(_names())}.")


def __dir__() -> list[str]:
    """Lists the rooms too, for completion in an interpreter."""
    return sorted([*globals(), *_names()])


def _names() -> list[str]:
    return [*_rooms(), *_FUNCTIONS, "__version__"]


def _rooms() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
