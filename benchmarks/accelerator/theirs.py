"""The other side of the speed table: the same work in PyTorch, diffusers and normflows on the same device.

TF32 and cudnn.benchmark are on, Adam is fused, the data lie on the device, and the U-Net runs channels-last. Each
train step runs eager, compiled ("compile"), or compiled with CUDA graphs ("graphs", mode="reduce-overhead").

Each function returns (run, facts), as `workers.Case.make` does; a unit of work is one step or one call of a sampler.
"""

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import torch_autoregressive, torch_gan, torch_vae
from benchmarks.accelerator import ours

Made = tuple[Callable[[int], None], dict[str, Any]]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_FUSED = DEVICE == "cuda"


def matmul(dtype: str, side: int) -> Made:
    """Products of two square matrices of random numbers."""
    a, b = (torch.randn(side, side, device=DEVICE, dtype=getattr(torch, dtype)) for _ in range(2))
    return _made(lambda: a @ b)


def ddpm(batch: int, mode: str, *, tiny: bool = False) -> Made:
    """A step of DDPM on CIFAR-10 in bfloat16."""
    import diffusers

    model = _unet(tiny).to(DEVICE).to(memory_format=torch.channels_last)
    network, scheduler = _compiled(model, mode), diffusers.DDPMScheduler(1000)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=_FUSED)
    data = torch.from_numpy(ours.images()).permute(0, 3, 1, 2).contiguous().to(DEVICE)
    batch = 2 if tiny else batch

    def step() -> None:
        x = data[torch.randint(len(data), (batch,), device=DEVICE)].float() / 127.5 - 1.0
        x = x.contiguous(memory_format=torch.channels_last)
        noise, t = torch.randn_like(x), torch.randint(1000, (batch,), device=DEVICE)
        with torch.autocast(DEVICE, torch.bfloat16):
            predicted = network(scheduler.add_noise(x, noise, t), t).sample
        _update(adam, nn.functional.mse_loss(predicted.float(), noise))

    return _made(step, parameters=_count(model))


def ddim(count: int, mode: str, *, tiny: bool = False) -> Made:
    """DDIM's 50 steps of the same network."""
    import diffusers

    model = _unet(tiny).to(DEVICE).to(memory_format=torch.channels_last).eval()
    network, scheduler = _compiled(model, mode), diffusers.DDIMScheduler(1000, timestep_spacing="trailing")
    scheduler.set_timesteps(2 if tiny else 50, device=DEVICE)

    def draw() -> None:
        with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
            x = torch.randn(2 if tiny else count, 3, 32, 32, device=DEVICE)
            x = x.contiguous(memory_format=torch.channels_last)
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t).sample, t, x).prev_sample

    return _made(draw, warm=0)


def glow(batch: int, *, big: bool, tiny: bool = False) -> Made:
    """A step of normflows' Glow, eager."""
    import normflows as nf

    levels, steps, hidden = (1, 1, 4) if tiny else (3, 32, 512) if big else (2, 8, 64)
    bases: list[Any] = []
    flows, merges, side, channels = [], [], 32, 3
    for level in range(levels):
        side, channels, last = side // 2, 4 * channels, level + 1 == levels
        flows.append(
            [*(nf.flows.GlowBlock(channels, hidden, scale_map="exp") for _ in range(steps)), nf.flows.Squeeze()]
        )
        bases.append(nf.distributions.DiagGaussian((channels if last else channels // 2, side, side)))
        merges += [] if last else [nf.flows.Merge()]
        channels //= 2
    model = nf.MultiscaleFlow(bases[::-1], flows[::-1], merges, class_cond=False).to(DEVICE)
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=_FUSED)
    data = torch.from_numpy(ours.images()).permute(0, 3, 1, 2).contiguous().to(DEVICE)

    def step() -> None:
        x = data[torch.randint(len(data), (2 if tiny else batch,), device=DEVICE)].float()
        _update(adam, model.forward_kld((x + torch.rand_like(x)) / 256 - 0.5))

    return _made(step, parameters=_count(model))


def realnvp(batch: int, *, tiny: bool = False) -> Made:
    """A step of normflows' RealNVP of the plane, eager."""
    import normflows as nf

    flows = []
    for _ in range(2 if tiny else 32):
        for _ in range(2):
            flows.append(nf.flows.AffineCouplingBlock(nf.nets.MLP([1, 4, 2], init_zeros=True)))
            flows.append(nf.flows.Permute(2, mode="swap"))
        flows.append(nf.flows.ActNorm(2))
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(2, trainable=False), flows).to(DEVICE)
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=_FUSED)
    data = torch.randn(4_096, 2, device=DEVICE)
    return _made(lambda: _update(adam, model.forward_kld(data[torch.randint(len(data), (batch,), device=DEVICE)])))


def autoregressive(name: str, batch: int, mode: str, *, tiny: bool = False) -> Made:
    """A step of a network of `torch_parity`; NADE with its matrix split into rows."""
    network, dims = _network(name, tiny)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, fused=_FUSED)
    compiled = _compiled(network, mode)
    data = (torch.rand(4_096, dims, device=DEVICE) > 0.8).to(torch.uint8)

    def step() -> None:
        x = data[torch.randint(len(data), (4 if tiny else batch,), device=DEVICE)].float()
        _update(adam, torch_autoregressive.negative_log_likelihood(compiled, x))

    return _made(step, parameters=_count(network))


def naive(name: str, count: int, positions: int, *, tiny: bool = False) -> Made:
    """The plain loop of sampling: the last positions, each by a whole forward pass."""
    network, dims = _network(name, tiny)
    network.eval()

    def draw() -> None:
        x = torch.zeros(2 if tiny else count, dims, dtype=torch.long, device=DEVICE)
        torch_autoregressive.sample(network, x, dims - (2 if tiny else positions))

    return _made(draw, warm=1)


def vae(batch: int, mode: str, *, tiny: bool = False) -> Made:
    """A step of the VAE of 784-500-500-50."""

    def mlp(*widths: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.Tanh()]
        return nn.Sequential(*layers[:-1]).to(DEVICE)

    hidden = 16 if tiny else 500
    encoder, decoder = mlp(784, hidden, hidden, 100), mlp(50, hidden, hidden, 784)
    loss_fn = _compiled(torch_vae.negative_elbo, mode)
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=_FUSED)
    data = (torch.rand(4_096, 784, device=DEVICE) > 0.8).to(torch.uint8)

    def step() -> None:
        x = data[torch.randint(len(data), (batch,), device=DEVICE)].float()
        _update(adam, loss_fn(encoder, decoder, x, torch.randn(batch, 50, device=DEVICE)))

    return _made(step)


def dcgan(batch: int, *, tiny: bool = False) -> Made:
    """A step of both players of a DCGAN, eager, with new latents for the generator's loss."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # our parameters are drawn by jax, which leaves the device alone
    from benchmarks import gan_case

    networks = torch_gan.networks(gan_case.random_params(), gan_case.SHAPE[0])
    generator, discriminator = (network.to(DEVICE) for network in networks)
    adams = [
        torch.optim.Adam(player.parameters(), 1e-3, (0.5, 0.999), fused=_FUSED) for player in (discriminator, generator)
    ]
    data = torch.from_numpy(gan_case.data()).permute(0, 3, 1, 2).contiguous().to(DEVICE)

    def step() -> None:
        x = data[torch.randint(len(data), (batch,), device=DEVICE)].float() / 127.5 - 1.0
        with torch.no_grad():
            fake = generator(torch.randn(batch, gan_case.LATENT_DIM, device=DEVICE))
        _update(adams[0], torch_gan.discriminator_loss(discriminator, x, fake))
        fake = generator(torch.randn(batch, gan_case.LATENT_DIM, device=DEVICE))
        _update(adams[1], torch_gan.generator_loss(discriminator, fake))

    return _made(step)


def _made(step: Callable[[], Any], *, warm: int = 5, **facts: Any) -> Made:
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    synchronize = torch.cuda.synchronize if DEVICE == "cuda" else lambda: None
    started = time.perf_counter()
    step()
    synchronize()
    facts["first_call_seconds"] = round(time.perf_counter() - started, 1)

    def run(count: int) -> None:
        for _ in range(count):
            step()
        synchronize()

    run(warm)
    return run, facts


def _compiled(target: Any, mode: str) -> Any:
    if mode == "eager":
        return target
    return torch.compile(target, mode={"compile": None, "graphs": "reduce-overhead"}[mode])


def _update(adam: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    adam.zero_grad()
    loss.backward()
    adam.step()


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _network(name: str, tiny: bool) -> tuple[nn.Module, int]:
    pair = ours.pair_of(name, tiny)
    sizes = {**pair.sizes, **({"unbound": True} if name == "NADE" else {})}
    network = getattr(torch_autoregressive, pair.name)(**sizes)
    for parameter in network.parameters() if name == "NADE" else ():
        nn.init.normal_(parameter, std=0.05)
    return network.to(DEVICE), pair.num_dims


def _unet(tiny: bool) -> Any:
    import diffusers

    widths = (8, 16) if tiny else (128, 256, 256, 256)
    plain = len(widths) - 2
    return diffusers.UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=1 if tiny else 2,
        dropout=0.1,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", *["DownBlock2D"] * plain),
        up_block_types=(*["UpBlock2D"] * plain, "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4 if tiny else 32,
        attention_head_dim=None,
    )
