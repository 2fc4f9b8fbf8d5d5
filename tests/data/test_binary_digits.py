import numpy as np
from scipy import stats

from gm_jax.data import binary_digits, sources
from gm_jax.evaluation import enumeration


def test_binarized_digits_threshold_the_digits_at_the_middle_level():
    grey, binary = sources.load("digits"), sources.load("binarized_digits")
    assert binary.spec[:4] == ("binarized_digits", (8, 8, 1), 2, 10)
    assert binary.spec.measure == "binary"
    for split, arrays in binary.splits.items():
        assert arrays["x"].dtype == np.uint8
        np.testing.assert_array_equal(arrays["x"], grey.splits[split]["x"] > 8)
        np.testing.assert_array_equal(arrays["label"], grey.splits[split]["label"])


def test_the_small_world_is_drawn_from_its_probabilities():
    spec, splits = sources.load("digits4x4")
    assert spec[:4] == ("digits4x4", (4, 4, 1), 2, 10)
    p = binary_digits.small_world_probabilities()
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-12)
    for split, count in binary_digits.NUM_EXAMPLES.items():
        x = splits[split]["x"]
        assert len(x) == len(splits[split]["label"]) == count
        seen = enumeration.frequencies(x)
        assert not np.any((seen > 0) & (p == 0))
        mean, deviation = enumeration.expected_total_variation(p, count)
        assert abs(enumeration.total_variation(seen, p) - mean) < 5 * deviation


def test_splits_of_the_small_world_are_different_draws():
    splits = sources.load("digits4x4").splits
    assert not np.array_equal(splits["train"]["x"][:1000], splits["test"]["x"][:1000])


def test_the_probabilities_are_counts_of_scikit_learn_digits():
    from sklearn.datasets import load_digits

    p = binary_digits.small_world_probabilities()
    image = load_digits().images[7]
    bits = [image[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].sum() > 32 for r in range(4) for c in range(4)]
    index = sum(2**i for i, bit in enumerate(bits) if bit)
    assert p[index] >= 1 / 1797
    np.testing.assert_allclose(p * 1797, np.round(p * 1797), atol=1e-9)
    # Rich enough for a model: the entropy is far from that of a single state and from that of fair coins.
    assert 4.0 < stats.entropy(p) < 0.7 * 16 * np.log(2)


def test_both_sources_keep_their_fingerprints():
    # A change here changes the data behind every number of tools/compare.py.
    fingerprints = [sources.load(name).spec.fingerprint[:16] for name in binary_digits.NAMES]
    assert fingerprints == ["5bd395110eb39730", "812a78eda1b1c06f"]
