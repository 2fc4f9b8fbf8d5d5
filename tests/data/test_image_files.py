"""Images of every mode that PNG and JPEG files have, and files that are no images."""

import io
import os

import numpy as np
import PIL.Image
import pytest

from gm_jax.data import image_files
from tests.data.tfds_examples import png

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 6), np.uint8)
RGB = RNG.integers(0, 256, (4, 6, 3), np.uint8)
ALPHA = np.linspace(0, 255, 24).astype(np.uint8).reshape(4, 6)


def encoded(array, **options):
    return png(PIL.Image.fromarray(array), **options)


def on_white(colour):
    share = ALPHA.astype(np.float64)[..., None] / 255
    return share * colour.reshape(4, 6, -1) + (1 - share) * 255


def test_grey_and_colour_are_read_as_they_are():
    np.testing.assert_array_equal(image_files.decode(encoded(GREY), 1)[..., 0], GREY)
    np.testing.assert_array_equal(image_files.decode(encoded(RGB), 3), RGB)
    assert image_files.declared(encoded(GREY)) == (4, 6, 1)
    assert image_files.declared(encoded(RGB)) == (4, 6, 3)


def test_grey_among_colours_has_three_equal_channels():
    np.testing.assert_array_equal(image_files.decode(encoded(GREY), 3), np.stack([GREY] * 3, axis=-1))


def test_transparent_pixels_are_composited_on_white():
    rgba = image_files.decode(encoded(np.concatenate([RGB, ALPHA[..., None]], axis=-1)), 3)
    np.testing.assert_allclose(rgba, on_white(RGB), atol=1.5)
    grey = image_files.decode(encoded(np.stack([GREY, ALPHA], axis=-1)), 1)
    np.testing.assert_allclose(grey, on_white(GREY), atol=1.5)
    assert image_files.declared(encoded(np.stack([GREY, ALPHA], axis=-1))).channels == 1


def test_one_colour_that_a_palette_makes_transparent_is_white():
    palette = PIL.Image.new("P", (6, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    palette.putpixel((2, 1), 0)
    pixels = image_files.decode(png(palette, transparency=0), 3)
    assert pixels[1, 2].tolist() == [255, 255, 255]
    assert pixels[0, 0].tolist() == [10, 200, 30]


def test_sixteen_bits_become_eight_and_one_bit_becomes_black_and_white():
    deep = (GREY.astype(np.uint16) * 257) + 60
    np.testing.assert_array_equal(image_files.decode(encoded(deep), 1)[..., 0], np.minimum(GREY, 255))
    bits = PIL.Image.fromarray(((GREY > 100) * 255).astype(np.uint8)).convert("1")
    np.testing.assert_array_equal(image_files.decode(png(bits), 1)[..., 0], (GREY > 100) * 255)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_of_every_mode_is_read(mode):
    image = PIL.Image.new("RGB", (32, 16), (60, 120, 240)).convert(mode)
    data = png(image, format="JPEG", quality=100)
    channels = 1 if mode == "L" else 3
    assert image_files.declared(data) == (16, 32, channels)
    expected = np.asarray(image.convert("RGB" if channels == 3 else "L")).reshape(16, 32, channels)
    np.testing.assert_allclose(image_files.decode(data, channels).astype(int), expected, atol=3)


def test_a_photograph_is_turned_upright():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    data = png(PIL.Image.fromarray(RGB), exif=exif)
    assert image_files.declared(data) == (6, 4, 3)
    np.testing.assert_array_equal(image_files.decode(data, 3), np.rot90(RGB, -1))


def test_a_size_takes_the_largest_centred_square():
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255
    assert image_files.decode(encoded(wide), 1, 5).tolist() == np.full((5, 5, 1), 255).tolist()
    tall = np.zeros((31, 10), np.uint8)
    tall[10:20] = 255
    assert image_files.decode(encoded(tall), 1, 10).tolist() == np.full((10, 10, 1), 255).tolist()


def test_shrinking_averages_and_keeps_the_mean():
    checkerboard = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = image_files.decode(encoded(checkerboard), 1, 8).astype(int)
    assert abs(small - 127).max() <= 3
    noise = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    shrunk = image_files.decode(encoded(noise), 3, 4)
    np.testing.assert_allclose(shrunk.mean(axis=(0, 1)), noise.mean(axis=(0, 1)), atol=4)


def test_arrays_are_resized_as_files_are():
    x = RNG.integers(0, 256, (3, 12, 20, 3), np.uint8)
    np.testing.assert_array_equal(
        image_files.resize_arrays(x, 6), np.stack([image_files.decode(encoded(one), 3, 6) for one in x])
    )
    np.testing.assert_array_equal(image_files.resize_arrays(x[:, :12, :12], 12), x[:, :12, :12])
    assert image_files.resize_arrays(x[..., :1], 6).shape == (3, 6, 6, 1)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "is empty"),
        (b"hello", "is not a PNG or JPEG image"),
        (b"GIF89a" + bytes(100), "is not a PNG or JPEG image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a PNG or JPEG image"),
        (encoded(RGB)[:60], "cannot be decoded"),
        (encoded(RGB)[:-20], "cannot be decoded"),
        (encoded(RGB)[:70] + b"??" + encoded(RGB)[72:], "cannot be decoded"),  # a checksum does not fit
        (encoded(np.tile(RGB, (20, 20, 1)), format="JPEG")[:400], "cannot be decoded"),
    ],
)
def test_what_is_no_whole_image_is_refused(tmp_path, data, fault):
    (tmp_path / "a.png").write_bytes(data)
    for source in (data, tmp_path / "a.png"):
        with pytest.raises(image_files.UnfitError, match=fault):
            image_files.decode(source, 3)


def test_a_bomb_is_refused_before_its_pixels_are_decoded(monkeypatch):
    buffer = io.BytesIO()
    PIL.Image.new("1", (2**14, 2**13 + 1)).save(buffer, "PNG")  # 134 million pixels in 17 KB
    assert len(buffer.getvalue()) < 20_000
    monkeypatch.setattr(PIL.Image.Image, "load", None)  # calling it would raise another error
    for read in (image_files.declared, lambda data: image_files.decode(data, 1, 8)):
        with pytest.raises(image_files.UnfitError, match="declares more than 128 million pixels"):
            read(buffer.getvalue())


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(image_files.UnfitError, match="is not a regular file"):
        image_files.declared(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("values", "levels", "becomes"),
    [([0, 1], 2, [0, 1]), ([0, 255], 2, [0, 1]), ([0], 2, [0]), ([1, 255], 256, [1, 255]), ([0, 7], 256, [0, 7])],
)
def test_two_values_are_binary_in_either_encoding(values, levels, becomes):
    images = np.array(values, np.uint8)
    seen = np.isin(np.arange(256), values)
    assert image_files.make_levels([images], seen) == levels
    assert images.tolist() == becomes
