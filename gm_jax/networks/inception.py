"""Inception v3 as the FID knows it: the graph of 2015-12-05, not the network of today's libraries.

It departs from the paper, and from every other Inception v3, in four places, and a Frechet distance without them is not
the FID of the literature:

* the classifier has 1,008 outputs, and the Inception Score takes them without the bias;
* average pools do not count their padding;
* the last block pools by the maximum where the one before it pools by the average;
* normalisation adds 0.001 to the variance.

Images come as floats 0..255 of 299x299 (`ops.resize.bilinear_tf1`), and are scaled by (x - 128) / 128. Names of modules
are those of the public checkpoint (`pt_inception-2015-12-05-6726825d.pth`), so that its tensors find their places by
name: `params_from_tensors`.

Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, arXiv:1512.00567; the
    graph: Salimans et al. (2016) and Heusel et al. (2017).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.types import Array, PyTree

SIDE = 299
NUM_FEATURES = 2048
NUM_OUTPUTS = 1008
_EPSILON = 0.001


class InceptionOutputs(NamedTuple):
    """What is measured of an image.

    Attributes:
        features: [B, 2048], the mean over positions of the last block: of FID, KID, precision and recall.
        logits: [B, 1008].
        logits_without_bias: [B, 1008], of the Inception Score.
    """

    features: Array
    logits: Array
    logits_without_bias: Array


class InceptionV3(nn.Module):
    """The whole network, for inference: images [B, 299, 299, 3] in 0..255 -> InceptionOutputs."""

    @nn.compact
    def __call__(self, x: Array) -> InceptionOutputs:
        x = (x - 128.0) / 128.0
        x = Convolution(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = Convolution(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = Convolution(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = _halve(x)
        x = Convolution(80, (1, 1), name="Conv2d_3b_1x1")(x)
        x = Convolution(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x)
        x = _halve(x)
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = BlockA(pooled, name=name)(x)
        x = BlockB(name="Mixed_6a")(x)
        for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = BlockC(width, name=name)(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(average_pool, name="Mixed_7b")(x)
        x = BlockE(partial(nn.max_pool, window_shape=(3, 3), padding="SAME"), name="Mixed_7c")(x)
        features = jnp.mean(x, axis=(1, 2))
        kernel = self.param("fc_kernel", nn.initializers.lecun_normal(), (NUM_FEATURES, NUM_OUTPUTS))
        bias = self.param("fc_bias", nn.initializers.zeros, (NUM_OUTPUTS,))
        logits = features @ kernel
        return InceptionOutputs(features, logits + bias[None], logits)


class Convolution(nn.Module):
    """Convolution without a bias, normalisation by fixed moments, ReLU.

    Attributes:
        features: channels.
        size: of the kernel.
        stride: both ways.
        padding: "SAME" or "VALID".
    """

    features: int
    size: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        strides = (self.stride, self.stride)
        x = nn.Conv(self.features, self.size, strides, self.padding, use_bias=False, name="conv")(x)
        return nn.relu(FixedNorm(name="bn")(x))


class FixedNorm(nn.Module):
    """Normalisation of channels by moments that are parameters: a batch normalisation that has been trained."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        parts = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones}
        weight, bias, mean, var = (
            self.param(name, init, (x.shape[-1],))[None, None, None] for name, init in parts.items()
        )
        return (x - mean) * (jax.lax.rsqrt(var + _EPSILON) * weight) + bias


def average_pool(x: Array) -> Array:
    """Means of 3x3 neighbourhoods, of fewer values at the border: padding does not count."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


class BlockA(nn.Module):
    """35x35: kernels of 1, 5 and twice 3, and a pool.

    Attributes:
        pooled: channels of the pool's branch.
    """

    pooled: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        one = Convolution(64, (1, 1), name="branch1x1")(x)
        five = Convolution(48, (1, 1), name="branch5x5_1")(x)
        five = Convolution(64, (5, 5), name="branch5x5_2")(five)
        three = Convolution(64, (1, 1), name="branch3x3dbl_1")(x)
        three = Convolution(96, (3, 3), name="branch3x3dbl_2")(three)
        three = Convolution(96, (3, 3), name="branch3x3dbl_3")(three)
        pool = Convolution(self.pooled, (1, 1), name="branch_pool")(average_pool(x))
        return jnp.concatenate([one, five, three, pool], axis=-1)


class BlockB(nn.Module):
    """35x35 to 17x17."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        three = Convolution(384, (3, 3), 2, "VALID", name="branch3x3")(x)
        double = Convolution(64, (1, 1), name="branch3x3dbl_1")(x)
        double = Convolution(96, (3, 3), name="branch3x3dbl_2")(double)
        double = Convolution(96, (3, 3), 2, "VALID", name="branch3x3dbl_3")(double)
        return jnp.concatenate([three, double, _halve(x)], axis=-1)


class BlockC(nn.Module):
    """17x17: kernels of 7, each as a row and a column.

    Attributes:
        width: channels inside the branches.
    """

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        row, column = (1, 7), (7, 1)
        one = Convolution(192, (1, 1), name="branch1x1")(x)
        seven = x
        for index, (width, size) in enumerate(((self.width, (1, 1)), (self.width, row), (192, column)), 1):
            seven = Convolution(width, size, name=f"branch7x7_{index}")(seven)
        double = x
        for index, size in enumerate(((1, 1), column, row, column, row), 1):
            width = 192 if index == 5 else self.width
            double = Convolution(width, size, name=f"branch7x7dbl_{index}")(double)
        pool = Convolution(192, (1, 1), name="branch_pool")(average_pool(x))
        return jnp.concatenate([one, seven, double, pool], axis=-1)


class BlockD(nn.Module):
    """17x17 to 8x8."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        three = Convolution(192, (1, 1), name="branch3x3_1")(x)
        three = Convolution(320, (3, 3), 2, "VALID", name="branch3x3_2")(three)
        seven = Convolution(192, (1, 1), name="branch7x7x3_1")(x)
        seven = Convolution(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = Convolution(192, (7, 1), name="branch7x7x3_3")(seven)
        seven = Convolution(192, (3, 3), 2, "VALID", name="branch7x7x3_4")(seven)
        return jnp.concatenate([three, seven, _halve(x)], axis=-1)


class BlockE(nn.Module):
    """8x8: kernels of 3 that end as a row and a column side by side.

    Attributes:
        pool: of the last branch; the one thing in which the two blocks of this kind differ.
    """

    pool: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        one = Convolution(320, (1, 1), name="branch1x1")(x)
        three = Convolution(384, (1, 1), name="branch3x3_1")(x)
        double = Convolution(448, (1, 1), name="branch3x3dbl_1")(x)
        double = Convolution(384, (3, 3), name="branch3x3dbl_2")(double)
        split = [
            Convolution(384, size, name=name)(branch)
            for branch, stem in ((three, "branch3x3_2"), (double, "branch3x3dbl_3"))
            for size, name in (((1, 3), stem + "a"), ((3, 1), stem + "b"))
        ]
        pool = Convolution(192, (1, 1), name="branch_pool")(self.pool(x))
        return jnp.concatenate([one, *split, pool], axis=-1)


def _halve(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), strides=(2, 2))


def parameter_shapes() -> PyTree:
    """The shapes of the parameters, at no cost."""
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(InceptionV3().init, jax.random.key(0), image)["params"]


def params_from_tensors(tensors: Mapping[str, np.ndarray]) -> PyTree:
    """The parameters, from the public checkpoint's tensors by their names.

    Args:
        tensors: "Conv2d_1a_3x3.conv.weight" [F, C, H, W], "Conv2d_1a_3x3.bn.running_mean" [F], ..., "fc.weight"
            [1008, 2048], "fc.bias". Others, such as counts of batches, are left.
    Returns:
        The parameters of InceptionV3.
    Raises:
        KeyError: a tensor is missing; its name.
        ValueError: a tensor has another shape.
    """

    def find(path: tuple, wanted: jax.ShapeDtypeStruct) -> np.ndarray:
        name = ".".join(key.key for key in path)
        name = (
            name.replace("conv.kernel", "conv.weight").replace("fc_kernel", "fc.weight").replace("fc_bias", "fc.bias")
        )
        tensor = np.asarray(tensors[name], np.float32)
        if tensor.ndim == 4:
            tensor = tensor.transpose(2, 3, 1, 0)
        if tensor.ndim == 2:
            tensor = tensor.T
        if tensor.shape != wanted.shape:
            raise ValueError(f"{name} has the shape {tensor.shape}, need {wanted.shape}")
        return tensor

    return jax.tree_util.tree_map_with_path(find, parameter_shapes())
