"""The field that says which preset a configuration comes from."""

from typing import Annotated

from tyro.conf import Suppress

from gm_jax.config import Added, Neutral

# "EXPERIMENT/NAME", such as "ddpm/cifar10". The flag --preset chooses the whole configuration and is not this field.
PresetName = Annotated[str | None, Neutral, Added(None), Suppress]
