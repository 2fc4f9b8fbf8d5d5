"""Results of torch-fidelity 0.4.0 on shared random features: stored values, and live values if it is installed."""

import hashlib
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from gm_jax.evaluation import frechet, inception_score, kernel_distance, precision_recall
from gm_jax.networks import inception
from gm_jax.ops.resize import bilinear_tf1

# Loaded by path, because torch-fidelity installs a package called `tests`.
_SPEC = importlib.util.spec_from_file_location("_torch_fidelity", Path(__file__).with_name("_torch_fidelity.py"))
oracle = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(oracle)

# Printed by `python tests/evaluation/_torch_fidelity.py` with torch 2.13.0.
GOLDEN = {
    "frechet": 21.95866985467501,
    "kernel": 252.12525043897085,
    "inception_mean": 3.5448392292671875,
    "inception_sd": 0.25568466999865413,
    "precision": 0.7633333206176758,
    "recall": 0.8500000238418579,
}
GOLDEN_INCEPTION = np.load(oracle.GOLDEN_INCEPTION)

needs_torch_fidelity = pytest.mark.skipif(
    importlib.util.find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed (extra benchmarks)"
)


def ours():
    features = oracle.random_features()
    real, generated = features["real"], features["generated"]
    moments = []
    for name in ("real", "generated"):
        stream = frechet.no_moments(16)
        for start in range(0, 300, 100):
            stream = frechet.add_batch(stream, features[name][start : start + 100])
        moments.append(stream)
    score = inception_score.inception_score(special.log_softmax(features["logits"], axis=1), num_splits=10, seed=0)
    shares = precision_recall.precision_recall(real, generated)
    return {
        "frechet": frechet.frechet_distance(*moments),
        "kernel": kernel_distance.kernel_distance(real, generated),
        "inception_mean": score.mean,
        "inception_sd": score.standard_deviation,
        "precision": shares.precision,
        "recall": shares.recall,
    }


def assert_equal(measured, expected):
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(measured[name], value, rtol=1e-6, err_msg=name)


def test_scores_of_shared_features_equal_the_stored_values():
    assert_equal(ours(), GOLDEN)


@needs_torch_fidelity
@pytest.mark.filterwarnings("ignore")
def test_scores_of_shared_features_equal_torch_fidelity():
    assert_equal(ours(), oracle.measured())


def test_resized_images_equal_the_stored_bits():
    images = jnp.asarray(oracle.random_images(), jnp.float32)
    np.testing.assert_array_equal(bilinear_tf1(images, height=9, width=40), GOLDEN_INCEPTION["smaller"])
    whole = bilinear_tf1(images, height=299, width=299)
    assert hashlib.sha256(np.asarray(whole).tobytes()).hexdigest() == str(GOLDEN_INCEPTION["resized_sha256"])
    # A compiler may fuse the product and the sum, which rounds once instead of twice.
    compiled = jax.jit(lambda x: bilinear_tf1(x, height=299, width=299))(images)
    np.testing.assert_allclose(compiled, whole, rtol=1e-6, atol=1e-4)


@pytest.mark.slow
def test_inception_with_random_weights_equals_the_stored_activations():
    params = inception.params_from_tensors(random_tensors())
    images = bilinear_tf1(jnp.asarray(oracle.random_images(), jnp.float32), height=299, width=299)
    outputs = jax.jit(inception.InceptionV3().apply)({"params": params}, images)
    for name in ("features", "logits", "logits_without_bias"):
        measured, expected = np.asarray(getattr(outputs, name)), GOLDEN_INCEPTION[name]
        assert measured.shape == expected.shape
        tolerance = 1e-4 * np.abs(expected).mean()
        np.testing.assert_allclose(measured, expected, rtol=1e-4, atol=tolerance, err_msg=name)


def random_tensors():
    """Returns random tensors with the names and the layout of the checkpoint."""

    def name_and_shape(path, leaf):
        name = ".".join(key.key for key in path)
        name = name.replace("conv.kernel", "conv.weight").replace("fc_", "fc.").replace("fc.kernel", "fc.weight")
        order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(len(leaf.shape), (0,))
        return name, tuple(leaf.shape[axis] for axis in order)

    leaves = jax.tree_util.tree_leaves_with_path(inception.parameter_shapes())
    return {name: oracle.random_tensor(name, shape) for name, shape in (name_and_shape(*x) for x in leaves)}
