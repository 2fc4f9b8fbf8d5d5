"""A small convolutional classifier of digits, whose last hidden layer provides features for evaluation.

It is not Inception, so distances between its features are never called FID. On digits its features are more suitable,
because it was trained on digits.
"""

import flax.linen as nn

from gm_jax.types import Array

_SMALLEST = 4  # sides are halved while they are larger than this
_LARGEST = 16  # sides larger than this are halved once before the second convolution


class DigitClassifier(nn.Module):
    """A classifier of images [B, H, W, C] in [0, 1] -> (features [B, hidden], logits [B, K]).

    Attributes:
        num_classes: K.
        channels: channels of the first convolution, at full resolution, and of all later ones.
        hidden: number of features, each at least 0.
    """

    num_classes: int = 10
    channels: tuple[int, int] = (16, 32)
    hidden: int = 64

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Maps x [B, H, W, C] to (features [B, hidden], logits [B, K])."""
        x = nn.relu(nn.Conv(self.channels[0], (3, 3))(x))
        if min(x.shape[1:3]) > _LARGEST:
            x = _halve(x)
        while min(x.shape[1:3]) > _SMALLEST:
            x = nn.relu(nn.Conv(self.channels[1], (3, 3))(x))
            x = _halve(x)
        x = nn.relu(nn.Conv(self.channels[1], (3, 3))(x))
        features = nn.relu(nn.Dense(self.hidden)(x.reshape(x.shape[0], -1)))
        return features, nn.Dense(self.num_classes)(features)


def _halve(x: Array) -> Array:
    return nn.max_pool(x, (2, 2), strides=(2, 2))
