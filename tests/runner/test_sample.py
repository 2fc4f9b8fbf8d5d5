"""The options that `sample` passes to a model; test_evaluate.py tests that it draws and writes."""

from pathlib import Path

import numpy as np
import pytest

from experiments import ncsn
from gm_jax.data import captions
from gm_jax.data.sources import Spec
from gm_jax.errors import UserError, refuse_options
from gm_jax.runner import draw, sample, samples
from gm_jax.runner.run import assemble

DIGITS, UNLABELLED = (Spec("digits", (8, 8, 1), 17, classes, "") for classes in (10, None))


def options(spec, **flags):
    return sample.sample_options(spec, sample.SampleArgs(workdir=Path("run"), num=4, **flags))


def test_a_label_is_the_label_of_every_sample_and_a_temperature_is_passed_on():
    assert options(DIGITS) == {}
    found = options(DIGITS, label=9, temperature=0.5)
    assert sorted(found) == ["label", "temperature"]
    assert found["temperature"] == 0.5
    np.testing.assert_array_equal(found["label"], np.full(4, 9))
    assert found["label"].dtype == np.int32


def test_a_model_without_labels_or_a_temperature_refuses_them():
    refuse_options(label=None, temperature=None)
    with pytest.raises(UserError, match="cannot be sampled at a temperature"):
        refuse_options(label=None, temperature=0.5)
    with pytest.raises(UserError, match="no labels"):
        refuse_options(label=np.zeros(3))


@pytest.mark.parametrize(
    ("spec", "label", "message"),
    [
        (DIGITS, 10, "--label 10 does not exist: digits has 10 classes; use a label from 0 to 9"),
        (UNLABELLED, 0, "digits has 0 classes; leave --label out"),
    ],
)
def test_a_label_that_does_not_exist_is_refused(spec, label, message):
    with pytest.raises(UserError, match=message):
        options(spec, label=label)


@pytest.mark.parametrize(
    ("command", "name"), [("experiments.ncsn", "ncsn"), ("my_model", "my_model"), ("", "score")], ids=str
)
def test_a_picture_names_the_experiment_and_not_its_recipe(command, name):
    run = assemble(ncsn.CONFIG, Path("run"))._replace(command=command)
    assert draw.describe(run, 2_000) == f"{name} on digits, step 2,000"


CAPTIONS = Spec("captions", (32, 32, 3), 256, None, "", tokens=12, vocabulary=35)


def test_a_prompt_is_the_tokens_of_every_sample_or_of_each():
    one = options(CAPTIONS, prompt="a red two")["label"]
    assert (one.shape, one.dtype) == ((4, 12), np.int32)
    np.testing.assert_array_equal(one, np.stack([captions.encode("a red two")] * 4))
    each = samples.prompt_rows(CAPTIONS, ["a red two", "a blue one"], 2)
    assert [captions.decode(row) for row in each] == ["a red two", "a blue one"]
    with pytest.raises(UserError, match="there are 2 prompts for 3 samples"):
        samples.prompt_rows(CAPTIONS, ["a red two", "a blue one"], 3)


@pytest.mark.parametrize(
    ("spec", "flags", "message"),
    [
        (CAPTIONS, {"prompt": " "}, "the prompt is empty"),
        (CAPTIONS, {"prompt": "a " * 13}, "13 words: give at most 12"),
        (CAPTIONS, {"prompt": "a purpel seven"}, "purpel"),
        (CAPTIONS, {"prompt": "a red two", "label": 1}, "leave one out"),
        (DIGITS, {"prompt": "a red two"}, "--prompt needs a run on captions, and digits has none"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(spec, flags, message):
    with pytest.raises(UserError, match=message):
        options(spec, **flags)
