"""Text to image from the command line and in Python: one run of both stages, prompts, edits and what is refused."""

import numpy as np
import pytest
from PIL import Image

import gm_jax
from experiments import text_to_image
from gm_jax.cluster import processes
from gm_jax.cluster.config import ClusterConfig
from gm_jax.data import scenes
from gm_jax.recipes.experiment import CaptionEvaluation
from gm_jax.runner import cli, measure, session
from gm_jax.runner.run import reopen
from gm_jax.training import metrics

pytestmark = pytest.mark.slow  # every verb compiles programs of its own

TINY = (
    *("--train.steps", "4", "--train.batch-size", "8", "--train.checkpoint-every", "4", "--autoencoder.steps", "2"),
    *("--autoencoder.features", "4", "8", "--autoencoder.groups", "2", "--network.features", "8", "8"),
    *("--network.attention", "1", "--network.head-dim", "4"),
    *("--text.features", "8", "--text.layers", "1", "--text.heads", "2"),
    *("--diffusion-steps", "30", "--sampler.steps", "5", "--bound-terms", "1", "--validation-terms", "1"),
    *("--optimizer.warmup-steps", "0", "--autoencoder.optimizer.warmup-steps", "0", "--train.log-every", "2"),
)
NUM_EXAMPLES = {"train": 24, "validation": 12, "test": 12}
PROMPT = "a red seven left of a small blue two"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a tiny run on few pictures, which nothing has evaluated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "NUM_EXAMPLES", NUM_EXAMPLES)
        path = tmp_path_factory.mktemp("runs") / "captions"
        name = "experiments.text_to_image"
        _, args = cli.parse(text_to_image.CONFIG, ["--workdir", str(path), *TINY], module=text_to_image)
        with processes.joined(ClusterConfig()) as member:
            session.train_and_evaluate(name, args.config, path, member, evaluate=False)
    return path


@pytest.fixture(scope="module")
def run(folder):
    return gm_jax.open_run(folder)


def test_both_stages_train_and_each_logs_its_own_losses(run, folder):
    assert run.step == 4
    lines = [line for line in metrics.read(folder / "metrics.jsonl") if line.split == "train"]
    players = [{name.split("/")[0] for name in line.values} for line in lines]
    assert players == [{"vae"}, {"diffusion"}]
    assert lines[1].values["diffusion/squared_error"] > 0.0  # the loss is weighed, and may be negative
    assert "log_error" in run.params["diffusion"]
    assert run.family.scale(run.model_state) != 1.0


def test_a_prompt_is_drawn_by_the_command_as_in_python(folder, run, command, tmp_path):
    ended = command(
        *(
            "sample",
            "--workdir",
            folder,
            "--num",
            "3",
            "--prompt",
            PROMPT,
            "--guidance",
            "4",
            "--negative-prompt",
            "a red two",
        ),
        *("--output", tmp_path / "drawn"),
        experiment=text_to_image,
    )
    assert ended.code == 0, ended.err
    drawn = np.load(tmp_path / "drawn.npy")
    assert drawn.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(drawn, run.sample(3, prompt=PROMPT, guidance=4.0, negative_prompt="a red two"))
    # An empty negative prompt is none, and no guidance reads none.
    np.testing.assert_array_equal(
        run.sample(3, prompt=[PROMPT] * 3, guidance=4.0, negative_prompt=""), run.sample(3, prompt=PROMPT, guidance=4.0)
    )


def test_a_picture_is_edited_by_the_command_as_in_python(folder, run, command, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 255
    Image.fromarray(picture).save(tmp_path / "picture.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    flags = ("sample", "--workdir", folder, "--num", "2", "--prompt", PROMPT, "--image", tmp_path / "picture.png")
    ended = command(*flags, "--mask", tmp_path / "mask.png", "--output", tmp_path / "part", experiment=text_to_image)
    assert ended.code == 0, ended.err
    part, x = np.load(tmp_path / "part.npy"), np.stack([picture] * 2)
    np.testing.assert_array_equal(part[:, :, :16], x[:, :, :16])
    np.testing.assert_array_equal(part, run.edit(x, prompt=PROMPT, strength=1.0, mask=mask > 0))
    ended = command(*flags, "--strength", "0", "--output", tmp_path / "same", experiment=text_to_image)
    assert ended.code == 0, ended.err
    np.testing.assert_allclose(np.load(tmp_path / "same.npy"), run.reconstruct(x), atol=1.0)
    np.testing.assert_array_equal(run.edit(x, strength=1.0, prompt=PROMPT), run.sample(2, prompt=PROMPT))


BAD = {
    "empty": (["--prompt", " "], "the prompt is empty"),
    "overlong": (["--prompt", "a " * 13], "13 words: give at most 12"),
    "unknown word": (["--prompt", "a purpel seven"], "purpel"),
    "unknown negative word": (["--prompt", "a red two", "--negative-prompt", "a dog"], "dog"),
    "label": (["--prompt", "a red two", "--label", "1"], "leave one out"),
    "no picture": (["--strength", "0.5"], "add --image"),
    "strength": (["--image", "{picture}", "--strength", "1.5"], "--strength 1.5 is out of its range"),
    "missing picture": (["--image", "{picture}.jpg"], "there is no picture"),
    "size of the picture": (["--image", "{small}"], "is 8 x 9, and the pictures of captions are 32 x 32"),
    "size of the mask": (
        ["--image", "{picture}", "--mask", "{small}"],
        "the mask is 8 x 9, and the pictures are 32 x 32",
    ),
    "sampler": (["--image", "{picture}", "--sampler.method", "dpmpp"], "steps of the schedule"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_message(name, folder, command, tmp_path):
    paths = {"picture": tmp_path / "picture.png", "small": tmp_path / "small.png"}
    for path, shape in zip(paths.values(), ((32, 32, 3), (8, 9, 3)), strict=True):
        Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    flags, message = BAD[name]
    flags = [flag.format(**paths) for flag in flags]
    ended = command("sample", "--workdir", folder, "--num", "1", *flags, experiment=text_to_image)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err


def test_a_prompt_for_a_run_without_text_is_refused(whole, command):
    ended = command("sample", "--workdir", whole, "--prompt", "a red two")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "--prompt needs a run on captions, and digits has none" in ended.err
    ended = command("sample", "--workdir", whole, "--image", "picture.png")
    assert ended.code == 2
    assert "--image needs a run on images of 256 levels" in ended.err


def test_an_evaluation_reads_samples_of_the_captions_back(folder, monkeypatch):
    monkeypatch.setattr(scenes, "NUM_EXAMPLES", NUM_EXAMPLES)
    reopened = reopen(folder)
    evaluations = [one for one in reopened.experiment.evaluations if isinstance(one, CaptionEvaluation)]
    experiment = reopened.experiment._replace(evaluations=tuple(evaluations))
    experiment = experiment._replace(model=experiment.model._replace(log_prob=None))
    state, step = reopened.restore("latest")
    records = measure.measure_run(reopened._replace(experiment=experiment), state, step, split="test", seed=0)
    values = {record.name: record for record in records}
    assert {"obedience_seen_digit", "obedience_held_out_caption", "ceiling_colour", "floor_caption"} <= set(values)
    assert values["ceiling_caption"].value > 0.8
    assert values["floor_caption"].examples == 12
    assert values["floor_caption"].settings["guidance"] == 2.0
    assert values["ceiling_caption"].settings["standard_error"] is not None
