"""What the contract must know of a model: a row of `contract_rows.MODELS`."""

from collections.abc import Callable
from typing import NamedTuple

from gm_jax.types import Model

BATCH, STEPS = 8, 4


class Row(NamedTuple):
    """What the contract must know of a model.

    Attributes:
        make: () -> Model.
        shape: of one example.
        levels: of the data; None for points.
        kind: of the likelihood.
        measure: of the likelihood.
        loss: the metric that training must lower.
    """

    make: Callable[[], Model]
    shape: tuple[int, ...]
    levels: int | None
    kind: str
    measure: str
    loss: str = "loss"


def with_labels(model: Model, label_of) -> Model:
    """Returns a model of labels on data that have none: label_of(x [B, ...]) -> [B] takes their place."""

    def labelled(batch):
        return {**batch, "label": label_of(batch["x"])}

    def with_label(objective):
        def loss(params, model_state, key, batch):
            return objective.loss(params, model_state, key, labelled(batch))

        return objective._replace(loss=loss)

    return model._replace(
        init=lambda key, batch: model.init(key, labelled(batch)),
        objectives=tuple(with_label(objective) for objective in model.objectives),
    )
