import numpy as np
import pytest

from gm_jax.data import sources
from gm_jax.errors import UserError
from gm_jax.evaluation import features, frechet, sample_metrics


@pytest.fixture(autouse=True)
def few_subsets(monkeypatch):
    monkeypatch.setattr(sample_metrics, "_SUBSETS", 5)


DIGITS = features.load("digits-cnn")
SPLITS = sources.load("digits").splits


def gathered(x, *, measure="17 levels", **kwargs):
    return sample_metrics.gather(DIGITS, features.as_images(x, DIGITS, levels=17), measure=measure, **kwargs)


def records(real, generated):
    made = sample_metrics.measure(DIGITS, real, generated, data="digits", real_split="train", settings={"step": 3})
    return {record.name.split("[")[0]: record for record in made}


def test_a_padded_last_batch_gives_the_features_of_one_batch():
    x = SPLITS["test"]["x"][:23]
    ragged, whole = gathered(x, batch_size=10), gathered(x, batch_size=23)
    assert len(ragged.features) == len(ragged.log_probs) == int(ragged.moments.count) == 23
    for one, other in zip(ragged[1:], whole[1:], strict=True):
        for a, b in zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]:
            np.testing.assert_allclose(a, b, atol=2e-3, rtol=1e-4)


def test_records_carry_extractor_hash_resize_rule_counts_and_split():
    made = records(gathered(SPLITS["train"]["x"][:120]), gathered(SPLITS["test"]["x"][:100]))
    assert list(made) == ["frechet", "kernel_distance", "precision", "recall", "inception_score", "classes_covered"]
    for name, record in made.items():
        assert record.name == f"{name}[digits-cnn]"
        assert (record.kind, record.data, record.split, record.examples) == ("score", "digits", "train", 100)
        assert record.settings["weights"] == DIGITS.weights
        assert record.settings["resize"] == "none"
        assert record.settings["step"] == 3
        assert record.settings["num_generated"] == 100
        assert record.settings.get("num_real", 120) == 120
    assert 5.0 < made["inception_score"].value <= 10.0
    assert 0.5 < made["precision"].value <= 1.0
    assert (made["classes_covered"].value, made["classes_covered"].unit) == (10.0, "of 10")


def test_samples_that_drop_classes_are_worse_than_real_ones():
    real, test = gathered(SPLITS["train"]["x"][:400]), SPLITS["test"]
    whole = records(real, gathered(test["x"]))
    few = records(real, gathered(test["x"][test["label"] < 4]))
    assert few["frechet"].value > 3 * whole["frechet"].value
    assert few["kernel_distance"].value > 3 * abs(whole["kernel_distance"].value)
    assert few["recall"].value < whole["recall"].value - 0.2
    assert few["inception_score"].value < 4.0
    assert few["classes_covered"].value == 4.0
    assert whole["inception_score"].value > 6.5


def test_the_distance_from_a_set_to_itself_is_zero():
    same = gathered(SPLITS["train"]["x"][:150])
    made = records(same, same)
    assert abs(made["frechet"].value) < 1e-6 * np.trace(np.asarray(same.moments.scatter))
    assert made["precision"].value == made["recall"].value == 1.0


def test_streamed_moments_equal_the_moments_of_the_features():
    some = gathered(SPLITS["test"]["x"][:70], batch_size=32)
    expected = frechet.add_batch(frechet.no_moments(DIGITS.num_features), some.features)
    np.testing.assert_allclose(some.moments.scatter, expected.scatter, rtol=1e-9, atol=1e-9)


def test_too_few_samples_are_refused():
    with pytest.raises(UserError), pytest.warns(UserWarning, match="too few"):
        records(gathered(SPLITS["train"]["x"][:50]), gathered(SPLITS["test"]["x"][:2]))


def test_images_of_two_measures_are_never_compared():
    x = SPLITS["test"]["x"][:20]
    binary = gathered((16 * (x > 8)).astype(np.uint8), measure="binary")
    with pytest.raises(ValueError, match="17 levels and binary images cannot be compared"):
        sample_metrics.scores(gathered(x), binary)
    with pytest.raises(ValueError, match="other values than 0 and 255"):
        gathered(x, measure="binary")


def test_sets_no_larger_than_a_subset_have_no_standard_deviation():
    made = records(gathered(SPLITS["train"]["x"][:120]), gathered(SPLITS["test"]["x"][:100]))
    assert "standard_deviation" not in made["kernel_distance"].settings
    assert made["inception_score"].settings["standard_deviation"] > 0.0
    made = records(gathered(SPLITS["train"]["x"][:1010]), gathered(SPLITS["train"]["x"][-1010:]))
    assert made["kernel_distance"].settings["standard_deviation"] > 0.0


def test_two_arrays_are_compared_in_one_call():
    real, generated = SPLITS["train"]["x"][:120], SPLITS["test"]["x"][:100]
    found = sample_metrics.compare("digits-cnn", real, generated, levels=17, seed=3)
    assert found == sample_metrics.scores(gathered(real), gathered(generated), seed=3)
    assert found == sample_metrics.compare(DIGITS, real, generated, levels=17, seed=3)
    with pytest.raises(UserError, match=r"must have levels 0\.\.1"):
        sample_metrics.compare("digits-cnn", real, generated, levels=2)
    with pytest.raises(UserError, match="no feature extractor 'inceptoin'"):
        sample_metrics.compare("inceptoin", real, generated)
