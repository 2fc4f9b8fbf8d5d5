"""The chapters of the lecture and their pages, in the order in which the field is taught."""

from collections.abc import Mapping

from tools.lecture import (
    adversarial,
    autoencoders,
    autoregressive,
    captions,
    diffusion,
    energies,
    equivalences,
    evaluation,
    flows,
    mode_collapse,
    taxonomy,
)
from tools.lecture.page import PageFn, title_of

CHAPTERS: Mapping[str, tuple[PageFn, ...]] = {
    "Autoencoders": (
        autoencoders.latent_plane,
        autoencoders.log_variance,
        autoencoders.posterior_collapse,
        autoencoders.tighter_bounds,
    ),
    "Generative adversarial networks": (
        adversarial.generator_losses,
        adversarial.optimal_discriminator,
        mode_collapse.mode_collapse,
        adversarial.bilinear_game,
    ),
    "Autoregressive models": (autoregressive.dependency_maps, autoregressive.order_bias),
    "Flows": (flows.layers_of_a_flow,),
    "Diffusion": (
        diffusion.chains,
        diffusion.bound_terms,
        diffusion.guidance_weight,
        captions.captions,
    ),
    "Energies and scores": (energies.langevin_chains, energies.score_fields, energies.probability_flow),
    "Evaluation": (evaluation.inception_score_fooled, evaluation.samples_of_fid),
    "One field": (equivalences.equivalences, taxonomy.taxonomy),
}

_HEAD = """# Lecture

The field, drawn by its own code. Each page has a concept, its formula, the functions of gm_jax that implement it, and
a picture that these functions made. Every number under a picture was measured by the page, which fails if the number
leaves the stated range. The networks are small and train for seconds. Real results are in
[results](../results/index.md).

`python -m tools.lecture` writes all pages again, in minutes on two cores, and CI runs it with `--check`. The code of
the pages is in `tools/lecture/`, one function a page."""


def index() -> str:
    """Returns the Markdown of the lecture's first page."""
    parts = [_HEAD]
    for chapter, page_fns in CHAPTERS.items():
        rows = [f"{number}. [{title_of(fn)}]({fn.__name__}.md)" for number, fn in enumerate(page_fns, 1)]
        parts.append(f"## {chapter}\n\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"
