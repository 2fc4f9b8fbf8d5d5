"""The losses of a generator and a discriminator, and penalties on the discriminator.

`models.gan.GAN` takes one `AdversarialLosses`; a penalty is added to the discriminator's loss.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from gm_jax.losses import gan as gan_losses
from gm_jax.types import Array, Key

# (key, score_fn, h [B, ...], x~ [B, ...]) -> [B], its weight included.
PenaltyFn = Callable[[Key, gan_losses.ScoreFn, Array, Array], Array]


class AdversarialLosses(NamedTuple):
    """The losses of the two players.

    Attributes:
        discriminator: (real [B], fake [B]) -> [B] loss of the discriminator's logits, or scores.
        generator: fake [B] -> [B] loss.
        to_output: logits -> what the metrics D_real and D_fake average: probabilities, or the scores themselves.
    """

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array], Array]
    to_output: Callable[[Array], Array]


def non_saturating(*, real_target: float = 1.0, fake_target: float = 0.0) -> AdversarialLosses:
    """Returns cross-entropy losses; real_target < 1 is one-sided label smoothing."""

    def discriminator(real: Array, fake: Array) -> Array:
        return gan_losses.discriminator_loss(real, fake, real_target=real_target, fake_target=fake_target)

    return AdversarialLosses(discriminator, gan_losses.non_saturating_generator_loss, jax.nn.sigmoid)


def saturating() -> AdversarialLosses:
    """Returns the minimax losses: the generator lowers the value that the discriminator raises."""
    return AdversarialLosses(gan_losses.discriminator_loss, gan_losses.saturating_generator_loss, jax.nn.sigmoid)


def hinge() -> AdversarialLosses:
    """Returns hinge losses, with margins of 1 around 0."""
    return AdversarialLosses(gan_losses.hinge_discriminator_loss, gan_losses.hinge_generator_loss, _scores)


def least_squares() -> AdversarialLosses:
    """Returns least-squares losses of scores, with targets 1 for data and 0 for generated examples."""
    return AdversarialLosses(
        gan_losses.least_squares_discriminator_loss, gan_losses.least_squares_generator_loss, _scores
    )


def wasserstein() -> AdversarialLosses:
    """Returns Wasserstein losses of a critic, which must be kept 1-Lipschitz, for example by `gradient_penalty`."""
    return AdversarialLosses(gan_losses.wasserstein_critic_loss, gan_losses.wasserstein_generator_loss, _scores)


def gradient_penalty(*, weight: float = 10.0) -> PenaltyFn:
    """Returns the penalty of WGAN-GP, at points between data and generated examples."""

    def penalty(key: Key, score_fn: gan_losses.ScoreFn, real: Array, fake: Array) -> Array:
        epsilon = jax.random.uniform(key, real.shape[:1])
        return weight * gan_losses.gradient_penalty(score_fn, real, fake, epsilon)

    return penalty


def r1_penalty(*, weight: float) -> PenaltyFn:
    """Returns the R1 penalty, at the data."""
    return lambda key, score_fn, real, fake: weight * gan_losses.r1_penalty(score_fn, real)


def _scores(scores: Array) -> Array:
    return scores
