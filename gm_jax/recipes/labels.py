"""The classes that a model is conditioned on."""

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError


def num_classes(spec: Spec) -> int:
    """Returns how many classes the data have, for a model with --conditional.

    Raises:
        UserError: the data have no labels.
    """
    if spec.num_classes is None:
        raise UserError(f"{spec.name} has no labels to condition on: use --no-conditional.")
    return spec.num_classes
