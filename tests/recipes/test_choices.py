"""Every recipe builds what its configuration says, at no cost; contradictions are refused with what to do."""

import functools
import importlib

import jax
import numpy as np
import pytest

from gm_jax import recipes
from gm_jax.config import TrainConfig
from gm_jax.config.saved import updated
from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.recipes.configs import DiTConfig, FSQConfig, MLPConfig, SpatialAutoencoderConfig, UNetConfig
from gm_jax.runner.run import abstract_batch
from gm_jax.training import model_state as model_state_lib

DIGITS = Spec("digits", (8, 8, 1), 17, 10, "")
BINARY = Spec("binarized_mnist", (28, 28, 1), 2, None, "")
COLOURS = Spec("cifar10", (32, 32, 3), 256, 10, "")
POINTS = Spec("toy:two_moons", (2,), None, None, "")
CAPTIONS = Spec("captions", (32, 32, 3), 256, None, "", tokens=12, vocabulary=35)
PIXEL, NUMBER = Spec("tiny", (1, 1, 1), 17, 10, ""), Spec("tiny", (1,), None, None, "")

CHOICES = [
    ("fvsbn", {"order": "random", "orderings": 3, "conditional": True}, DIGITS),
    ("nade", {"hidden": 20, "order": "random"}, BINARY),
    ("made", {"hidden": (30, 20), "orderings": 4, "order": "random", "direct": False}, BINARY),
    ("pixelcnn", {}, BINARY),
    ("pixelcnn", {"gated": False, "output": "categorical", "conditional": True}, DIGITS),
    ("pixelcnn", {"output": "logistic_mixture", "components": 5, "features": 6}, COLOURS),
    ("pixelcnn_pp", {"features": 4, "scales": 3, "components": 5, "conditional": True}, COLOURS),
    ("pixelcnn_pp", {"features": 4, "blocks": 2, "output": "categorical"}, DIGITS),
    ("pixelcnn_pp", {"features": 4, "output": "bernoulli"}, BINARY),
    ("pixelrnn", {"lstm": "row", "output": "categorical"}, DIGITS),
    ("pixelrnn", {"hidden": 6, "layers": 1, "output": "logistic_mixture"}, COLOURS),
    ("wavenet", {"output": "logistic_mixture", "dilations": (1, 2, 4), "kernel_size": 3}, DIGITS),
    ("transformer", {}, BINARY),
    ("masked_diffusion", {"output": "categorical", "layers": 1, "bound_terms": 3, "sampling_steps": 5}, COLOURS),
    ("masked_diffusion", {"output": "logistic_mixture", "components": 2, "layers": 1}, DIGITS),
    ("d3pm", {}, DIGITS),
    (
        "d3pm",
        {"transitions": "uniform", "diffusion_steps": 5, "network": UNetConfig(features=(8,), attention=())},
        COLOURS,
    ),
    ("transformer", {"output": "categorical", "conditional": True, "features": 12, "heads": 3}, DIGITS),
    ("transformer", {"output": "logistic_mixture", "components": 5, "layers": 1}, COLOURS),
    ("realnvp", {}, PIXEL),
    ("nice", {"prior": "normal", "alpha": 0.05}, DIGITS),
    ("realnvp", {"network": "mlp"}, DIGITS),
    ("realnvp", {"scales": 2, "features": 4, "blocks": 1}, COLOURS),
    ("realnvp", {"scales": 2, "features": 4, "blocks": 1, "weight_norm": True}, COLOURS),
    ("glow", {"scales": 1, "steps": 2, "dtype": "bfloat16"}, COLOURS),
    ("spline_flow", {}, POINTS),
    ("maf", {"inverted": True, "hidden": (8,)}, DIGITS),
    ("maf", {}, PIXEL),
    ("vae", {"conditional": True}, DIGITS),
    ("vae", {"conditional": True, "network": "conv", "hidden": (4, 4)}, COLOURS),
    ("gan", {"conditional": True, "spectral_norm": True, "features": 4}, DIGITS),
    ("improved_gan", {"conditional": True, "features": 4}, DIGITS),
    ("wgan_gp", {"conditional": True, "network": "mlp"}, DIGITS),
    ("gan", {"game": "hinge", "spectral_norm": True}, COLOURS),
    ("gan", {"r1": 1.0}, POINTS),
    ("improved_gan", {"features": 4}, DIGITS),
    ("improved_gan", {"network": "mlp", "virtual_batch_norm": False, "feature_matching": True}, DIGITS),
    ("wgan_gp", {"features": 4}, DIGITS),
    ("ddpm", {"network": UNetConfig(features=(8, 8), head_dim=4), "schedule": "cosine"}, DIGITS),
    ("ddpm", {"sampler": {"method": "ddim", "eta": 0.5}, "variance": "posterior", "beta_min": 0.3}, POINTS),
    ("ddpm", {"network": MLPConfig(hidden=8, blocks=2), "prediction": "velocity"}, POINTS),
    (
        "ddpm_conditional",
        {
            "network": UNetConfig(features=(8,), attention=()),
            "guidance": 3.0,
            "sampler": {"variance": "transition"},
        },
        DIGITS,
    ),
    ("ddpm", {"sampler": {"method": "dpmpp", "steps": 15}}, DIGITS),
    ("ddpm_conditional", {"sampler": {"method": "adaptive"}}, DIGITS),
    ("latent_diffusion", {"sampler": {"method": "heun", "steps": 18}}, BINARY),
    ("ddpm", {"learned_variance": True, "loss_aware_times": True}, DIGITS),
    ("ddpm", {"learned_variance": True, "sampler": {"method": "ddim"}}, POINTS),
    ("latent_diffusion", {}, BINARY),
    ("latent_diffusion", {"diffusion_steps": 50, "sampler": {"steps": 10}}, COLOURS),
    ("latent_diffusion", {}, POINTS),
    ("latent_diffusion", {"autoencoder": SpatialAutoencoderConfig(), "network": UNetConfig()}, COLOURS),
    (
        "latent_diffusion",
        {
            "autoencoder": SpatialAutoencoderConfig(
                patch=1, features=(8, 8, 16), attention=True, remat=True, log_var=0.0
            ),
            "network": DiTConfig(layers=1),
            "schedule": "quadratic",
            "beta_max": 15.0,
        },
        BINARY._replace(shape=(32, 32, 1)),
    ),
    (
        "latent_diffusion",
        {
            "autoencoder": SpatialAutoencoderConfig(dtype="bfloat16", log_var=-5.0),
            "network": UNetConfig(resample="adm", scale_shift=True, dtype="bfloat16"),
        },
        DIGITS,
    ),
    ("ddpm", {"network": UNetConfig(resample="adm", attention=(0,)), "schedule": "quadratic"}, COLOURS),
    ("vq_vae", {}, DIGITS),
    ("vq_vae", {"conditional": True, "prior": {"layers": 1}, "autoencoder": {"patch": 1}}, COLOURS),
    ("vq_vae", {"quantizer": FSQConfig(levels=(3, 4)), "decoder": "discretized_logistic"}, BINARY),
    ("vq_vae", {"quantizer": {"codes": 300, "restart_below": 0.0}, "autoencoder": {"dtype": "bfloat16"}}, CAPTIONS),
    ("text_to_image", {"negative_prompt": "a red two", "network": DiTConfig(layers=1, patch=1)}, CAPTIONS),
    ("text_to_image", {"network": {"scale_shift": False, "stem": 16}, "text": {"summary": "start"}}, CAPTIONS),
    ("text_to_image", {"autoencoder": {"patch": 1, "features": (8, 8, 16)}, "text": {"layers": 0}}, CAPTIONS),
    ("ebm", {"spectral_norm": True, "penalty": 0.1}, DIGITS),
    ("ebm", {"chains": {"persistent": 0, "clip_gradient": 0.01}}, POINTS),
    ("ebm", {"objective": "nce"}, POINTS),
    ("ebm", {"objective": "nce", "noise": "flow", "noise_ratio": 3, "spectral_norm": True}, DIGITS),
    ("jem", {"class_weight": 0.5}, DIGITS),
    ("jem", {"network": "mlp", "chains": {"temperature": 0.1}}, DIGITS),
    ("minimax_ebm", {"generator_steps": 1, "slope_penalty": 0.0}, POINTS),
    ("minimax_ebm", {"network": "conv"}, DIGITS),
    ("score_sde", {}, DIGITS),
    ("score_sde", {"path": "sub_vp", "beta_max": 15.0, "network": UNetConfig(features=(8,), attention=())}, COLOURS),
    ("score_sde", {"path": "cosine", "sampler": {"method": "ancestral", "snr": None}}, POINTS),
    ("flow_matching", {"sampler": {"method": "adaptive"}}, POINTS),
    ("flow_matching", {"path": "trigonometric", "sampler": {"grid": "trailing", "steps": 1}}, BINARY),
    ("edm", {"labels": True, "guidance": 2.0, "sampler": {"churn": 10.0, "clip": True}}, DIGITS),
    ("edm", {"prediction": "data", "likelihood": {"probes": 3}}, POINTS),
    ("ncsn", {"sampler": {"steps": 10}}, POINTS),
    ("flow_matching", {"reflow": 0.3}, POINTS),
    ("flow_matching", {"coupling": "optimal"}, POINTS),
    ("flow_matching", {"coupling": "optimal", "network": UNetConfig(features=(8,), attention=())}, DIGITS),
    ("meanflow", {"sampling_steps": 2, "power": 0.0}, DIGITS),
    ("meanflow", {"labels": True, "guidance": 1.0, "network": UNetConfig(features=(8,), attention=())}, COLOURS),
    ("consistency", {"labels": True, "guidance": 1.0, "sigma_max": 20.0}, DIGITS),
    ("consistency", {"sampling_steps": 2, "times": 2}, POINTS),
    ("rbm", {"hidden": 30, "persistent": False, "sweeps": 3}, BINARY),
    ("rbm", {"hidden": 10, "raise_temperatures": 0}, DIGITS),
]

MISTAKES = [
    ("ddpm", {"sampler": {"method": "dpmpp", "eta": 0.5}}, DIGITS, "--sampler.eta 0.5 has no effect on dpmpp"),
    ("ddpm", {"loss_aware_times": True}, DIGITS, "--loss-aware-times has no effect without --learned-variance"),
    ("ddpm", {"sampler": {"method": "heun", "steps": 1}}, DIGITS, "--sampler.steps 1 is too few for heun"),
    ("edm", {"sampler": {"corrector_steps": 2}}, DIGITS, "--sampler.corrector-steps 2 has no effect on heun"),
    ("edm", {"sampler": {"method": "dpmpp", "churn": 5.0}}, DIGITS, "--sampler.churn 5.0 has no effect on dpmpp"),
    ("edm", {"sampler": {"steps": 1}}, DIGITS, "--sampler.steps 1 is too few"),
    ("edm", {"guidance": 1.0}, DIGITS, "--guidance 1.0 needs a model with labels: add --labels"),
    ("edm", {"labels": True}, POINTS, "has no labels to condition on"),
    ("edm", {"labels": True, "drop_label": 0.0}, DIGITS, "--drop-label 0.0"),
    ("edm", {"beta_min": 0.2}, DIGITS, "--beta-min 0.2 has no effect on the path edm"),
    ("edm", {"sigma_min": 100.0}, DIGITS, "Change --sigma-min"),
    ("edm", {"likelihood": {"probes": 0}}, BINARY, "an exact divergence in 784 dimensions"),
    ("ncsn", {"sampler": {"langevin_step_size": 4.0}}, DIGITS, "--sampler.langevin-step-size 4.0 diverges"),
    ("edm", {"sampler": {"clip": True}}, POINTS, "points have none"),
    ("flow_matching", {"reflow": 0.3, "labels": True}, DIGITS, "--reflow needs a model without labels"),
    ("score_sde", {"reflow": 0.3}, DIGITS, "the sampler must add no noise"),
    ("score_sde", {"coupling": "optimal"}, DIGITS, "depends on the data: use --prediction velocity"),
    ("flow_matching", {"coupling": "optimal", "labels": True}, DIGITS, "depends on the data: use no --labels"),
    ("flow_matching", {"coupling": "optimal", "reflow": 0.3}, DIGITS, "depends on the data: use no --reflow"),
    (
        "flow_matching",
        {"coupling": "optimal", "sampler": {"method": "predictor_corrector"}},
        DIGITS,
        "depends on the data: use --sampler.method",
    ),
    ("edm", {"reflow": 0.3, "sampler": {"churn": 10.0}}, DIGITS, "the sampler must add no noise"),
    ("flow_matching", {"reflow": 0.3, "train": {"steps": 1}}, POINTS, "leaves a stage without steps"),
    ("ddpm", {"bound_weight": 0.5}, DIGITS, "--bound-weight has no effect without --learned-variance"),
    ("meanflow", {"labels": True}, POINTS, "has no labels to condition on"),
    ("consistency", {"times": 1}, DIGITS, "--times 1 leaves no neighbours"),
    ("consistency", {"distillation": 0.0}, DIGITS, "--distillation 0.0 of --train.steps 3000 leaves a stage without"),
    ("consistency", {"guidance": 1.0}, DIGITS, "--guidance 1.0 needs a model with labels: add --labels"),
    ("fvsbn", {"orderings": 3}, DIGITS, "--orderings 3 has no effect with a fixed order: use --order random."),
    ("made", {}, POINTS, "not made of pixels"),
    (
        "ebm",
        {"chains": {"persistent": 250}},
        POINTS,
        "--chains.persistent 250 is not a multiple of --train.batch-size 100: use 200",
    ),
    ("ebm", {"network": "conv"}, POINTS, "images"),
    ("ebm", {"noise": "flow"}, POINTS, "--noise flow has no effect on training by chains: use --objective nce"),
    ("ebm", {"objective": "nce", "noise": "flow"}, NUMBER, "one dimension"),
    ("jem", {}, BINARY, "has no labels to classify"),
    ("jem", {"chains": {"persistent": 250}}, DIGITS, "not a multiple of --train.batch-size 100"),
    ("minimax_ebm", {}, NUMBER, "one dimension"),
    ("rbm", {}, POINTS, "has no levels"),
    ("rbm", {"binarization": "static"}, DIGITS, "Use --binarization dynamic"),
    ("made", {"conditional": True}, BINARY, "--no-conditional"),
    (
        "nade",
        {"binarization": "static"},
        DIGITS,
        "only for them. Use --binarization dynamic",
    ),
    ("pixelcnn", {"first_size": 4}, DIGITS, "--first-size 4"),
    (
        "pixelcnn",
        {"binarization": "dynamic", "output": "categorical"},
        DIGITS,
        "or use --output bernoulli",
    ),
    ("pixelcnn", {"features": 2, "output": "categorical"}, COLOURS, "too small for the 3 channels"),
    ("pixelcnn", {"features": 1, "gated": False}, DIGITS, "too small for the 1 channels"),
    ("pixelcnn", {}, POINTS, "not made of pixels"),
    ("pixelcnn_pp", {"output": "categorical"}, COLOURS, "use --output logistic_mixture"),
    ("pixelcnn_pp", {}, POINTS, "not made of pixels"),
    ("pixelrnn", {"hidden": 2, "output": "categorical"}, COLOURS, "too small for"),
    ("wavenet", {"kernel_size": 1}, DIGITS, "--kernel-size 2"),
    ("masked_diffusion", {"heads": 3}, DIGITS, "--heads 3 do not divide --features 64"),
    ("masked_diffusion", {"sampling_steps": 65}, DIGITS, "--sampling-steps 65 is more than the 64 dimensions"),
    ("masked_diffusion", {}, POINTS, "no levels"),
    ("wavenet", {}, POINTS, "no levels"),
    ("d3pm", {"diffusion_steps": 1_000}, COLOURS, "use at most 512"),
    ("d3pm", {"bound_terms": 101}, DIGITS, "--bound-terms 101 is more than the 100 steps"),
    ("d3pm", {}, POINTS, "no levels"),
    ("d3pm", {}, BINARY, "use --transitions uniform"),
    ("transformer", {"heads": 3}, DIGITS, "--heads 3 do not divide --features 64"),
    ("transformer", {}, POINTS, "no levels"),
    ("nice", {"alpha": 0.5}, DIGITS, "use less than 0.5"),
    ("nice", {}, PIXEL, "tiny has one dimension, which couplings cannot divide into two halves"),
    ("nice", {}, NUMBER, "one dimension"),
    ("spline_flow", {}, PIXEL, "one dimension"),
    ("realnvp", {"network": "mlp"}, PIXEL, "one dimension"),
    ("realnvp", {}, NUMBER, "one dimension"),
    ("realnvp", {"network": "conv"}, POINTS, "images"),
    ("glow", {}, POINTS, "images"),
    ("vae", {"conditional": True}, BINARY, "no labels to condition on"),
    ("gan", {"conditional": True}, BINARY, "no labels to condition on"),
    ("gan", {"network": "conv"}, POINTS, "images"),
    ("gan", {"network": "resnet"}, POINTS, "images"),
    ("gan", {"discriminator_features": 4}, DIGITS, "--network resnet"),
    (
        "gan",
        {"discriminator_steps": 9, "train": {"steps": 8}},
        DIGITS,
        "--discriminator-steps 9 leave the generator",
    ),
    ("improved_gan", {"network": "resnet"}, DIGITS, "use --network conv or mlp"),
    ("improved_gan", {"label_smoothing": 1.0}, DIGITS, "less than 1"),
    ("ddpm", {"network": UNetConfig(attention=(2,))}, DIGITS, "--network.attention 2"),
    ("ddpm", {"network": UNetConfig()}, POINTS, "use --network mlp"),
    ("ddpm", {"network": MLPConfig()}, DIGITS, "use --network unet"),
    ("ddpm", {"network": UNetConfig(attention=(-1,))}, DIGITS, "numbered from 0"),
    ("ddpm", {"sampler": {"eta": 0.5}}, DIGITS, "use --sampler.method ddim"),
    ("ddpm", {"sampler": {"eta": 1.5, "method": "ddim"}}, DIGITS, "from 0 to 1"),
    ("ddpm", {"beta_min": 25.0}, DIGITS, "use less than 20"),
    ("ddpm", {"beta_min": 5.0, "beta_max": 4.0}, DIGITS, "use less than 4"),
    ("ddpm", {"beta_max": 2_000.0}, DIGITS, "the linear schedule needs more than 2000 steps"),
    ("ddpm", {"beta_max": 30.0, "schedule": "cosine"}, DIGITS, "--beta-max 30.0 has no effect on the cosine schedule"),
    ("latent_diffusion", {"schedule": "cosine"}, DIGITS, "use --beta-min None, or --schedule linear"),
    ("ddpm", {"beta_max": 1_000.0, "schedule": "quadratic"}, DIGITS, "the quadratic schedule needs more than 1000"),
    ("ddpm", {"beta_min": 1.0, "schedule": "cosine"}, DIGITS, "--schedule linear"),
    ("ddpm", {"diffusion_steps": 20, "sampler": {"steps": 20}}, DIGITS, "more than 20 steps"),
    ("ddpm", {"diffusion_steps": 1, "sampler": {"steps": 1}, "schedule": "cosine"}, DIGITS, "at least 2"),
    ("ddpm", {"sampler": {"steps": 2_000}}, DIGITS, "--sampler.steps 2000"),
    ("ddpm_conditional", {}, BINARY, "no labels"),
    ("ddpm_conditional", {"drop_label": 1.0}, DIGITS, "--drop-label 1"),
    ("latent_diffusion", {"train": TrainConfig(steps=4_000), "autoencoder": {"steps": 4_000}}, DIGITS, "leave none"),
    (
        "latent_diffusion",
        {"autoencoder": SpatialAutoencoderConfig()},
        DIGITS,
        "the latents of --autoencoder spatial are an image, which --network mlp cannot take: use --network unet or dit",
    ),
    *(
        (
            "latent_diffusion",
            {"network": network},
            DIGITS,
            f"the latents of --autoencoder flat are a vector, which --network {network.name} cannot take: use "
            "--network mlp, or --autoencoder spatial",
        )
        for network in (UNetConfig(), DiTConfig())
    ),
    (
        "latent_diffusion",
        {"autoencoder": SpatialAutoencoderConfig(), "network": UNetConfig()},
        POINTS,
        "toy:two_moons is not made of images",
    ),
    (
        "latent_diffusion",
        {"autoencoder": SpatialAutoencoderConfig(features=(8,) * 4), "network": UNetConfig()},
        DIGITS,
        "divisible by 16",
    ),
    (
        "latent_diffusion",
        {"autoencoder": SpatialAutoencoderConfig(), "network": UNetConfig()},
        DIGITS,
        r"--autoencoder.log-var -6 does not fit digits: .* choose at least -5\.545",
    ),
    ("vq_vae", {}, POINTS, "toy:two_moons is not made of images"),
    ("vq_vae", {"quantizer": FSQConfig(levels=(5, 1))}, DIGITS, "--quantizer.levels 1 cannot code anything"),
    ("vq_vae", {"quantizer": FSQConfig(levels=(300, 300))}, DIGITS, "--quantizer.levels have 90,000 codes"),
    ("vq_vae", {"prior": {"heads": 3}}, DIGITS, "--prior.heads 3 do not divide --prior.features 64"),
    ("vq_vae", {"train": TrainConfig(steps=50), "autoencoder": {"steps": 50}}, DIGITS, "leave none"),
    ("vq_vae", {"autoencoder": {"features": (8,) * 5}}, DIGITS, "divisible by 32"),
    ("vq_vae", {"conditional": True}, BINARY, "binarized_mnist has no labels"),
    ("text_to_image", {}, COLOURS, "cifar10: the model reads captions, but the data have none"),
    ("text_to_image", {"autoencoder": {"patch": 3}}, CAPTIONS, "use 1, 2 or 4"),
    ("text_to_image", {"autoencoder": {"features": (8,) * 6}}, CAPTIONS, "divisible by 64"),
    ("text_to_image", {"network": DiTConfig(heads=3)}, CAPTIONS, "--network.heads 3 do not divide"),
    ("text_to_image", {"text": {"heads": 3}}, CAPTIONS, "--text.heads 3 do not divide"),
    ("text_to_image", {"drop_caption": 0.0}, CAPTIONS, "--drop-caption 0"),
    ("text_to_image", {"negative_prompt": "a purple two"}, CAPTIONS, "purple"),
    ("improved_gan", {"train": {"batch_size": 1}}, DIGITS, "at least 2, or --no-virtual-batch-norm"),
    ("wgan_gp", {"train": {"steps": 4}}, DIGITS, "--critic-steps 5 leave the generator no update in 4 steps"),
    (
        "vae",
        {"train": {"steps": 40}, "optimizer": {"accumulate_steps": 1_000}},
        DIGITS,
        "--optimizer.accumulate-steps 1000 makes no update in 40 steps: use at most 40",
    ),
    (
        "latent_diffusion",
        {"train": {"steps": 30}, "optimizer": {"accumulate_steps": 25}},
        DIGITS,
        "--optimizer.accumulate-steps 25 makes no update in 20 steps",
    ),
    (
        "vae",
        {"train": {"steps": 50}, "optimizer": {"warmup_steps": 100}},
        DIGITS,
        "100 of 50 updates: use --optimizer.warmup-steps 5",
    ),
    (
        "gan",
        {"train": {"steps": 50}, "generator": {"schedule": "cosine", "warmup_steps": 100}},
        DIGITS,
        "use --generator.warmup-steps 5",
    ),
]


def built(name, choices, spec):
    config = importlib.import_module(f"experiments.{name}").CONFIG
    return recipes.build(updated(config, choices), spec)


@pytest.mark.parametrize(("name", "choices", "spec"), CHOICES)
def test_the_model_of_every_choice_takes_the_data(name, choices, spec):
    model = built(name, choices, spec).model
    batch = abstract_batch(spec, 4)
    params, model_state = jax.eval_shape(model.init, jax.random.key(0), batch)
    seen = jax.eval_shape(
        functools.partial(model_state_lib.local_view, sync=model.sync, batch_size=4, axis_name=None), model_state
    )
    for objective in model.objectives:
        loss, _ = jax.eval_shape(objective.loss, params, seen, jax.random.key(0), batch)
        assert loss.shape == ()
    samples = jax.eval_shape(lambda *state: model.sample(*state, jax.random.key(0), 3), params, model_state)
    assert (samples.shape, samples.dtype) == ((3, *spec.shape), batch["x"].dtype)
    assert all(np.issubdtype(leaf.dtype, np.float32) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(("name", "choices", "spec", "message"), MISTAKES)
def test_a_contradiction_is_refused_with_what_to_do(name, choices, spec, message):
    with pytest.raises(UserError, match=message):
        built(name, choices, spec)


@pytest.mark.parametrize(("spec", "measure"), [(DIGITS, "17 levels"), (BINARY, "binary"), (COLOURS, "256 levels")])
def test_a_vq_vae_is_of_the_levels_of_the_data(spec, measure):
    assert built("vq_vae", {}, spec).family.likelihood.measure == measure


def test_fsq_needs_no_commitment():
    assert built("vq_vae", {"quantizer": FSQConfig()}, DIGITS).family.commitment == 0.0


def test_the_bound_of_latent_diffusion_reports_its_latents_and_terms():
    experiment = built("latent_diffusion", {"diffusion_steps": 30, "sampler": {"steps": 5}, "elbo_samples": 3}, DIGITS)
    batch = abstract_batch(DIGITS, 4)
    state = jax.eval_shape(experiment.model.init, jax.random.key(0), batch)
    likelihood = jax.eval_shape(experiment.model.log_prob, *state, jax.random.key(0), batch["x"])
    assert dict(likelihood.settings) == {"L": 3, "T": 30, "bound_terms": 29, "space": "[0,16]^64"}
    assert experiment.settings["variance"] == "transition"
