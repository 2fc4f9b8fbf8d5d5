"""The taxonomy of all families, from the table that compares them."""

from gm_jax.comparison import families, measure
from tools.lecture.page import Number, Page


def taxonomy() -> Page:
    """The taxonomy of generative models."""
    rows = [(family.name, family.taxonomy) for family in families.table()]
    kinds = [kind for _, kind in rows if kind is not None]
    head = "| family | density | computed | sampling | training | latents |\n|---|---|---|---|---|---|\n"
    lines = [f"| {name} | {' | '.join(kind)} |" for name, kind in rows if kind is not None]
    return Page(
        """
        explicit:   the model defines p(x), and computes it, a bound on it, or it up to a constant Z
        implicit:   the model draws x = G(z), and has no p(x) to compute
        """,
        (families.table, measure.Taxonomy),
        """
        Each row is a family of gm_jax, as [the comparison of all families](../results/comparison.md) measures it. The
        columns are the questions that distinguish them. Is there a density? What of it can be computed? How is a
        sample drawn? What does training do? What is drawn or computed beside the data?

        No row wins every column. An exact density costs a step for each pixel, or latents as large as the data. One
        pass from a few latents costs the density, or leaves a bound.
        """,
        (
            Number("families", len(rows), 20, 60, ".0f"),
            Number("explicit families", sum(kind.form == "explicit" for kind in kinds), 16, 60, ".0f"),
            Number("implicit families", sum(kind.form == "implicit" for kind in kinds), 3, 10, ".0f"),
        ),
        table=head + "\n".join(lines),
    )
