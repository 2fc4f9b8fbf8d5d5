"""The result of a recipe: functions only, no arrays, nothing computed yet."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import optax

from gm_jax.plotting.layout import Grid
from gm_jax.types import Array, Key, LogProbFn, Model, ModelState, Params, Prepared

GridFn = Callable[..., Grid]  # (params, model_state, key, x) -> examples in data space, with their labels
PrepareFn = Callable[[Params, ModelState, Key, Any], Prepared]


class LogProbEvaluation(NamedTuple):
    """A further log-probability to report.

    Attributes:
        name: of its records, e.g. "negative_elbo".
        log_prob: (params, model_state, key, x) -> Likelihood.
    """

    name: str
    log_prob: LogProbFn


class SampleEvaluation(NamedTuple):
    """Numbers that are counted on samples of the model, also while it trains.

    Attributes:
        units: name of each number -> its unit, e.g. {"modes_covered": "of 8"}.
        measure: [N, ...] samples in data space, numpy -> the number of each name.
        num_samples: N.
    """

    units: Mapping[str, str]
    measure: Callable[[np.ndarray], Mapping[str, float]]
    num_samples: int = 10_000


class ClassEvaluation(NamedTuple):
    """Numbers about a model's class probabilities of a split with labels.

    Attributes:
        units: name of each number -> its unit, e.g. {"accuracy": "share"}.
        predict: (params, model_state, key, x [B, ...]) -> log p(y | x) [B, C].
        measure: (log p(y | x) [N, C], labels [N]), numpy -> the number of each name.
    """

    units: Mapping[str, str]
    predict: Callable[[Params, ModelState, Key, Array], Array]
    measure: Callable[[np.ndarray, np.ndarray], Mapping[str, float]]


class Measured(NamedTuple):
    """A number about a set of examples.

    Attributes:
        value: nan if no example tells it.
        standard_error: of the mean over the examples, or as the evaluation says; nan if too few tell it.
        captions: how many captions tell it.
    """

    value: float
    standard_error: float
    captions: int


class CaptionEvaluation(NamedTuple):
    """Numbers about samples of the captions of a split, such as how they obey them.

    Attributes:
        units: name of each number -> its unit, e.g. {"obedience_digit": "share"}.
        measure: (samples [N, ...], tokens [N, L], the split's own examples of these captions [N, ...], their
            reconstructions [N, ...]), numpy -> the number of each name, and its error.
        reconstruct: (params, model_state, key, x [B, ...]) -> [B, ...], what the model keeps of examples.
        num_samples: N, at most; one for each of the split's first captions.
    """

    units: Mapping[str, str]
    measure: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], Mapping[str, Measured]]
    reconstruct: Callable[[Params, ModelState, Key, Array], Array]
    num_samples: int = 500


class Observation(NamedTuple):
    """What a model models of the data: what its samples are compared with.

    Attributes:
        observe: (key, x [B, ...] as the data set ships it) -> [B, ...] in the same form, e.g. binarised levels.
        measure: the base measure of samples and observed data, as in `types.Likelihood`.
    """

    observe: Callable[[Key, Array], Array]
    measure: str


class DensityPicture(NamedTuple):
    """The learned density of points in the plane, drawn next to the data.

    Attributes:
        log_density: (params, model_state, x [N, 2]) -> [N] nats.
        push: (params, model_state, z [N, 2]) -> [N, 2] from a latent plane to the plane of the data; None without one.
    """

    log_density: Callable[..., Array]
    push: Callable[..., Array] | None = None


class FlowPicture(NamedTuple):
    """The flow of points in the plane from noise to data, drawn as lines next to a field of arrows.

    Attributes:
        lines: (params, model_state, key, n) -> [T, n, 2] points at T times, the data last, on the scale of the data.
        field: (params, model_state, x [N, 2]) -> [N, 2] arrows.
        field_name: what the arrows are.
    """

    lines: Callable[[Params, ModelState, Key, int], Array]
    field: Callable[[Params, ModelState, Array], Array]
    field_name: str


class Experiment(NamedTuple):
    """A model, how it is trained, and what is measured and drawn of it.

    Attributes:
        model: the family's functions; its `log_prob` is the headline of every evaluation, as "nll".
        optimizers: one per player.
        validation: the log-probability that is watched in training and chooses the best checkpoint; None for the
            model's own. Often a cheaper bound than the headline.
        evaluations: what is reported in addition to "nll".
        prepare_evaluation: (params, model_state, key, x) -> (model_state to evaluate with, facts for each result), with
            x of the validation split; a fact that is False is left out. None if the trained state needs no preparation.
        prepare_validation: the same for the validations of a training run; None for prepare_evaluation. Often cheaper.
        pictures: name -> what is drawn for the validation split's first examples. Samples are always drawn.
        sample_mean: (params, model_state, key, n) -> [n, ...], the means of the distributions that the model's `sample`
            draws pixels from, for models of few levels, whose samples are hard to read; None without.
        settings: further facts for every result, e.g. {"binarization": "static"}.
        observation: what samples are compared with; None for the data as shipped.
        uses_labels: whether the model is trained on labels, so that they must be 0 .. num_classes - 1.
        family: the object that handed out the model, e.g. a `models.vae.VAE`, for what it adds to a model: its encoder,
            its latents; None if there is none.
    """

    model: Model
    optimizers: Mapping[str, optax.GradientTransformation]
    validation: LogProbFn | None = None
    evaluations: tuple[LogProbEvaluation | SampleEvaluation | ClassEvaluation | CaptionEvaluation, ...] = ()
    prepare_evaluation: PrepareFn | None = None
    prepare_validation: PrepareFn | None = None
    pictures: Mapping[str, GridFn | DensityPicture | FlowPicture] = MappingProxyType({})
    sample_mean: Callable[[Params, ModelState, Key, int], Array] | None = None
    settings: Mapping[str, Any] = MappingProxyType({})
    observation: Observation | None = None
    uses_labels: bool = False
    family: Any = None
