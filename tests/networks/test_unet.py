import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks import unet
from gm_jax.networks.text_encoder import TextEncoder

RNG = np.random.default_rng(0)
SMALL = {"features": (4, 8), "blocks": 1, "attention": (1,), "groups": 2, "head_dim": 4}


def inputs(batch=2, side=4, channels=1):
    x_t = jnp.asarray(RNG.normal(size=(batch, side, side, channels)), jnp.float32)
    return x_t, jnp.arange(1, batch + 1), jnp.arange(batch) % 3


@functools.cache
def applied(module):
    return jax.jit(module.apply, static_argnames="train")


def test_the_first_prediction_is_zero():
    module = unet.UNet((4,), groups=2)
    outputs, _ = jax.jit(module.init_with_output)(jax.random.key(0), *inputs()[:2])
    np.testing.assert_array_equal(outputs, np.zeros((2, 4, 4, 1)))


@pytest.mark.slow
def test_every_pixel_depends_on_every_pixel_time_and_label_of_its_example(randomized):
    module = unet.UNet(**SMALL, num_classes=3)
    x_t, t, label = inputs()
    params = randomized(module, x_t, t, label)
    jacobian = jax.jit(jax.jacrev(lambda x_t: module.apply(params, x_t, t, label).reshape(2, 16)))(x_t)
    sees = np.abs(jacobian.reshape(2, 16, 2, 16)) > 0
    assert sees[0, :, 0].all()
    assert sees[1, :, 1].all()
    assert not sees[0, :, 1].any()
    assert not sees[1, :, 0].any()
    whole = applied(module)(params, x_t, t, label)
    for moved in ((x_t, t.at[0].add(5), label), (x_t, t, label.at[0].set(2))):
        difference = np.abs(applied(module)(params, *moved) - whole)
        assert (difference[0] > 0).all()
        assert difference[1].max() < 1e-6


def by_hand(params, x_t, t, label=None, kept=1.0, read=None):
    """Computes equations (1) to (4) for SMALL in float64, in the order of the paper's figure.

    A `kept` of 0 leaves nothing of what the dropout of each block sees. With a context, its mask and its summary to
    read, blocks are those of (6).
    """

    def dense(name, h, of=params):
        return h @ of[name]["kernel"] + of[name].get("bias", 0.0)

    def silu(h):
        return h / (1.0 + np.exp(-h))

    def conv(of, h, stride=1):
        kernel, bias = of["kernel"], of["bias"]
        reach = kernel.shape[0] // 2
        padded = np.pad(h, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        out = np.zeros((*h.shape[:3], kernel.shape[3]))
        for i, j in np.ndindex(kernel.shape[:2]):
            out += padded[:, i : i + h.shape[1], j : j + h.shape[2]] @ kernel[i, j]
        return out[:, ::stride, ::stride] + bias

    def norm(of, h, groups=2):
        parts = h.reshape(len(h), -1, groups, h.shape[-1] // groups)
        mean, var = parts.mean(axis=(1, 3), keepdims=True), parts.var(axis=(1, 3), keepdims=True)
        return ((parts - mean) / np.sqrt(var + 1e-5)).reshape(h.shape) * of["scale"] + of["bias"]

    def block(name, x):
        of = params[name]
        h = conv(of["conv_0"], silu(norm(of["norm_0"], x)))
        moves = dense("time", silu(e), of)[:, None, None]
        if read is None:
            h = norm(of["norm_1"], h + moves)
        else:
            scale, shift = np.split(moves, 2, axis=-1)
            h = (1.0 + scale) * norm(of["norm_1"], h) + shift
        h = conv(of["conv_1"], kept * silu(h))
        return h + (conv(of["shortcut"], x) if "shortcut" in of else x)

    def attend(name, x, head_dim=4):
        of, places = params[name], (len(x), -1, x.shape[-1] // head_dim, head_dim)
        h = norm(of["GroupNorm_0"], x)
        q, k, v = (dense(which, h, of).reshape(places) for which in ("query", "key", "value"))
        weights = np.exp(np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(head_dim))
        y = np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(axis=-1, keepdims=True), v)
        x = x + dense("out", y.reshape(x.shape), of)
        return x if read is None else reading(params[name.replace("attention", "cross_attention")], x, head_dim)

    def reading(of, x, head_dim):
        context, counts, _ = read
        h = x.reshape(len(x), -1, x.shape[-1])
        mean, var = h.mean(axis=-1, keepdims=True), h.var(axis=-1, keepdims=True)
        normed = (h - mean) / np.sqrt(var + 1e-5) * of["norm"]["scale"] + of["norm"]["bias"]
        of, heads = of["attention"], (x.shape[-1] // head_dim, head_dim)
        q, k, v = (
            dense(which, source, of).reshape(*source.shape[:2], *heads)
            for which, source in (("query", normed), ("key", context), ("value", context))
        )
        weights = np.exp(np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(head_dim)) * counts[:, None, None]
        y = np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(axis=-1, keepdims=True), v)
        return x + dense("out", y.reshape(h.shape), of).reshape(x.shape)

    angles = t[:, None] * 10_000.0 ** (-np.arange(2) / 2)
    time = params["time"]
    e = dense("Dense_1", silu(dense("Dense_0", np.concatenate([np.sin(angles), np.cos(angles)], axis=1), time)), time)
    e = e + (label_bias(time, label) if read is None else read[2])
    first = conv(params["first"], x_t)
    above = block("down_0_0", first)
    halved = conv(params["halve_0"], above, stride=2)
    below = attend("down_attention_1_0", block("down_1_0", halved))
    h = block("middle_1", attend("middle_attention", block("middle_0", below)))
    for i, skip in enumerate((below, halved)):
        h = block(f"up_1_{i}", np.concatenate([h, skip], axis=-1))
        h = attend(f"up_attention_1_{i}", h)
    h = conv(params["double_1"], h.repeat(2, axis=1).repeat(2, axis=2))
    for i, skip in enumerate((above, first)):
        h = block(f"up_0_{i}", np.concatenate([h, skip], axis=-1))
    return conv(params["last"], silu(norm(params["norm"], h)))


def label_bias(time, label):
    (of,) = (value for name, value in time.items() if name.startswith("LabelBias"))
    (table,) = jax.tree.leaves(of)
    return table[label]


def test_the_unet_equals_the_network_of_the_paper(randomized):
    module = unet.UNet(**SMALL, num_classes=3)
    x_t, t, label = inputs()
    params = randomized(module, x_t, t, label)
    in_float64 = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    expected = by_hand(in_float64, *(np.asarray(array) for array in (x_t.astype(jnp.float32), t, label)))
    assert expected.std() > 1e-2
    found = applied(module)(params, x_t, t, label)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * expected.std())


def test_a_unet_that_reads_captions_is_its_equations(randomized):
    text = TextEncoder((4,), 5, 16, features=4, heads=1, layers=1)
    module = unet.UNet(**SMALL, text=text, scale_shift=True)
    x_t, t, _ = inputs()
    captions = jnp.array([[3, 1, 2, 0], [1, 1, 0, 0]])
    params = randomized(module, x_t, t, captions)
    context, counts = text.apply({"params": params["params"]["text"]}, captions)
    read = tuple(np.asarray(part, np.float64) for part in (context, counts, text.summary(context, counts)))
    in_float64 = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    expected = by_hand(in_float64, np.asarray(x_t, np.float64), np.asarray(t), read=read)
    assert expected.std() > 1e-2
    found = applied(module)(params, x_t, t, captions)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * expected.std())
    recomputed = module.clone(remat=True)
    np.testing.assert_allclose(applied(recomputed)(params, x_t, t, captions), found, rtol=1e-5, atol=1e-5)
    for moved in ((x_t, t, captions[::-1]), (x_t, t + 3, captions)):
        assert np.abs(applied(module)(params, *moved) - found).max(axis=(1, 2, 3)).min() > 1e-3 * expected.std()
    with pytest.raises(ValueError, match="got none: pass tokens"):
        module.apply(params, x_t, t)


def test_dropout_applies_only_in_training(randomized):
    module = unet.UNet(**SMALL, dropout=0.5)
    x_t, t, _ = inputs()
    params, apply = randomized(module, x_t, t), applied(module)
    draws = [apply(params, x_t, t, train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 1e-2
    np.testing.assert_array_equal(apply(params, x_t, t), apply(params, x_t, t))


def test_every_block_drops_out(randomized):
    module = unet.UNet(**SMALL, num_classes=3, dropout=1.0)
    x_t, t, label = inputs()
    params = randomized(module, x_t, t, label)
    in_float64 = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    expected = by_hand(in_float64, *(np.asarray(array) for array in (x_t.astype(jnp.float32), t, label)), kept=0.0)
    found = applied(module)(params, x_t, t, label, train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * expected.std())


def test_the_unet_of_the_benchmark_has_the_parameter_count_of_diffusers():
    # As many as UNet2DModel, minus the key biases of four attentions, which have no effect.
    module = unet.UNet((32, 64, 64), attention=(1,), head_dim=8)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 28, 28, 1)), jnp.ones(1, jnp.int32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 1_112_801 - 4 * 64


def test_outputs_of_half_precision_are_float32():
    module = unet.UNet(**SMALL, dtype=jnp.bfloat16)
    outputs = jax.eval_shape(module.init_with_output, jax.random.key(0), *inputs()[:2])[0]
    assert outputs.dtype == jnp.float32


def test_sides_double_by_repeating_each_place():
    h = jnp.arange(8.0).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(unet.upsample_nearest(h), np.repeat(np.repeat(h, 2, axis=1), 2, axis=2))


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((2,), {}, "images"),
        ((6, 7, 1), {}, "divisible by 2"),
        ((4, 4, 1), {"groups": 8}, "8 groups"),
        ((4, 4, 1), {"head_dim": 3}, "heads of 3"),
    ],
)
def test_data_and_settings_that_do_not_fit_raise_a_user_error(shape, settings, message):
    module = unet.UNet(**{**SMALL, **settings})
    with pytest.raises(UserError, match=message):
        jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, *shape)), jnp.ones(1))


def edm_block(i, o, resampled=False):
    """Parameters of a residual block with an embedding of 512: norms, convolutions, time, shortcut."""
    shortcut = i * o + o if i != o or resampled else 0
    return 2 * i + 9 * i * o + o + 512 * o + o + 2 * o + 9 * o * o + o + shortcut


def test_a_unet_with_blocks_of_biggan_has_as_many_parameters_as_that_of_edm():
    """NVlabs/edm, SongUNet of --arch=ddpmpp: 55,733,891, with biases of the keys."""
    attention = 2 * 256 + 4 * 256 * 256 + 3 * 256
    stem = 128 * 512 + 512 + 512 * 512 + 512 + 27 * 128 + 128
    down = edm_block(128, 256) + 11 * edm_block(256, 256) + 2 * edm_block(256, 256, True) + 4 * attention
    middle = 2 * edm_block(256, 256) + attention
    up = 14 * edm_block(512, 256) + edm_block(384, 256) + 2 * edm_block(256, 256, True) + attention
    last = 2 * 256 + 27 * 256 + 3
    settings = {"stem": 128, "resample": "block", "rescale": True, "groups": 32}
    module = unet.UNet((256, 256, 256), 4, (1,), augmented=9, **settings)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1))
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert total == stem + 9 * 128 + down + middle + up + last == 55_733_891 - 6 * 256


def test_a_unet_as_adm_has_as_many_parameters_as_that_of_latent_diffusion():
    """CompVis/latent-diffusion, UNetModel of lsun_churches-ldm-kl-8.yaml: 294,966,916, with biases of the keys."""

    def block(i, o):
        """Parameters of a residual block with an embedding of 768, whose scale and shift it learns."""
        return 2 * i + 9 * i * o + o + 768 * 2 * o + 2 * o + 2 * o + 9 * o * o + o + (i * o + o if i != o else 0)

    def attention(c):
        return 2 * c + 4 * c * c + 4 * c  # with biases of the keys

    first = 192 * 768 + 768 + 768 * 768 + 768 + 9 * 4 * 192 + 192
    down = 3 * block(192, 192) + block(192, 384) + 5 * block(384, 384) + block(384, 768) + 4 * block(768, 768)
    down += 2 * attention(192) + 4 * attention(384) + 2 * attention(768)
    middle = 2 * block(768, 768) + attention(768)
    # A level's blocks read the skips of its blocks and of what was halved into it; the last but one level is wider.
    up = 5 * block(1536, 768) + block(1152, 768) + 2 * block(768, 768)
    up += block(1152, 384) + 3 * block(768, 384) + block(768, 384) + block(576, 384) + 2 * block(384, 384)
    up += block(576, 192) + 2 * block(384, 192) + 3 * (attention(192) + 2 * attention(384) + attention(768))
    in_source = first + down + middle + up + 2 * 192 + 9 * 192 * 4 + 4
    attended = 2 * 192 + 4 * 384 + 2 * 768 + 768 + 3 * (192 + 2 * 384 + 768)
    settings = {"head_dim": 24, "resample": "adm", "scale_shift": True, "groups": 32}
    module = unet.UNet((192, 384, 384, 768, 768), 2, (0, 1, 2, 3), **settings)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 4)), jnp.zeros(1))
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert in_source == 294_966_916
    assert total == in_source - attended == 294_957_508


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("resample", [unet.halve, unet.upsample_nearest])
def test_a_block_of_biggan_is_its_equation(resample, plain, x64):
    """Equation (5) in float64, with a convolution that is written out tap by tap; as ADM has it, with r(x) itself."""
    x, embedding = RNG.normal(size=(2, 4, 6, 4)), RNG.normal(size=(2, 5))
    block = unet.ResidualBlock(4, groups=2, resample=resample, rescale=True, plain_shortcut=plain)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x, embedding)
    params = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape), shapes)["params"]

    def conv(name, h):
        kernel = params[name]["kernel"]
        side, (height, width) = kernel.shape[0] // 2, h.shape[1:3]
        padded = np.pad(h, [(0, 0), (side, side), (side, side), (0, 0)])
        taps = np.ndindex(kernel.shape[:2])
        return params[name]["bias"] + sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i, j in taps)

    def active(name, h):  # silu(norm(h))
        parts = h.reshape(2, h.shape[1], h.shape[2], 2, 2)
        mean, var = (moment(parts, axis=(1, 2, 4), keepdims=True) for moment in (np.mean, np.var))
        h = ((parts - mean) / np.sqrt(var + 1e-5)).reshape(h.shape) * params[name]["scale"] + params[name]["bias"]
        return h / (1.0 + np.exp(-h))

    def resampled(h):
        if resample is unet.upsample_nearest:
            return h.repeat(2, axis=1).repeat(2, axis=2)
        return (h[:, ::2, ::2] + h[:, 1::2, ::2] + h[:, ::2, 1::2] + h[:, 1::2, 1::2]) / 4

    time = embedding @ params["time"]["kernel"] + params["time"]["bias"]
    h = conv("conv_0", resampled(active("norm_0", x))) + time[:, None, None]
    shortcut = resampled(x) if plain else conv("shortcut", resampled(x))
    expected = (shortcut + conv("conv_1", active("norm_1", h))) / np.sqrt(2.0)
    found = block.apply({"params": params}, jnp.asarray(x), jnp.asarray(embedding))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("resample", "up"), [("block", [2]), ("adm", [0, 1, 2])])
def test_with_blocks_of_biggan_only_the_last_block_of_a_level_attends_on_the_way_up(resample, up):
    module = unet.UNet((4, 8), 2, (0,), groups=2, resample=resample)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs()[:2])["params"]
    attending = {name for name in shapes if "attention" in name}
    expected = {"down_attention_0_0", "down_attention_0_1", "middle_attention"}
    assert attending == expected | {f"up_attention_0_{i}" for i in up}
    assert ("shortcut" in shapes["halve_0"], "shortcut" in shapes["double_1"]) == (resample == "block",) * 2


def test_another_way_to_resample_is_refused():
    with pytest.raises(ValueError, match="convolution, block, adm"):
        jax.eval_shape(unet.UNet((4, 8), groups=2, resample="blocks").init, jax.random.key(0), *inputs()[:2])


def test_a_rescaled_block_divides_its_sum_by_the_root_of_two():
    block, x = unet.ResidualBlock(4, groups=2, rescale=True), jnp.ones((2, 4, 4, 4))
    params = block.init(jax.random.key(0), x, jnp.ones((2, 5)))
    # The last convolution starts at zero: only x is left.
    np.testing.assert_allclose(block.apply(params, x, jnp.ones((2, 5))), np.full(x.shape, 0.5**0.5), rtol=1e-6)


@functools.cache
def gradient_of(module):
    """Compiles (params, x_t, t) -> (a loss with dropout, its gradient)."""

    def loss(params, x_t, t):
        outputs = module.apply(params, x_t, t, train=True, rngs={"dropout": jax.random.key(1)})
        return jnp.mean(jnp.square(outputs))

    return jax.jit(jax.value_and_grad(loss))


def test_recomputed_blocks_have_the_same_parameters_losses_and_gradients(randomized):
    settings = {"features": (4,), "groups": 2, "dropout": 0.3}  # with attention in the middle
    plain, recomputed = unet.UNet(**settings), unet.UNet(**settings, remat=True)
    x_t, t, _ = inputs()
    params = randomized(plain, x_t, t)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, jax.eval_shape(recomputed.init, jax.random.key(0), x_t, t)
    )
    loss, gradient = gradient_of(recomputed)(params, x_t, t)
    expected_loss, expected = gradient_of(plain)(params, x_t, t)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6 * scale), gradient, expected)


def test_recomputed_blocks_store_less_for_the_backward_pass():
    """Of two blocks in a row a network without remat stores about ten maps each, and one with it only the input."""
    x_t, t = jnp.zeros((4, 8, 8, 1)), jnp.zeros(4)

    def stored(remat):
        module = unet.UNet((16,), 4, groups=2, remat=remat)
        params = jax.eval_shape(module.init, jax.random.key(0), x_t, t)
        residuals = jax.eval_shape(lambda params: jax.vjp(lambda p: module.apply(p, x_t, t), params)[1], params)
        return sum(leaf.size for leaf in jax.tree.leaves(residuals) if leaf.shape[:1] == (4,))

    assert stored(True) < 0.35 * stored(False)
