"""The numbers of a run: log-probabilities of a split, and what is counted on samples."""

import functools
import logging
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from gm_jax.data import pipeline
from gm_jax.errors import UserError
from gm_jax.evaluation import features, likelihood, results
from gm_jax.recipes.experiment import CaptionEvaluation, ClassEvaluation, LogProbEvaluation, SampleEvaluation
from gm_jax.runner import draw, sample_quality, samples
from gm_jax.runner.run import EVAL_BATCH, Run
from gm_jax.training import parallel
from gm_jax.training.state import TrainState
from gm_jax.training.step import make_eval_step
from gm_jax.types import LogProbFn

_LOG = logging.getLogger("gm_jax")
_PREPARATION = 1_000  # examples of the validation split, at most
_PREPARATION_KEY = 0xFFFFFFFD  # folded into the seed, it separates this noise from that of training and evaluation


def evaluator(
    run: Run,
    log_prob: LogProbFn,
    *,
    seed: int,
    batch_size: int = EVAL_BATCH,
    before_batch: Callable[[], None] = lambda: None,
) -> Callable[[TrainState, str], likelihood.LikelihoodSummary]:
    """Returns (state, split) -> the summary of a log-probability; compiled once for each shape of a batch.

    Args:
        run: with data.
        log_prob: what is summarised.
        seed: of its noise.
        batch_size: examples per batch, at most.
        before_batch: called before each batch.
    """
    shards = run.strategy.num_shards
    compiled = run.strategy.compile_eval(make_eval_step(log_prob, seed=seed))

    def batches(split: str) -> Iterator[tuple]:
        # A batch is no larger than the split, because what is padded costs time and memory too.
        size = min(batch_size, len(run.loaded[split]["x"]))
        for batch in pipeline.eval_batches(run.loaded[split], -(-size // shards) * shards):
            before_batch()
            yield batch

    def evaluate(state: TrainState, split: str) -> likelihood.LikelihoodSummary:
        return likelihood.evaluate(
            functools.partial(compiled, state.eval_params, state.model_state),
            batches(split),
        )

    return evaluate


def measure_run(
    run: Run,
    state: TrainState,
    step: int,
    *,
    split: str,
    seed: int,
    batch_size: int = EVAL_BATCH,
    before_batch: Callable[[str], None] = lambda name: None,
    facts: Mapping[str, float | bool] | None = None,
) -> list[results.Record]:
    """Returns the records of every evaluation of the experiment; "nll" is the model's own log-probability.

    Args:
        run: with data.
        state: to evaluate.
        step: of the state.
        split: of the data.
        seed: of the evaluation's noise.
        batch_size: examples per batch.
        before_batch: called before each batch with the name of what is measured.
        facts: what `prepared` found, if the state comes from it; None to prepare it here.
    Raises:
        UserError: some of the data are not finite, or a likelihood is NaN. A number about samples that is not finite
            has no value, and a warning names it.
    """
    _check_finite(run, split)
    if facts is None:
        state, facts = prepared(run, state, seed=seed)
    model, spec = run.experiment.model, run.spec
    own = [] if model.log_prob is None else [LogProbEvaluation("nll", model.log_prob)]
    log_probs = [one for one in run.experiment.evaluations if isinstance(one, LogProbEvaluation)]
    records = []
    for name, log_prob in own + log_probs:
        before = functools.partial(before_batch, name)
        summary = evaluator(run, log_prob, seed=seed, batch_size=batch_size, before_batch=before)(state, split)
        if np.isnan(summary.mean):
            raise UserError(
                f"{name} is nan for {summary.num_nan} of {summary.num_examples} examples of the {split} split of "
                f"{spec.name}.\nNo result is written: evaluate another --checkpoint, or train at a smaller rate."
            )
        records += results.likelihood_records(
            name,
            summary,
            data=spec.name,
            split=split,
            num_dims=int(np.prod(spec.shape)),
            settings={**run.experiment.settings, **run.facts, **facts, "step": step, "seed": seed},
        )
    of_noise = {**run.facts, "step": step, "seed": seed}
    for evaluation in run.experiment.evaluations:
        if isinstance(evaluation, ClassEvaluation):
            before = functools.partial(before_batch, "class probabilities")
            records += _class_records(run, state, evaluation, split, settings=of_noise, before_batch=before)
    for evaluation in _of_samples(run):
        before_batch("samples")
        records += _counted_records(run, state, evaluation, of_noise)
    return records + _records_of_captions(run, state, split, of_noise, before_batch)


def _counted_records(
    run: Run, state: TrainState, evaluation: SampleEvaluation, settings: dict[str, Any]
) -> list[results.Record]:
    """Returns what an evaluation counts on samples; a number that is not finite has no value."""
    where = (run.spec.name, sample_quality.observed_measure(run), "samples", evaluation.num_samples)
    records = []
    for name, value in _measured_samples(run, state, evaluation, seed=settings["seed"]).items():
        if not np.isfinite(value):  # the other numbers must not be lost with it
            _LOG.warning(
                f"{name} of {evaluation.num_samples} samples is {value}, and has no value in results.json: "
                "evaluate another --checkpoint, or train at a smaller rate"
            )
        known = results.finite(value)
        records.append(results.Record(name, known, evaluation.units[name], "estimate", *where, settings))
    return records


def prepared(
    run: Run, state: TrainState, *, seed: int, in_training: bool = False
) -> tuple[TrainState, dict[str, float | bool]]:
    """Returns the state to evaluate, fitted to the validation split if the experiment asks for it, and facts of it.

    Args:
        run: with data.
        state: to fit.
        seed: of the noise of the fit.
        in_training: fits as the validations of a training run do, which may be cheaper.
    """
    prepare = run.experiment.prepare_evaluation
    if in_training and run.experiment.prepare_validation is not None:
        prepare = run.experiment.prepare_validation
    if prepare is None:
        return state, {}
    here, x = parallel.local(state), run.loaded["validation"]["x"][:_PREPARATION]
    key = jax.random.fold_in(jax.random.key(seed), _PREPARATION_KEY)
    model_state, found = jax.jit(prepare)(here.eval_params, here.model_state, key, x)
    facts = {name: bool(v) if v.dtype == bool else float(v) for name, v in found.items()}
    state = state._replace(model_state=run.strategy.place(model_state))
    return state, {name: value for name, value in facts.items() if value is not False}


def num_parts(run: Run, split: str, *, batch_size: int = EVAL_BATCH) -> int:
    """Returns how often `measure_run` calls `before_batch`."""
    rows, shards = len(run.loaded[split]["x"]), run.strategy.num_shards
    batches = -(-rows // (-(-min(batch_size, rows) // shards) * shards))
    is_own = run.experiment.model.log_prob is not None
    in_one = sum(isinstance(one, SampleEvaluation | CaptionEvaluation) for one in run.experiment.evaluations)
    return (len(run.experiment.evaluations) - in_one + is_own) * batches + in_one


def count_on_samples(run: Run, state: TrainState, *, seed: int) -> dict[str, float]:
    """Returns the numbers that the experiment counts on samples of the state, by name."""
    values: dict[str, float] = {}
    for evaluation in _of_samples(run):
        values |= _measured_samples(run, state, evaluation, seed=seed)
    return values


def sample_records(
    run: Run,
    state: TrainState,
    *,
    features_name: Literal["digits-cnn", "mnist-cnn", "inception"],
    weights: Path | None,
    num_generated: int | None,
    real_split: str,
    settings: Mapping[str, Any],
) -> list[results.Record]:
    """Returns distances and scores of samples, by the features of an extractor.

    Args:
        run: with data.
        state: whose samples.
        features_name: of the extractor.
        weights: its file, if it is not in the package.
        num_generated: how many samples; None for as many as the split has.
        real_split: what they are compared with.
        settings: what every result must carry; "seed" is the seed of the samples.

    Raises:
        UserError: the extractor's weights are missing, or the data do not fit it.
    """
    extractor, settings = features.load(features_name, weights), {**run.facts, **settings}
    sampler = sample_quality.Sampler(run, state, seed=settings["seed"])
    return sample_quality.measure(
        run, extractor, sampler, num_generated=num_generated, real_split=real_split, settings=settings
    )


def write_results(run: Run, records: list[results.Record]) -> None:
    """Adds the records to results.json, and prints their table, also if they cannot be written.

    Raises:
        UserError: the results.json in the folder is damaged.
    """
    try:
        with run.folder.results_locked():
            results.write(run.folder.results, results.merge(read_results(run), records))
    finally:
        print(results.table(records))


def read_results(run: Run) -> list[results.Record]:
    """Reads the records of results.json; returns none if there is no file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return results.read(run.folder.results)
    except (ValueError, TypeError):
        raise UserError(f"{run.folder.results} is damaged: move it away and repeat the command.") from None


def print_files(run: Run, pictures: draw.Drawn) -> None:
    """Prints the names of the pictures and of results.json, and at the end the picture to look at first."""
    print(f"\n{_files(run, pictures)}")


def table_and_files(run: Run, records: list[results.Record], pictures: draw.Drawn) -> str:
    """Returns what `write_results` and `print_files` print."""
    return f"{results.table(records)}\n\n{_files(run, pictures)}"


def _files(run: Run, pictures: draw.Drawn) -> str:
    names = ", ".join(path.name for path in [*pictures.paths[1:], run.folder.results])
    also = textwrap.fill(f"also in {run.folder.root}: {names}", 100, subsequent_indent="  ", break_on_hyphens=False)
    return f"{also}\nlook at {pictures.paths[0]}: {pictures.first[:1].lower()}{pictures.first[1:]}"


def _check_finite(run: Run, split: str) -> None:
    """Checks that all examples of a split are finite, because one that is not spoils every mean.

    Raises:
        UserError: some are not.
    """
    x = run.loaded[split]["x"]
    if not np.issubdtype(x.dtype, np.floating):
        return
    bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    if len(bad):
        raise UserError(
            f"{len(bad)} of {len(x)} examples in the {split} split of {run.spec.name} are not finite: the first is "
            f"number {bad[0]}.\nRepair the data; the training is saved, and `evaluate` measures it then."
        )


def _class_records(
    run: Run,
    state: TrainState,
    evaluation: ClassEvaluation,
    split: str,
    *,
    settings: Mapping[str, Any],
    before_batch: Callable[[], None],
) -> list[results.Record]:
    arrays, shards = run.loaded[split], run.strategy.num_shards
    compiled = run.strategy.compile_eval(make_eval_step(evaluation.predict, seed=settings["seed"]))
    size = -(-min(EVAL_BATCH, len(arrays["x"])) // shards) * shards
    predicted = []
    for index, (batch, mask) in enumerate(pipeline.eval_batches(arrays, size)):
        before_batch()
        predicted.append(np.asarray(compiled(state.eval_params, state.model_state, index, batch["x"]))[mask])
    where = (run.spec.name, run.spec.measure, split, len(arrays["x"]))
    numbers = evaluation.measure(np.concatenate(predicted), arrays["label"])
    return [
        results.Record(name, float(value), evaluation.units[name], "score", *where, dict(settings))
        for name, value in numbers.items()
    ]


def _records_of_captions(
    run: Run, state: TrainState, split: str, of_noise: Mapping[str, Any], before_batch: Callable[[str], None]
) -> list[results.Record]:
    records = []
    for evaluation in run.experiment.evaluations:
        if isinstance(evaluation, CaptionEvaluation):
            before_batch("samples of captions")
            settings = {**run.experiment.settings, **of_noise}
            records += _caption_records(run, state, evaluation, split, settings=settings)
    return records


def _caption_records(
    run: Run, state: TrainState, evaluation: CaptionEvaluation, split: str, *, settings: Mapping[str, Any]
) -> list[results.Record]:
    """Returns the numbers about samples of a split's captions; a number that is not finite has no value."""
    num = min(evaluation.num_samples, len(run.loaded[split]["x"]))
    x, tokens = (np.asarray(run.loaded[split][name][:num]) for name in ("x", "tokens"))
    drawn = samples.draw_many(run, state, num, seed=settings["seed"], label=tokens)
    here, key = parallel.local(state), jax.random.key(settings["seed"])
    kept = np.asarray(jax.jit(evaluation.reconstruct)(here.eval_params, here.model_state, key, x))
    numbers = evaluation.measure(drawn, tokens, x, kept)
    where = (run.spec.name, run.spec.measure, split, num)
    return [
        results.Record(
            *(name, results.finite(number.value), evaluation.units[name], "estimate", *where),
            {**settings, "captions": number.captions, "standard_error": results.finite(number.standard_error)},
        )
        for name, number in numbers.items()
    ]


def _of_samples(run: Run) -> list[SampleEvaluation]:
    return [one for one in run.experiment.evaluations if isinstance(one, SampleEvaluation)]


def _measured_samples(run: Run, state: TrainState, evaluation: SampleEvaluation, *, seed: int) -> dict[str, float]:
    drawn = samples.draw_samples(run, state, evaluation.num_samples, seed=seed)
    return {name: float(value) for name, value in evaluation.measure(drawn).items()}
