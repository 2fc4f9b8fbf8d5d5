import pytest

from gm_jax.data import sources
from gm_jax.data.known_sets import KNOWN_SETS
from gm_jax.recipes import presets
from tests.data.test_real_tfds_sets import REAL, needs


def test_the_data_of_every_preset_are_known():
    for preset in presets.PRESETS.values():
        assert KNOWN_SETS[preset.config.data.name].shape == preset.shape


def test_a_known_set_holds_images_of_levels_or_of_latents():
    for name, known in KNOWN_SETS.items():
        assert len(known.shape) == 3, name
        assert known.levels == {"binarized_mnist": 2, "imagenet256_latents": None}.get(name, 256), name


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in ("mnist", "binarized_mnist")])
def test_a_known_set_is_as_the_prepared_one(name):
    spec, known = sources.load(name, str(REAL)).spec, KNOWN_SETS[name]
    assert (spec.shape, spec.levels, spec.num_classes) == tuple(known)
