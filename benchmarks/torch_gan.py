"""The DCGAN of gan_training.py in PyTorch: eager, plain, its loop that of PyTorch's own DCGAN tutorial."""

import itertools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import timing

Arrays = dict[str, list[np.ndarray]]  # by player, in the order of the module's parameters


def make_steps(
    params: Mapping, images: np.ndarray, batch_size: int, count: int, learning_rate: float, b1: float, anew: bool
) -> timing.Run:
    """The training loop on uint8 images [N, H, W, C]; a unit of work is `count` steps of both players.

    Args:
        params: ours, to begin with.
        images: the data.
        batch_size: examples a step.
        count: steps of one unit of work.
        learning_rate: Adam's, of both players.
        b1: Adam's.
        anew: whether the generator's loss is of new examples, as ours is; else of those that the discriminator has
            just learned from, as in the tutorial: one pass of the generator less.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    generator, discriminator = networks(params, images.shape[1])
    latent_dim = generator[0].in_features
    players = discriminator, generator
    adams = [torch.optim.Adam(player.parameters(), learning_rate, (b1, 0.999)) for player in players]
    data = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def epochs():
        while True:
            for indices in torch.randperm(len(data)).split(batch_size):
                if len(indices) == batch_size:
                    yield data[indices].float() / 127.5 - 1.0

    batches = epochs()

    def move(adam: torch.optim.Adam, loss: torch.Tensor) -> None:
        adam.zero_grad()
        loss.backward()
        adam.step()

    def run(calls: int) -> None:
        for _ in range(calls * count):
            x = next(batches)
            with torch.set_grad_enabled(not anew):
                fake = generator(torch.randn(batch_size, latent_dim))
            move(adams[0], discriminator_loss(discriminator, x, fake.detach()))
            if anew:
                fake = generator(torch.randn(batch_size, latent_dim))
            move(adams[1], generator_loss(discriminator, fake))

    return run


def losses_and_grads(
    params: Mapping, x: np.ndarray, z_discriminator: np.ndarray, z_generator: np.ndarray
) -> tuple[dict[str, float], Arrays]:
    """Each player's loss at data x [B, H, W, C] in [-1, 1] and its latents, and the gradients of its own parameters."""
    generator, discriminator = networks(params, x.shape[1])
    real = torch.from_numpy(x).permute(0, 3, 1, 2)
    losses = {
        "discriminator": discriminator_loss(discriminator, real, generator(torch.from_numpy(z_discriminator)).detach()),
        "generator": generator_loss(discriminator, generator(torch.from_numpy(z_generator))),
    }
    grads = {
        player: [grad.numpy() for grad in torch.autograd.grad(losses[player], list(network.parameters()))]
        for player, network in (("discriminator", discriminator), ("generator", generator))
    }
    return {player: loss.item() for player, loss in losses.items()}, grads


def discriminator_loss(discriminator: nn.Module, x: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, data and generated examples in two calls."""
    real_logits, fake_logits = discriminator(x), discriminator(fake)
    real_loss = functional.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    return real_loss + functional.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))


def generator_loss(discriminator: nn.Module, fake: torch.Tensor) -> torch.Tensor:
    """Non-saturating."""
    logits = discriminator(fake)
    return functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def networks(params: Mapping, side: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Generator and discriminator with our parameters, in training mode."""
    from benchmarks import gan_training

    theirs = gan_training.arrays(params, side)
    kernels = [params["discriminator"][f"Conv_{i}"]["kernel"].shape for i in range(_stages(params))]
    widths = [kernel[-1] for kernel in kernels]
    smallest = side // 2 ** len(widths)

    layers: list[Any] = [
        nn.Linear(params["generator"]["Dense_0"]["kernel"].shape[0], smallest**2 * widths[-1], bias=False),
        nn.Unflatten(1, (widths[-1], smallest, smallest)),
    ]
    for inner, outer in itertools.pairwise(widths[::-1]):
        layers += [nn.BatchNorm2d(inner), nn.ReLU(), nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(widths[0]), nn.ReLU(), nn.ConvTranspose2d(widths[0], kernels[0][2], 4, 2, 1), nn.Tanh()]
    generator = nn.Sequential(*layers)

    layers = [nn.Conv2d(kernels[0][2], widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
    for outer, inner in itertools.pairwise(widths):
        layers += [nn.Conv2d(outer, inner, 4, 2, 1, bias=False), nn.BatchNorm2d(inner), nn.LeakyReLU(0.2)]
    layers += [nn.Flatten(), nn.Linear(smallest**2 * widths[-1], 1), nn.Flatten(0)]
    discriminator = nn.Sequential(*layers)

    for player, network in (("generator", generator), ("discriminator", discriminator)):
        with torch.no_grad():
            for parameter, array in zip(network.parameters(), theirs[player], strict=True):
                assert parameter.shape == array.shape  # copy_ would broadcast
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))
    return generator, discriminator


def _stages(params: Mapping) -> int:
    return sum(name.startswith("Conv_") for name in params["discriminator"])
