"""The sections that every experiment's configuration shares: data, training, optimisers."""

import dataclasses
from typing import Annotated, ClassVar, Literal, Protocol

from gm_jax.config.fields import Added, Count, CountOrZero, Decay, Factor, Neutral, Rate, RateOrZero, Seed

# Learning-rate schedules whose first updates do not depend on the length of the run.
WITHOUT_END = ("constant", "exponential", "steps")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which data to train on."""

    name: str = "digits"
    """digits, binarized_digits, digits4x4, toy:two_moons, toy:eight_gaussians, toy:checkerboard, toy:pinwheel,
    wave:tones, captions or captions:mnist (digits in colour with captions), the name of a TensorFlow Datasets set,
    folder:PATH (PNG and JPEG images; subfolders are classes), or npz:PATH (arrays x and label)."""
    dir: Annotated[str | None, Neutral] = None
    """The folder of prepared TensorFlow Datasets; by default TFDS_DATA_DIR, or else ~/tensorflow_datasets. For folder:
    and npz:, the folder that a relative PATH starts from."""
    size: Annotated[Count | None, Added(None)] = None
    """Rows and columns of the images: the largest centred square of each image is resized to them. By default images
    stay as they are, and must have one size."""
    flip: Annotated[bool, Added(False)] = False
    """Mirror each training image left to right with probability 1/2; never in an evaluation."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long to train, on which devices, and what to keep."""

    steps: Count = 2_000
    """Steps of the whole run. If the learning rate is constant, a finished run can be resumed with more steps."""
    batch_size: Count = 128
    """Examples per step, over all devices."""
    seed: Seed = 0
    """Seed of all randomness in training: parameters, order of the data, noise."""
    parallel: Literal["jit", "pmap"] = "jit"
    """jit: one program over all devices; the numbers do not depend on their count. pmap: each device draws its own
    noise."""
    steps_per_call: Count = 1
    """Training steps in one call of the compiled program: a larger number saves time if a step is short. It is lowered
    to a common divisor of the other step counts."""
    log_every: Count = 100
    """Steps between two lines of metrics.jsonl."""
    checkpoint_every: Count = 500
    """Steps between two validations and checkpoints."""
    keep_checkpoints: Annotated[Count, Neutral] = 2
    """How many of the latest checkpoints to keep; the best on validation is kept too."""
    tracker: Annotated[Literal["tensorboard", "wandb", "mlflow", "none"], Neutral, Added("tensorboard")] = "tensorboard"
    """Where metrics and samples go beside metrics.jsonl: TensorBoard's events in the run's folder, Weights & Biases or
    MLflow (which you install, and set up by their own environment variables), or nowhere else."""
    patience: CountOrZero = 0
    """Early stopping: stop after this many validations without improvement; 0 for never."""
    ema_decay: Decay = 0.0
    """Decay of the moving average of the parameters (EMA) that is evaluated and sampled from; 0 for none."""
    ema_halflife: Annotated[RateOrZero, Added(0.0)] = 0.0
    """Half-life of the moving average in training images, in place of --train.ema-decay; 0 for none."""
    ema_warmup: Annotated[Literal["ratio", "ramp", "none"], Added("ratio")] = "ratio"
    """How the moving average forgets the initial parameters. ratio: its decay is at most (1 + n) / (10 + n) after n
    updates. ramp: its half-life is at most a twentieth of the updates so far, as in EDM. none: it does not, as in
    DDPM."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam, or another optimiser, and its learning-rate schedule."""

    algorithm: Annotated[Literal["adam", "adamax", "radam", "adagrad", "rmsprop"], Added("adam")] = "adam"
    """The optimiser."""
    learning_rate: Rate = 1e-3
    """Peak learning rate."""
    schedule: Literal["constant", "cosine", "linear", "exponential", "steps"] = "constant"
    """constant; half a cosine or a straight line that reaches 0 at the last step; exponential decay, by
    --optimizer.decay-rate; or steps, at --optimizer.boundaries. All start after the warm-up."""
    decay_rate: Annotated[Factor, Added(1.0)] = 1.0
    """exponential: the factor of the learning rate at each update."""
    boundaries: Annotated[tuple[Count, ...], Added(())] = ()
    """steps: the updates at which the learning rate changes, counted from 0."""
    factors: Annotated[tuple[Rate, ...], Added(())] = ()
    """steps: the learning rate after each boundary, as a share of --optimizer.learning-rate."""
    warmup_steps: CountOrZero | None = 0
    """Updates over which the learning rate rises linearly from 0. None stands for 100, or for a tenth of the updates of
    a cosine that has no more than 100."""
    b1: Annotated[Decay, Added(0.9)] = 0.9
    """Decay of the first moment; no effect on adagrad and rmsprop."""
    b2: Annotated[Decay, Added(0.999)] = 0.999
    """Decay of the second moment, of Adamax's maximum, and of RMSProp's mean square; no effect on adagrad."""
    eps: Rate = 1e-8
    """Added to the root of the second moment, and under the root by adagrad and rmsprop. If it is much larger than the
    gradients, Adam becomes SGD with momentum."""
    weight_decay: RateOrZero = 0.0
    """Decoupled weight decay (AdamW)."""
    l2: Annotated[RateOrZero, Added(0.0)] = 0.0
    """Coupled weight decay: this times the parameters is added to the gradient before the optimiser's moments."""
    clip_norm: Rate | None = None
    """Gradient clipping: a gradient whose global norm is larger than this is scaled down to it."""
    accumulate_steps: Count = 1
    """Gradient accumulation: the gradients of this many steps are averaged for one update."""


@dataclasses.dataclass(frozen=True)
class AdamConfig:
    """Adam of one of several players or stages."""

    learning_rate: Rate = 1e-3
    """Peak learning rate."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """constant, or half a cosine or a straight line that reaches 0 at the last step; all start after the warm-up."""
    warmup_steps: CountOrZero | None = 0
    """Updates over which the learning rate rises linearly from 0. None stands for 100, or for a tenth of the updates of
    a cosine that has no more than 100."""
    b1: Decay = 0.9
    """Decay of the first moment."""
    b2: Decay = 0.999
    """Decay of the second moment."""


@dataclasses.dataclass(frozen=True)
class SGDConfig:
    """Stochastic gradient descent and its learning-rate schedule."""

    learning_rate: Rate = 0.1
    """Learning rate at the first step."""
    schedule: Literal["constant", "linear"] = "linear"
    """constant, or a straight line that reaches 0 at the last step."""
    momentum: Decay = 0.0
    """Decay of the sum of past gradients; 0 for none."""


class ExperimentConfig(Protocol):
    """The attributes of an experiment's configuration that the runner needs; it is a frozen dataclass.

    Attributes:
        recipe: "module:function" of (config, data spec) -> `recipes.experiment.Experiment`. A string, so that the
            configuration can be read without importing jax.
    """

    recipe: ClassVar[str]

    @property
    def data(self) -> DataConfig:
        """Which data."""
        ...

    @property
    def train(self) -> TrainConfig:
        """How to train."""
        ...
