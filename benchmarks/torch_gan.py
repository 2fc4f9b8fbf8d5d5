"""The DCGAN of gan_training.py in eager PyTorch, with the training loop of PyTorch's DCGAN tutorial."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import gan_case, timing, torch_data

Arrays = dict[str, list[np.ndarray]]  # player -> arrays in the order of the module's parameters


def make_steps(
    params: Mapping, images: np.ndarray, batch_size: int, count: int, learning_rate: float, b1: float, redraw: bool
) -> timing.Run:
    """Makes the training loop on uint8 images [N, H, W, C]; a unit of work is `count` steps of both players.

    Args:
        params: our parameters, to start from.
        images: the data.
        batch_size: examples per step.
        count: steps per unit of work.
        learning_rate: learning rate of Adam, for both players.
        b1: decay of Adam's first moment.
        redraw: whether the generator's loss draws new examples, as ours does. Otherwise it reuses the examples of the
            discriminator's update, as in the tutorial, which saves one pass of the generator.
    """
    torch_data.use_all_cores()
    generator, discriminator = networks(params, images.shape[1])
    latent_dim = generator[0].in_features
    players = discriminator, generator
    adams = [torch.optim.Adam(player.parameters(), learning_rate, (b1, 0.999)) for player in players]
    data = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    batches = torch_data.batches(data, batch_size)

    def update(adam: torch.optim.Adam, loss: torch.Tensor) -> None:
        adam.zero_grad()
        loss.backward()
        adam.step()

    def run(calls: int) -> None:
        for _ in range(calls * count):
            x = next(batches).float() / 127.5 - 1.0
            with torch.set_grad_enabled(not redraw):
                fake = generator(torch.randn(batch_size, latent_dim))
            update(adams[0], discriminator_loss(discriminator, x, fake.detach()))
            if redraw:
                fake = generator(torch.randn(batch_size, latent_dim))
            update(adams[1], generator_loss(discriminator, fake))

    return run


def losses_and_grads(
    params: Mapping, x: np.ndarray, z_discriminator: np.ndarray, z_generator: np.ndarray
) -> tuple[dict[str, float], Arrays]:
    """Returns each player's loss at data x [B, H, W, C] in [-1, 1] and its latents, and its own gradients."""
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
    """Computes the cross-entropy, on data and on generated examples in two calls."""
    real_logits, fake_logits = discriminator(x), discriminator(fake)
    real_loss = functional.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    return real_loss + functional.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))


def generator_loss(discriminator: nn.Module, fake: torch.Tensor) -> torch.Tensor:
    """Computes the non-saturating loss."""
    logits = discriminator(fake)
    return functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def networks(params: Mapping, side: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Builds generator and discriminator with our parameters, in training mode."""
    theirs = gan_case.arrays(params, side)
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
