"""What a generator and a discriminator play for: pairs of losses, and penalties on the discriminator.

`models.gan` has two networks play a `Game`; a penalty joins the discriminator's loss.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from gm_jax.losses import gan as losses
from gm_jax.types import Array, Key

# (key, score_fn, h [B, ...], x~ [B, ...]) -> [B], its weight included.
PenaltyFn = Callable[[Key, losses.ScoreFn, Array, Array], Array]


class Game(NamedTuple):
    """What the players play for.

    Attributes:
        discriminator: (real [B], fake [B]) -> [B] loss of the discriminator's logits, or scores.
        generator: fake [B] -> [B] loss.
        answer: logits -> what is logged of them: probabilities, or the scores themselves.
    """

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array], Array]
    answer: Callable[[Array], Array]


def non_saturating(*, real_target: float = 1.0, fake_target: float = 0.0) -> Game:
    """Cross-entropy; real_target < 1 is one-sided label smoothing."""

    def discriminator(real: Array, fake: Array) -> Array:
        return losses.discriminator_loss(real, fake, real_target=real_target, fake_target=fake_target)

    return Game(discriminator, losses.non_saturating_generator_loss, jax.nn.sigmoid)


def saturating() -> Game:
    """The minimax game: the generator lowers the very value that the discriminator raises."""
    return Game(losses.discriminator_loss, losses.saturating_generator_loss, jax.nn.sigmoid)


def hinge() -> Game:
    """Margins of 1 about 0."""
    return Game(losses.hinge_discriminator_loss, losses.hinge_generator_loss, lambda scores: scores)


def least_squares() -> Game:
    """Targets 1 for data and 0 for what is generated, of scores."""
    return Game(losses.least_squares_discriminator_loss, losses.least_squares_generator_loss, lambda scores: scores)


def wasserstein() -> Game:
    """A critic's scores; it must be held to be 1-Lipschitz, as by `gradient_penalty`."""
    return Game(losses.wasserstein_critic_loss, losses.wasserstein_generator_loss, lambda scores: scores)


def gradient_penalty(*, weight: float = 10.0) -> PenaltyFn:
    """WGAN-GP's, between data and what is generated."""

    def penalty(key: Key, score_fn: losses.ScoreFn, real: Array, fake: Array) -> Array:
        epsilon = jax.random.uniform(key, real.shape[:1])
        return weight * losses.gradient_penalty(score_fn, real, fake, epsilon)

    return penalty


def r1_penalty(*, weight: float) -> PenaltyFn:
    """R1, on data."""
    return lambda key, score_fn, real, fake: weight * losses.r1_penalty(score_fn, real)
