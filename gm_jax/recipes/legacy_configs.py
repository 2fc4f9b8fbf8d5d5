"""Configurations of the first format, which name an experiment's module, in today's form.

The first format had {"experiment": "experiments.vae", ...} in config.json, all fields of a diffusion model in one flat
list, and a full OptimizerConfig for each player of a GAN. Runs of that format can still be evaluated, sampled from and
resumed. A field that no longer exists is dropped if it has the default value of that time.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gm_jax.config.saved import Saved, to_dict
from gm_jax.errors import UserError
from gm_jax.recipes import configs

_Values = dict[str, Any]

_NO_LONGER_IN_ADAM = {"eps": 1e-8, "weight_decay": 0.0, "clip_norm": None, "accumulate_steps": 1}
_NO_LONGER_IN_AUTOENCODER = {"activation": "silu", "binarization": None, "dtype": "float32"}
_SAMPLER = {"sampler": "method", "sampling_steps": "steps", "sampling_variance": "variance", "eta": "eta"}
_UNET = ("features", "blocks", "attention", "head_dim", "dropout", "dtype")
_MLP = ("hidden", "blocks", "dropout", "dtype")


def converted(saved: Saved) -> Saved:
    """Returns what a config.json holds, in today's format.

    Raises:
        UserError: the experiment is unknown, or the run used a field that no longer exists.
    """
    if ":" in saved.recipe:
        return saved
    try:
        config_type, convert = _EXPERIMENTS[saved.recipe]
    except KeyError:
        raise UserError(
            f"the run was made by {saved.recipe}, which is not an experiment of gm_jax: open it with the version that "
            "made it."
        ) from None
    try:
        return saved._replace(recipe=config_type.recipe, config=convert(dict(saved.config), saved.data))
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"the saved configuration of {saved.recipe} is damaged: it lacks fields.") from None


def _same(values: _Values, data: Mapping[str, Any]) -> _Values:
    return values


def _gan(values: _Values, data: Mapping[str, Any]) -> _Values:
    return values | {player: _adam(values[player], player) for player in ("generator", "discriminator")}


def _ddpm(values: _Values, data: Mapping[str, Any]) -> _Values:
    names, part = (_UNET, configs.UNetConfig()) if len(data["shape"]) == 3 else (_MLP, configs.MLPConfig())
    network, usual = ({name: fields[name] for name in names} for fields in (values, to_dict(part)))
    values = {name: value for name, value in values.items() if name not in {*_UNET, *_MLP}}
    # None is today's default for the usual network of such data.
    return _with_sampler(values) | {"network": None if network == usual else network}


def _latent_diffusion(values: _Values, data: Mapping[str, Any]) -> _Values:
    autoencoder = _without(values["autoencoder"], _NO_LONGER_IN_AUTOENCODER, "autoencoder")
    autoencoder |= {"optimizer": {**_adam(autoencoder["optimizer"], "autoencoder.optimizer"), "b1": 0.9, "b2": 0.999}}
    network = {name: values[name] for name in ("hidden", "dropout", "dtype")} | {"blocks": values["depth"]}
    # The U-Net's fields were of a model that was not trained.
    values = {name: value for name, value in values.items() if name not in {*_UNET, *_MLP, "depth"}}
    return _with_sampler(values) | {"autoencoder": autoencoder, "network": network}


def _with_sampler(values: _Values) -> _Values:
    sampler = {name: values[old] for old, name in _SAMPLER.items()}
    return {name: value for name, value in values.items() if name not in _SAMPLER} | {"sampler": sampler}


def _adam(values: _Values, section: str) -> _Values:
    return _without(values, _NO_LONGER_IN_ADAM, section)


def _without(values: _Values, defaults: Mapping[str, Any], section: str) -> _Values:
    """Returns the values without those of fields that no longer exist, which must be the defaults."""
    for name, default in defaults.items():
        if values[name] != default:
            raise UserError(
                f"the run was made with --{section}.{name.replace('_', '-')} {values[name]}, which no longer exists: "
                "open it with the version that made it."
            )
    return {name: value for name, value in values.items() if name not in defaults}


_EXPERIMENTS: dict[str, tuple[type, Callable[[_Values, Mapping[str, Any]], _Values]]] = {
    "experiments.vae": (configs.VAEConfig, _same),
    "experiments.beta_vae": (configs.VAEConfig, _same),
    "experiments.iwae": (configs.IWAEConfig, _same),
    "experiments.fvsbn": (configs.FVSBNConfig, _same),
    "experiments.nade": (configs.NADEConfig, _same),
    "experiments.made": (configs.MADEConfig, _same),
    "experiments.pixelcnn": (configs.PixelCNNConfig, _same),
    "experiments.pixelrnn": (configs.PixelRNNConfig, _same),
    "experiments.wavenet": (configs.WaveNetConfig, _same),
    "experiments.nice": (configs.NICEConfig, _same),
    "experiments.realnvp": (configs.RealNVPConfig, _same),
    "experiments.glow": (configs.GlowConfig, _same),
    "experiments.spline_flow": (configs.SplineFlowConfig, _same),
    "experiments.gan": (configs.GANConfig, _gan),
    "experiments.improved_gan": (configs.ImprovedGANConfig, _gan),
    "experiments.wgan_gp": (configs.WGANGPConfig, _gan),
    "experiments.ddpm": (configs.DDPMConfig, _ddpm),
    "experiments.ddpm_conditional": (configs.ConditionalDDPMConfig, _ddpm),
    "experiments.latent_diffusion": (configs.LatentDiffusionConfig, _latent_diffusion),
}
