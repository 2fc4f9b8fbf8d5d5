"""The VAE of vae_training.py in eager PyTorch, as a user would write it by hand."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import timing, torch_data

Layers = Sequence[tuple[np.ndarray, np.ndarray]]  # (kernel [in, out], bias [out]) of the encoder, then of the decoder


def make_steps(
    layers: Layers, images: np.ndarray, batch_size: int, count: int, learning_rate: float, compiled: bool
) -> timing.Run:
    """Makes the training loop; a unit of work is `count` steps, each on a new batch.

    Args:
        layers: initial parameters.
        images: [N, D] uint8, binary.
        batch_size: examples per step.
        count: steps per unit of work.
        learning_rate: learning rate of Adam.
        compiled: whether to use torch.compile and the fused Adam instead of plain eager code.
    """
    torch_data.use_all_cores()
    encoder, decoder = networks(layers)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True if compiled else None)
    loss_fn = torch.compile(negative_elbo) if compiled else negative_elbo
    data = torch.from_numpy(images)
    latent_dim = decoder[0].in_features

    batches = torch_data.batches(data, batch_size)

    def run(calls: int) -> None:
        for x in itertools.islice(batches, calls * count):
            optimizer.zero_grad()
            loss = loss_fn(encoder, decoder, x.float(), torch.randn(batch_size, latent_dim))
            loss.backward()
            optimizer.step()

    return run


def loss_and_grads(layers: Layers, x: np.ndarray, eps: np.ndarray) -> tuple[float, Layers]:
    """Returns the loss at x [B, D] and noise eps [B, Z], and its gradients in the layout of `layers`."""
    encoder, decoder = networks(layers)
    loss = negative_elbo(encoder, decoder, torch.tensor(x), torch.tensor(eps))
    loss.backward()
    linears = [module for module in (*encoder, *decoder) if isinstance(module, nn.Linear)]
    return loss.item(), [(linear.weight.grad.numpy().T, linear.bias.grad.numpy()) for linear in linears]


def negative_elbo(encoder: nn.Module, decoder: nn.Module, x: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """Computes the loss, a mean over the batch."""
    mean, log_var = encoder(x).chunk(2, dim=1)
    logits = decoder(mean + (0.5 * log_var).exp() * eps)
    nll = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    kl = 0.5 * (log_var.exp() + mean.square() - log_var - 1).sum()
    return (nll + kl) / len(x)


def networks(layers: Layers) -> tuple[nn.Sequential, nn.Sequential]:
    """Builds encoder and decoder with these parameters."""
    half = len(layers) // 2
    return _mlp(layers[:half]), _mlp(layers[half:])


def _mlp(layers: Layers) -> nn.Sequential:
    modules = []
    for kernel, bias in layers:
        linear = nn.Linear(*kernel.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(kernel.T))
            linear.bias.copy_(torch.tensor(bias))
        modules += [linear, nn.Tanh()]
    return nn.Sequential(*modules[:-1])
