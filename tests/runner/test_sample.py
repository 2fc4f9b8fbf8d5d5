"""What `sample` asks of a model by name; that it draws and writes is in test_evaluate.py."""

from types import SimpleNamespace

import numpy as np
import pytest

from gm_jax.errors import UserError, refuse_options
from gm_jax.runner import cli, sample


def opened(draw, num_classes=10):
    spec = SimpleNamespace(name="digits", num_classes=num_classes)
    return SimpleNamespace(spec=spec, experiment=SimpleNamespace(model=SimpleNamespace(sample=draw)))


def at_a_temperature(params, model_state, key, n, *, label=None, temperature=1.0):
    raise AssertionError("nothing is drawn here")


def at_one(params, model_state, key, n, *, label=None):
    raise AssertionError("nothing is drawn here")


def asked(run, **flags):
    return sample._settings(run, cli.SampleArgs("run", num=4, **flags))


def test_a_label_is_that_of_every_sample_and_a_temperature_is_handed_on():
    assert asked(opened(at_a_temperature)) == {}
    found = asked(opened(at_a_temperature), label=9, temperature=0.5)
    assert sorted(found) == ["label", "temperature"]
    assert found["temperature"] == 0.5
    np.testing.assert_array_equal(found["label"], np.full(4, 9))
    assert found["label"].dtype == np.int32


def test_a_model_without_labels_or_a_temperature_says_so():
    refuse_options(label=None, temperature=None)
    with pytest.raises(UserError, match="cannot be sampled at a temperature"):
        refuse_options(label=None, temperature=0.5)
    with pytest.raises(UserError, match="no labels"):
        refuse_options(label=np.zeros(3))


@pytest.mark.parametrize(
    ("run", "flags", "message"),
    [
        (opened(at_one), {"label": 10}, "digits has 10 classes"),
        (opened(at_one, num_classes=None), {"label": 0}, "digits has 0 classes"),
    ],
)
def test_what_there_is_not_is_the_users_mistake(run, flags, message):
    with pytest.raises(UserError, match=message):
        asked(run, **flags)
