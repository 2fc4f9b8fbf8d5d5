"""Captioned pictures: reproducible, of disjoint handwriting, true to their captions, with combinations held out."""

import numpy as np
import pytest

from gm_jax.data import captions, pipeline, scenes, sources
from gm_jax.errors import UserError
from tests.data.test_real_tfds_sets import REAL, needs


@pytest.fixture(scope="module")
def source():
    return sources.load("captions")


def test_the_source_has_pictures_and_tokens_and_no_labels(source):
    spec = source.spec
    assert (spec.shape, spec.levels, spec.num_classes) == ((32, 32, 3), 256, None)
    assert (spec.tokens, spec.vocabulary) == (captions.LENGTH, len(captions.VOCABULARY))
    for split, count in scenes.NUM_EXAMPLES.items():
        x, tokens = source.splits[split]["x"], source.splits[split]["tokens"]
        assert (x.shape, x.dtype) == ((count, 32, 32, 3), np.uint8)
        assert (tokens.shape, tokens.dtype) == ((count, captions.LENGTH), np.int32)
    batch = pipeline.train_batch(source.splits["train"], 4, 0, 0)
    assert batch["tokens"].shape == (4, captions.LENGTH)


def test_the_data_are_those_of_the_published_numbers(source):
    # A change here changes the data behind every published number on captions.
    assert source.spec.fingerprint == "413e2678bb4a80e3eb580e5df8e1305b3fda504f7bf654be3de2bc572b52493e"


def test_a_source_without_captions_says_so():
    assert sources.load("digits").spec[-2:] == (None, None)


def test_a_scene_is_a_function_of_the_seed_and_its_number():
    glyphs = scenes.handwriting(sources.load("digits").splits, 17)["validation"]

    def drawn(seed, num, start=0):
        words = scenes._stream(seed, 1, num)[start:]
        return scenes.paint(scenes.draw_scenes(words, with_held_out=False), glyphs, words)

    np.testing.assert_array_equal(drawn(3, 50)[20:30], drawn(3, 30, start=20))
    assert (drawn(4, 10) != drawn(3, 10)).any(axis=(1, 2, 3)).all()


def test_captions_of_training_never_have_a_held_out_combination(source):
    said = {split: captions.parse(source.splits[split]["tokens"]) for split in scenes.NUM_EXAMPLES}
    seen = _combinations(said["train"]) | _combinations(said["validation"])
    assert len(seen) == 270
    everything = {(d, c, r) for d in range(10) for c in range(6) for r in ("", *captions.RELATIONS)}
    missing = everything - seen
    assert len(missing) == 30
    # Composition: each pair of the three has been seen.
    for kept in ((0, 1), (0, 2), (1, 2)):
        assert {tuple(each[i] for i in kept) for each in seen} == {tuple(each[i] for i in kept) for each in everything}
    for index in range(200):
        one = said["test"].rows(slice(index, index + 1))
        assert bool(_combinations(one) & missing) == bool(index % 2) == bool(scenes.held_out(one)[0])
    assert _combinations(said["test"]) == everything


def _combinations(said):
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    found = set()
    for digit, colour, arrangement in zip(said.digit, said.colour, said.arrangement, strict=True):
        if digit[1] < 0:
            found.add((int(digit[0]), int(colour[0]), ""))
            continue
        relation = captions.ARRANGEMENTS[arrangement]
        found.add((int(digit[0]), int(colour[0]), relation))
        found.add((int(digit[1]), int(colour[1]), opposite[relation]))
    return found


def test_each_word_is_as_frequent_as_documented(source):
    said = captions.parse(source.splits["train"]["tokens"])
    two = said.digit[:, 1] >= 0

    def close(observed, probability):
        assert np.mean(observed) == pytest.approx(probability, abs=5 * np.sqrt(probability / len(observed)))

    close(two, 1 / 2)
    close(said.size[:, 0] >= 0, 15 / 16)
    close(said.size[two, 1] >= 0, 15 / 16)
    close(said.background >= 0, 15 / 16)
    says_all = (said.size != captions.NOT_SAID).all(axis=1) & (said.background >= 0) & (said.arrangement >= 0)
    close(~says_all[two], 1 / 8 * 7 / 8)
    close(said.arrangement[~two] >= 0, 31 / 32)
    for relation in range(4):
        close(said.arrangement[two] == 9 + relation, 1 / 4)
    for place in range(9):
        close(said.arrangement[~two] == place, 31 / 288)
    for colour in range(6):
        close(said.colour[:, 0] == colour, 1 / 6)
    for digit in range(10):
        close(said.digit[:, 0] == digit, 1 / 10)


def test_the_splits_are_written_in_different_hands():
    digits = sources.load("digits").splits
    written = scenes.handwriting(digits, 17)
    drawn = {split: {each.tobytes() for each in glyphs.ink[:, 1]} for split, glyphs in written.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not drawn[one] & drawn[other]
    for split, glyphs in written.items():
        assert len(glyphs.ink) > 0.9 * len(digits[split]["x"]), split
        assert (np.diff(glyphs.first) > 8).all(), split


def test_pictures_show_what_their_captions_say(source):
    """Reads background, colours and positions by comparing pixels with the palette: no model of the package."""
    x, said = source.splits["test"]["x"][:300].astype(int), captions.parse(source.splits["test"]["tokens"][:300])
    for image, *scene in zip(x, *said, strict=True):
        digit, colour, size, arrangement, background = scene
        corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
        grey = np.bincount(np.abs(corners[:, :1] - scenes.GREYS).argmin(1)).argmax()
        assert background in (grey, -1)
        inks = [np.argwhere(np.abs(image - ink).sum(-1) < 75) for ink in scenes.INKS]
        shown = {index for index, pixels in enumerate(inks) if len(pixels) > 1}
        assert shown == {int(c) for c in colour if c >= 0}
        if digit[1] < 0:
            pixels = np.argwhere(np.ptp(image, axis=-1) > 20)
            low, high = pixels.min(0), pixels.max(0)
            row, column = ((low + high + 1) / 2 // (32 / 3)).astype(int)
            assert arrangement in (3 * row + column, -1)
            if size[0] >= 0:
                assert ((high - low).max() + 1 > 12) == (size[0] == 1)
        elif colour[0] != colour[1]:
            first, second = (inks[c].mean(0) for c in colour)
            down, across = second - first
            relation = ("above" if down > 0 else "below") if abs(down) > abs(across) else None
            relation = relation or ("left of" if across > 0 else "right of")
            assert captions.ARRANGEMENTS[arrangement] == relation


@needs("mnist")
def test_captions_of_mnist_are_written_by_its_hands():
    spec, splits = sources.load("captions:mnist", str(REAL))
    assert (spec.shape, spec.tokens, spec.num_classes) == ((32, 32, 3), captions.LENGTH, None)
    np.testing.assert_array_equal(splits["train"]["tokens"], sources.load("captions").splits["train"]["tokens"])


def test_wrong_names_and_sizes_are_refused():
    with pytest.raises(UserError, match="Did you mean 'captions:mnist'"):
        sources.load("captions:minst")
    for name in scenes.NAMES:
        with pytest.raises(UserError, match="has no effect"):
            sources.load(name, size=16)
