from gm_jax.comparison import families, measure
from gm_jax.data.sources import Spec

SPECS = {
    "binarized_digits": Spec("binarized_digits", (8, 8, 1), 2, 10, ""),
    "toy:two_moons": Spec("toy:two_moons", (2,), None, None, ""),
    "digits4x4": Spec("digits4x4", (4, 4, 1), 2, None, ""),
}


def count(name, data):
    row = next(row for row in families.table() if row.name == name)
    return row.evaluations(measure.configured(row, data, seed=0), SPECS[data])


def test_every_family_states_the_evaluations_of_a_sample():
    expected = {"VAE": 1, "GAN": 1, "NICE": 1, "PixelCNN": 64, "MADE": 64, "DDPM": 50, "latent diffusion": 51}
    expected |= {"masked diffusion": 64, "D3PM": 100}
    expected |= {"score SDE": 15, "flow matching": 20, "EDM": 35, "MeanFlow": 1, "consistency model": 1}
    expected |= {"RBM": 1000, "EBM": 200, "JEM": 200}
    assert {name: count(name, "binarized_digits") for name in expected} == expected
    assert count("DDPM", "digits4x4") == 25
    assert count("EBM", "toy:two_moons") == 500
    assert all(
        count(row.name, data) >= 1
        for row in families.table()
        for data in SPECS
        if measure.kind_of(data) in row.settings
    )
