"""The oracle torch-fidelity on fixed random features and images, and the script that stores its values.

    pip install torch==2.13.0 && pip install --no-deps torch-fidelity==0.4.0
    python tests/evaluation/_torch_fidelity.py     # prints GOLDEN of test_torch_fidelity.py, writes GOLDEN_INCEPTION

torch-fidelity imports torchvision, which nothing here uses: if it is not installed, empty modules replace it.
"""

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import math
import sys
import tempfile
import types
import zlib
from pathlib import Path

import numpy as np

GOLDEN_INCEPTION = Path(__file__).with_name("golden_inception.npz")


def random_features() -> dict[str, np.ndarray]:
    """Returns correlated features of 300 real and 300 generated examples with non-zero means, and 300 logits."""
    rng = np.random.default_rng(8)
    mix = rng.normal(size=(16, 16))
    real = rng.normal(size=(300, 16)) @ mix + 2.0
    generated = rng.normal(size=(300, 16)) @ (mix + 0.3 * rng.normal(size=(16, 16))) + 2.3
    return {"real": real, "generated": generated, "logits": 3.0 * rng.normal(size=(300, 10))}


def random_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a random tensor for a name in the checkpoint, scaled so that activations neither grow nor vanish."""
    normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    match name.split(".")[-1]:
        case "running_var":
            return 0.5 + normal**2
        case "weight" if len(shape) > 1:
            return normal * np.float32(math.sqrt(2.0 / math.prod(shape[1:])))
        case "weight":
            return 1.0 + 0.1 * normal
        case _:
            return 0.1 * normal


def random_images() -> np.ndarray:
    """Returns two colour images [2, 20, 33, 3] uint8: one of noise and one smooth."""
    noise = np.random.default_rng(3).integers(0, 256, (20, 33, 3))
    rows, columns, channels = np.indices((20, 33, 3))
    smooth = 127.5 + 127.5 * np.sin(rows / 4 + columns / 7 + channels)
    return np.stack([noise, smooth]).astype(np.uint8)


def package():
    """Imports torch-fidelity, with or without torchvision."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_StandIn())
    import torch_fidelity

    return torch_fidelity


def measured() -> dict[str, float]:
    """Computes every score of the random features with torch-fidelity."""
    package()
    import torch
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    features = random_features()
    real, generated, logits = (torch.from_numpy(features[name]) for name in ("real", "generated", "logits"))
    statistics = [metric_fid.fid_features_to_statistics(x) for x in (real, generated)]
    # One subset holds each whole set, so that nothing is random; our shuffle makes the splits agree.
    kid = metric_kid.kid_features_to_metric(
        real, generated, kid_subsets=1, kid_subset_size=300, kid_kernel="poly", verbose=False
    )
    shuffled = logits[np.random.default_rng(0).permutation(300)]
    isc = metric_isc.isc_features_to_metric(shuffled, splits=10, shuffle=False)
    prc = metric_prc.prc_features_to_metric(
        generated, real, prc_neighborhood=3, prc_batch_size=1000, save_cpu_ram=False, verbose=False
    )
    return {
        "frechet": metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"],
        "kernel": kid["kernel_inception_distance_mean"],
        "inception_mean": isc["inception_score_mean"],
        "inception_sd": isc["inception_score_std"],
        "precision": prc["precision"],
        "recall": prc["recall"],
    }


def inception_outputs() -> dict[str, np.ndarray]:
    """Computes resized images, and Inception activations with random weights, with torch-fidelity."""
    fidelity = package()
    import torch
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    names = ["2048", "logits", "logits_unbiased"]
    with torch.device("meta"):
        shapes = _state_shapes(fidelity.FeatureExtractorInceptionV3)
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save({name: torch.from_numpy(random_tensor(name, shape)) for name, shape in shapes.items()}, file.name)
        extractor = fidelity.FeatureExtractorInceptionV3("x", names, feature_extractor_weights_path=file.name)
    images = torch.from_numpy(random_images()).permute(0, 3, 1, 2)
    features, logits, without_bias = (leaf.numpy() for leaf in extractor(images))

    def resized(height, width):
        out = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(height, width), align_corners=False)
        return np.ascontiguousarray(out.permute(0, 2, 3, 1).numpy())

    return {
        "smaller": resized(9, 40),
        "resized_sha256": np.array(hashlib.sha256(resized(299, 299)).hexdigest()),
        "features": features,
        "logits": logits,
        "logits_without_bias": without_bias,
    }


def _state_shapes(extractor_type) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of its tensors; the constructor is stopped before it loads them."""
    shapes: dict[str, tuple[int, ...]] = {}

    class Found(Exception):
        pass

    class Shapes(extractor_type):
        def load_state_dict(self, state):
            shapes.update({name: tuple(t.shape) for name, t in self.state_dict().items() if t.dtype.is_floating_point})
            raise Found

    import torch

    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save({}, file.name)
        try:
            Shapes("x", ["2048"], feature_extractor_weights_path=file.name)
        except Found:
            return shapes
    raise AssertionError("the constructor loaded no tensors")


class _StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchvision and all its submodules, as modules that have every attribute."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Anything(spec.name)

    def exec_module(self, module):
        pass


class _Anything(types.ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


if __name__ == "__main__":
    for name, value in measured().items():
        print(f'    "{name}": {value!r},')
    np.savez_compressed(GOLDEN_INCEPTION, **inception_outputs())
    print(f"{GOLDEN_INCEPTION}: {GOLDEN_INCEPTION.stat().st_size:,} bytes")
