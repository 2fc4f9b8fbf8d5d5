"""What an experiment's `build` returns: functions only, no arrays, nothing done yet."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import optax

    from gm_jax.types import LogProbFn, Model

PictureFn = Callable[..., Any]


class Statistic(NamedTuple):
    """A number that is counted on samples of the model.

    Attributes:
        measure: [N, ...] samples in data space, numpy -> the number.
        unit: of the number, e.g. "of 8".
        num_samples: N.
    """

    measure: Callable[[Any], float]
    unit: str
    num_samples: int = 10_000


class Plane(NamedTuple):
    """A density of points in the plane, to be drawn.

    Attributes:
        log_density: (params, model_state, x [N, 2]) -> [N] nats.
        push: (params, model_state, z [N, 2]) -> [N, 2] from a latent plane to the data's; None where there is none.
    """

    log_density: Callable[..., Any]
    push: Callable[..., Any] | None = None


class Experiment(NamedTuple):
    """A model, how it is trained, and what is measured and drawn of it.

    Attributes:
        model: the family; its `log_prob` is the headline of every evaluation, as "nll".
        optimizers: one per player.
        validation: the log-probability watched while training and used to choose the best checkpoint; None for the
            model's own. A cheaper bound than the headline's.
        evaluations: further log-probabilities to report, by name.
        statistics: numbers that are counted on samples, by name.
        calibrate: (params, model_state, x) -> (model_state to evaluate with, {name: scalar} that every result must
            carry), from x of the validation split; a bool is carried where it is true. None where an evaluation needs
            nothing but the trained state.
        pictures: name -> (params, model_state, key, x) -> [rows, columns, ...] examples in data space; x is a fixed
            batch of the validation split. The runner draws them as a grid; samples are drawn without being asked.
        plane: the learned density of 2-D points, drawn beside the data; None for no such picture.
        settings: what every result must carry besides, e.g. {"binarization": "static"}.
        rivals: further models of the same data, by name; how long a sample of each takes is measured beside the
            model's own. They are not trained.
    """

    model: "Model"
    optimizers: Mapping[str, "optax.GradientTransformation"]
    validation: "LogProbFn | None" = None
    evaluations: "Mapping[str, LogProbFn]" = MappingProxyType({})
    statistics: Mapping[str, Statistic] = MappingProxyType({})
    calibrate: Callable[..., Any] | None = None
    pictures: Mapping[str, PictureFn] = MappingProxyType({})
    plane: Plane | None = None
    settings: Mapping[str, Any] = MappingProxyType({})
    rivals: "Mapping[str, Model]" = MappingProxyType({})
