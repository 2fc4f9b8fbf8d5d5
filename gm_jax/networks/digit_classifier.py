"""A small convolutional classifier of digits, whose last hidden layer serves as features of them.

It has nothing of Inception's: distances between its features are not FIDs, and are never called so. On digits they are
the better ones, for it was trained on digits.
"""

import flax.linen as nn

from gm_jax.types import Array

_SMALLEST = 4  # sides are halved while they are larger,
_LARGEST = 16  # and once before the second convolution where they are larger than this


class DigitClassifier(nn.Module):
    """Images [B, H, W, C] in [0, 1] -> (features [B, hidden], logits [B, K]).

    Attributes:
        num_classes: K.
        channels: of the convolutions, the first before anything is halved; the last is repeated.
        hidden: number of features, each at least 0.
    """

    num_classes: int = 10
    channels: tuple[int, int] = (16, 32)
    hidden: int = 64

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
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
