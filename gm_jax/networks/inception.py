"""Inception v3 as FID uses it: the TensorFlow graph of 2015-12-05, not the network of current libraries.

It differs from the paper and from every other Inception v3 in four places. A Frechet distance without them is not the
FID of the literature:

* the classifier has 1,008 outputs, and the Inception Score omits their bias;
* average pools do not count their padding;
* the last block uses max pooling, and the block before it uses average pooling;
* normalisation adds 0.001 to the variance.

Inputs are floats 0..255 of 299x299 pixels (`ops.resize.bilinear_tf1`), and are scaled by (x - 128) / 128. Modules have
the names of the public checkpoint (`pt_inception-2015-12-05-6726825d.pth`), so `params_from_tensors` finds its tensors
by name.

Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, arXiv:1512.00567; the
    graph: Salimans et al. (2016) and Heusel et al. (2017).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

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
    """The network's outputs.

    Attributes:
        features: [B, 2048], the last block averaged over positions; used by FID, KID, precision and recall.
        logits: [B, 1008].
        logits_without_bias: [B, 1008], used by the Inception Score.
    """

    features: Array
    logits: Array
    logits_without_bias: Array


class InceptionV3(nn.Module):
    """The whole network, for inference: images [B, 299, 299, 3] in 0..255 -> InceptionOutputs."""

    @nn.compact
    def __call__(self, x: Array) -> InceptionOutputs:
        """Maps images [B, 299, 299, 3] to features and logits."""
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
    """A convolution without a bias, normalisation by fixed moments, and ReLU.

    Attributes:
        features: channels of the output.
        size: height and width of the kernel.
        stride: vertical and horizontal stride.
        padding: "SAME" or "VALID".
    """

    features: int
    size: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, I] to [B, H', W', features]."""
        strides = (self.stride, self.stride)
        x = nn.Conv(self.features, self.size, strides, self.padding, use_bias=False, name="conv")(x)
        return nn.relu(FixedNorm(name="bn")(x))


class FixedNorm(nn.Module):
    """A trained batch normalisation: its moments are parameters."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, H, W, C] to the same shape."""
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        parts = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones}
        weight, bias, mean, var = (
            self.param(name, init, (x.shape[-1],))[None, None, None] for name, init in parts.items()
        )
        return (x - mean) * (jax.lax.rsqrt(var + _EPSILON) * weight) + bias


def average_pool(x: Array) -> Array:
    """Averages 3x3 neighbourhoods with stride 1; padding does not count."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


class BlockA(nn.Module):
    """The block at 35x35: branches with kernels of 1, of 5, of 3 twice, and a pool.

    Attributes:
        pooled: channels of the pool's branch.
    """

    pooled: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, 35, 35, I] to [B, 35, 35, 224 + pooled]."""
        one = Convolution(64, (1, 1), name="branch1x1")(x)
        five = Convolution(48, (1, 1), name="branch5x5_1")(x)
        five = Convolution(64, (5, 5), name="branch5x5_2")(five)
        three = Convolution(64, (1, 1), name="branch3x3dbl_1")(x)
        three = Convolution(96, (3, 3), name="branch3x3dbl_2")(three)
        three = Convolution(96, (3, 3), name="branch3x3dbl_3")(three)
        pool = Convolution(self.pooled, (1, 1), name="branch_pool")(average_pool(x))
        return jnp.concatenate([one, five, three, pool], axis=-1)


class BlockB(nn.Module):
    """The block from 35x35 to 17x17."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, 35, 35, I] to [B, 17, 17, 480 + I]."""
        three = Convolution(384, (3, 3), 2, "VALID", name="branch3x3")(x)
        double = Convolution(64, (1, 1), name="branch3x3dbl_1")(x)
        double = Convolution(96, (3, 3), name="branch3x3dbl_2")(double)
        double = Convolution(96, (3, 3), 2, "VALID", name="branch3x3dbl_3")(double)
        return jnp.concatenate([three, double, _halve(x)], axis=-1)


class BlockC(nn.Module):
    """The block at 17x17: kernels of 7, each factored into a row and a column.

    Attributes:
        width: channels inside the branches.
    """

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, 17, 17, I] to [B, 17, 17, 768]."""
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
    """The block from 17x17 to 8x8."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, 17, 17, I] to [B, 8, 8, 512 + I]."""
        three = Convolution(192, (1, 1), name="branch3x3_1")(x)
        three = Convolution(320, (3, 3), 2, "VALID", name="branch3x3_2")(three)
        seven = Convolution(192, (1, 1), name="branch7x7x3_1")(x)
        seven = Convolution(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = Convolution(192, (7, 1), name="branch7x7x3_3")(seven)
        seven = Convolution(192, (3, 3), 2, "VALID", name="branch7x7x3_4")(seven)
        return jnp.concatenate([three, seven, _halve(x)], axis=-1)


class BlockE(nn.Module):
    """The block at 8x8: kernels of 3 whose last layer is a row and a column in parallel.

    Attributes:
        pool: pooling of the last branch, the only difference between the two blocks of this kind.
    """

    pool: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [B, 8, 8, I] to [B, 8, 8, 2048]."""
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
    """Returns the shapes of the parameters without computing them."""
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(InceptionV3().init, jax.random.key(0), image)["params"]


def params_from_tensors(tensors: Mapping[str, np.ndarray]) -> PyTree:
    """Converts the tensors of the public checkpoint into the network's parameters.

    Args:
        tensors: "Conv2d_1a_3x3.conv.weight" [F, C, H, W], "Conv2d_1a_3x3.bn.running_mean" [F], ..., "fc.weight"
            [1008, 2048], "fc.bias". Others, such as counts of batches, are ignored.
    Returns:
        The parameters of InceptionV3.
    Raises:
        KeyError: a tensor is missing; the error holds its name.
        ValueError: a tensor has another shape.
    """

    def find(path: tuple[Any, ...], wanted: jax.ShapeDtypeStruct) -> np.ndarray:
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
            raise ValueError(f"{name} has the shape {tensor.shape}, not {wanted.shape}: use the public checkpoint.")
        return tensor

    return jax.tree_util.tree_map_with_path(find, parameter_shapes())
