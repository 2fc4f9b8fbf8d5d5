"""A trained run in Python: its configuration, its parameters, and its functions, compiled at their first call.

    run = gm_jax.open_run("runs/vae")
    x = run.sample(64, seed=0)
    bound = run.log_prob(x)              # a Likelihood: [64] nats, their kind and their measure

The data of the run are not needed, except where a method says so.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.config import ExperimentConfig
from gm_jax.config.saved import measuring_fields
from gm_jax.data import pipeline
from gm_jax.data.array_cache import Splits
from gm_jax.data.sources import ARRAYS, Source, Spec
from gm_jax.errors import UserError
from gm_jax.evaluation import results
from gm_jax.recipes.own_model import own_experiment
from gm_jax.runner import arguments, image_edits, measure, samples
from gm_jax.runner.family_functions import functions_of, latent_label, lines_of_latents
from gm_jax.runner.run import EVAL_BATCH, Given, Run, changed, reopen
from gm_jax.training.state import TrainState
from gm_jax.training.step import make_eval_step
from gm_jax.types import Array, Likelihood, Model, ModelState, Params

Checkpoint = Literal["best", "latest"] | int
Labels = int | Array | np.ndarray | None

_STATIC = ("n", "num", "num_kept")


def open_run(
    workdir: Path | str,
    *,
    checkpoint: Checkpoint = "best",
    ema: bool = True,
    model: Any = None,
    config_type: type[ExperimentConfig] | None = None,
    data: Any = None,
    data_dir: str | None = None,
) -> "TrainedRun":
    """Opens the run in a folder, wherever gm_jax is installed; its data need not be there.

    Args:
        workdir: the folder, e.g. "runs/vae".
        checkpoint: "best" on validation, "latest", or the number of steps of one that was kept.
        ema: whether to use the average of the parameters, if the run keeps one, or the parameters themselves.
        model: the family or `Model` of a run that was trained on one made in Python.
        config_type: the type of the configuration, if its recipe is not in gm_jax.
        data: the arrays of a run that was trained on arrays, or a `Source`; only for methods that need data.
        data_dir: where the data are now, if not where the run found them.

    Raises:
        UserError: the folder holds no run, or the run or the checkpoint is damaged or of another kind.
    """
    given = Given(None, _builder(model))
    run = reopen(workdir, config_type=config_type, with_data=False, given=given)
    source = None if data is None else arguments.as_source(data, run.spec)
    return TrainedRun(run, checkpoint, ema=ema, model=model, source=source, data_dir=data_dir)


class TrainedRun:
    """A run at one checkpoint.

    Attributes:
        config: the configuration.
        spec: shape, levels and classes of the data.
        folder: the run's folder.
        step: of the checkpoint.
        state: the checkpoint, without the optimiser's state.
        params: the parameters, keyed by player: their average, or the parameters themselves.
        model_state: what the networks carry in addition.
        model: the family's functions, for your own code.
        family: the family itself, e.g. a `models.vae.VAE`; None if there is none.
    """

    def __init__(
        self,
        run: Run,
        checkpoint: Checkpoint = "best",
        *,
        ema: bool = True,
        model: Any = None,
        source: Source | None = None,
        data_dir: str | None = None,
    ):
        state, self.step = run.restore_for_use(checkpoint)
        self._run, self._own, self._source, self._data_dir = run, model, source, data_dir
        self.state: TrainState = state if ema else state._replace(ema_params=None)
        self._variants: dict[str, Run] = {}
        self._compiled: dict[tuple, Any] = {}

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.folder)!r}, step={self.step}, data={self.spec.name!r})"

    @property
    def config(self) -> ExperimentConfig:
        """The configuration."""
        return self._run.config

    @property
    def spec(self) -> Spec:
        """Shape, levels and classes of the data."""
        return self._run.spec

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._run.folder.root

    @property
    def params(self) -> Params:
        """The parameters that are used, keyed by player."""
        return self.state.eval_params

    @property
    def model_state(self) -> ModelState:
        """What the networks carry in addition to parameters."""
        return self.state.model_state

    @property
    def model(self) -> Model:
        """The family's functions of (params, model_state, key, ...)."""
        return self._run.experiment.model

    @property
    def family(self) -> Any:
        """The family, e.g. a `models.vae.VAE`; None for a run of a `Model` alone."""
        return self._run.experiment.family

    @property
    def results(self) -> list[results.Record]:
        """The records of results.json; none if nothing was measured yet. A damaged file raises a UserError."""
        return measure.read_results(self._run)

    @property
    def data(self) -> Splits:
        """The data, "train", "validation", "test" -> {"x": ..., "label": ...}; they are loaded at the first use.

        Raises:
            UserError: they are not there, or are not those that the run was trained on.
        """
        return self._with_data().loaded

    def at(self, checkpoint: Checkpoint, *, ema: bool = True) -> "TrainedRun":
        """Returns the same run at another checkpoint, or with other parameters of it.

        Args:
            checkpoint: "best", "latest", or a number of steps.
            ema: whether to use the average of the parameters.
        Raises:
            UserError: there is no such checkpoint, or it is damaged.
        """
        source = self._source
        return TrainedRun(self._run, checkpoint, ema=ema, model=self._own, source=source, data_dir=self._data_dir)

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        label: Labels = None,
        prompt: str | Sequence[str] | None = None,
        temperature: float | None = None,
        **sampling: Any,
    ) -> np.ndarray:
        """Draws samples: those that the verb `sample` draws with the same seed and options.

        Args:
            n: how many.
            seed: of the samples.
            label: a class, or one for each sample, for a model that is conditioned on labels.
            prompt: what to draw, or one for each sample, for a model of captions.
            temperature: for autoregressive models and flows; less than 1 stays closer to the most likely samples.
            **sampling: fields of the configuration that change how samples are drawn, e.g. guidance=2.0 or
                sampler={"method": "ddim", "steps": 20}. For a family of your own, fields of the family.
        Returns:
            [n, ...] as the data set ships them: uint8 levels or float32 points.
        Raises:
            UserError: the model has no such option, or a value is out of range.
        """
        run = self._variant(sampling)
        options = samples.label_options(self.spec, n, label, prompt)
        options |= {} if temperature is None else {"temperature": temperature}
        return samples.draw_many(run, self.state, arguments.positive(n, "n"), seed=seed, **options)

    def edit(
        self,
        x: Any,
        *,
        strength: float = 0.6,
        mask: Any = None,
        seed: int = 0,
        label: Labels = None,
        prompt: str | Sequence[str] | None = None,
        **sampling: Any,
    ) -> np.ndarray:
        """Draws a picture near each x: image to image, or inpainting with a mask; see `models.image_editing`.

        Args:
            x: [N, H, W, C] as the data set ships them.
            strength: from 0, which returns the decoded latents of x, to 1, which draws new samples.
            mask: [H, W] bool, True where the picture is drawn again, best with strength 1; None for everywhere.
            seed: of the noise.
            label: as for `sample`.
            prompt: as for `sample`.
            **sampling: as for `sample`.
        Raises:
            UserError: the model cannot edit, or an argument does not fit it.
        """
        options = samples.label_options(self.spec, len(x), label, prompt)
        run = self._variant(sampling)
        return image_edits.draw_edits(run, self.state, x, seed=seed, strength=strength, mask=mask, **options)

    def log_prob(self, x: Any, *, seed: int = 0, batch_size: int = EVAL_BATCH, **measuring: Any) -> Likelihood:
        """Computes log p(x) in the model's own measure, as an evaluation with the same seed does.

        The number of an example depends on the seed and on its place in x, and not on the batch size.

        Args:
            x: [N, ...] as the data set ships them.
            seed: of the noise.
            batch_size: examples at a time; it changes only memory and speed.
            **measuring: fields of the configuration that change what is measured, e.g. importance_samples=5000. For a
                family of your own, fields of the family.
        Returns:
            A Likelihood of [N] nats, with its kind, its measure and its settings.
        Raises:
            UserError: the model has no log-probability, x does not fit it, or the data are needed to prepare it (for a
                GAN) and are not there.
        """
        arguments.refuse_options_of_sample(measuring)
        run = self._variant(measuring)
        log_prob = run.experiment.model.log_prob
        if log_prob is None:
            raise UserError(f"the run in {self.folder} has no log-probability: its model is only sampled from.")
        x, shards = arguments.as_data(self.spec, x), run.strategy.num_shards
        if not len(x):
            raise UserError("x has no examples: give at least one.")
        size = -(-min(arguments.positive(batch_size, "batch_size"), len(x)) // shards) * shards
        state = self._prepared
        step = self._cached(
            ("log_prob", arguments.cache_key(measuring), seed), lambda: _evaluation(run, log_prob, seed)
        )
        parts = []
        for index, (batch, mask) in enumerate(pipeline.eval_batches({"x": x}, size)):
            found = step(state.eval_params, state.model_state, index, batch["x"])
            parts.append(jax.tree.map(lambda leaf, mask=mask: np.asarray(leaf)[mask], found))
        return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *parts)

    def encode(self, x: Any, *, seed: int = 0, label: Labels = None) -> Any:
        """Encodes data: (mean [N, Z], log-variance [N, Z]) of a VAE's q(z|x), or latents [N, D] of a flow, or codes.

        Args:
            x: [N, ...] as the data set ships them.
            seed: of the noise that prepares x, e.g. binarises or dequantises it.
            label: a class, or one for each example: for a class-conditional VAE alone, which needs it.
        Raises:
            UserError: the family has no encoder, or x or the label does not fit it.
        """
        x = arguments.as_data(self.spec, x)
        return self._call("encode", seed, x, **latent_label(self.family, "encode", self.spec, label, len(x)))

    def decode(self, z: Any, *, label: Labels = None) -> Array:
        """Decodes latents [N, Z], or codes: means of a VAE's p(x|z), or the data of a flow's or a GAN's latents.

        A class-conditional model needs `label`, a class or one for each latent. What does not fit raises a UserError.
        """
        return self._call("decode", 0, jnp.asarray(z), **latent_label(self.family, "decode", self.spec, label, len(z)))

    def reconstruct(self, x: Any, *, seed: int = 0) -> Array:
        """Decodes the means of a VAE's q(z|x), or the codes of x: float32 [N, ...] on the data set's scale.

        A family without an encoder, and x that does not fit it, raise a UserError.
        """
        return self._call("reconstruct", seed, arguments.as_data(self.spec, x))

    def interpolate(self, x_a: Any, x_b: Any, *, num: int = 10, seed: int = 0, label: Labels = None) -> Array:
        """Decodes points between the latents of pairs: [N, num, ...], ends included; on lines, or on a GAN's arcs.

        Args:
            x_a: [N, ...] data where the lines start; of a GAN, which has no encoder, latents [N, Z].
            x_b: [N, ...] where they end.
            num: points on each line.
            seed: of the noise that prepares the data.
            label: a class, or one for each pair: for a class-conditional GAN alone, which needs it.
        """
        checked = jnp.asarray if lines_of_latents(self.family) else functools.partial(arguments.as_data, self.spec)
        options: dict[str, Any] = {"num": arguments.positive(num, "num")}
        options |= latent_label(self.family, "interpolate", self.spec, label, len(x_a))
        return self._call("interpolate", seed, checked(x_a), checked(x_b), **options)

    def trajectory(self, n: int, *, seed: int = 0, label: Labels = None, **sampling: Any) -> Any:
        """Draws the samples of a diffusion model with every state on the way, see `samplers.diffusion.Trajectory`.

        Args:
            n: how many; up to 500 of them equal those of `sample`.
            seed: of the samples.
            label: a class, or one for each sample.
            **sampling: as for `sample`.
        Returns:
            A Trajectory on the scale of x_0: [-1, 1] for images. `run.family.space.to_data` turns it into data.
        Raises:
            UserError: the family has no trajectory, or no such option.
        """
        options = samples.label_options(self.spec, n, label)
        return self._call("trajectory", seed, n=arguments.positive(n, "n"), changes=sampling, **options)

    def complete(
        self,
        x: Any,
        num_kept: int,
        *,
        seed: int = 0,
        label: Labels = None,
        temperature: float | None = None,
    ) -> Array:
        """Keeps the first dimensions of x in the order of an autoregressive model, and draws the others.

        Args:
            x: [N, ...] as the data set ships them.
            num_kept: how many dimensions to keep.
            seed: of the draws.
            label: a class, or one for each example.
            temperature: as for `sample`.
        Raises:
            UserError: the family does not complete, or x does not fit it.
        """
        x = arguments.as_data(self.spec, x)
        options = samples.label_options(self.spec, len(x), label)
        return self._call("complete", seed, x, num_kept=num_kept, temperature=temperature, **options)

    def _call(
        self, name: str, seed: int, *args: Any, changes: Mapping[str, Any] = MappingProxyType({}), **rest: Any
    ) -> Any:
        def compile() -> Any:
            functions = functions_of(self._variant(changes).experiment.family)
            if name not in functions:
                has = ", ".join(["sample", "log_prob", *functions])
                raise UserError(f"the run in {self.folder} has no {name!r}: use {has}.")
            return jax.jit(functions[name], static_argnames=[setting for setting in rest if setting in _STATIC])

        fn = self._cached((name, arguments.cache_key(changes)), compile)
        return fn(self.params, self.model_state, jax.random.key(seed), *args, **rest)

    def _cached(self, key: tuple, make: Any) -> Any:
        if key not in self._compiled:
            self._compiled[key] = make()
        return self._compiled[key]

    def _variant(self, changes: Mapping[str, Any]) -> Run:
        """Returns the run with other values of fields that only measure or sample."""
        if not changes:
            return self._run
        key = arguments.cache_key(changes)
        if key not in self._variants:
            if self._own is None:
                arguments.check_changes(self._run.config, changes, measuring_fields(type(self._run.config)))
                self._variants[key] = changed(self._run, changes)
            else:
                own = arguments.replaced(self._own, changes)
                self._variants[key] = changed(self._run, {}, Given(None, _builder(own)))
        return self._variants[key]

    @functools.cached_property
    def _prepared(self) -> TrainState:
        if self._run.experiment.prepare_evaluation is None:
            return self.state
        return measure.prepared(self._with_data(), self.state, seed=self._run.config.train.seed)[0]

    def _with_data(self) -> Run:
        if self._run.splits is None:
            source = self._source
            if source is None and self.spec.name.startswith(ARRAYS.rstrip(":")):
                raise UserError(
                    f"the run in {self.folder} was trained on arrays, which its folder does not hold: give them, "
                    "gm_jax.open_run(FOLDER, data=...)."
                )
            given = Given(source, _builder(self._own))
            config_type = type(self._run.config)
            self._run = reopen(self.folder, config_type=config_type, data_dir=self._data_dir, given=given)
        return self._run


def _builder(own: Any) -> Any:
    return None if own is None else functools.partial(own_experiment, own)


def _evaluation(run: Run, log_prob: Any, seed: int) -> Any:
    return run.strategy.compile_eval(make_eval_step(log_prob, seed=seed))
