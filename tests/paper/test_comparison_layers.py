"""The parts of the paper's rivals, against plain numpy, and the level set that follows one of them.

The numpy references follow the originals (Keras: SA-UNet and BCDU-Net; PyTorch: CS2-Net) and share no code with ours.
"""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from test_blocks import seed_and_one_thread, settle

from scripts.blocks import ChannelAttention, ConvLSTM
from scripts.paper.csnet import SpatialAttention
from scripts.paper.level_set import LevelSetd
from scripts.paper.saunet import DropBlock, SpatialGate, Up
from scripts.paper.unet import Res2

__all__ = ["seed_and_one_thread"]  # a fixture, used by being here


def conv(x, weight, bias=None, dilation=1):
    """Convolution with zeros around, `(B, C, H, W)` with `(O, C, h, w)`, one kernel element at a time."""
    _, _, kh, kw = weight.shape
    ph, pw = dilation * (kh // 2), dilation * (kw // 2)
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    h, w = x.shape[2:]
    out = 0.0
    for i in range(kh):
        for j in range(kw):
            window = padded[:, :, i * dilation : i * dilation + h, j * dilation : j * dilation + w]
            out = out + np.einsum("bchw,oc->bohw", window, weight[:, :, i, j])
    return out if bias is None else out + bias[:, None, None]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def weights(module):
    return {key: value.detach().numpy() for key, value in module.state_dict().items()}


def batch_norm(x, p, name):
    weight, bias, mean, variance = (
        p[f"{name}.{key}"][:, None, None] for key in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias


@pytest.mark.parametrize("hard", [True, False], ids=["hard sigmoid", "sigmoid"])
def test_conv_lstm_computes_what_keras_computes(hard):
    """Keras' weights: kernels `(3, 3, C, 4F)`, channels last, gates in the order i, f, c, o."""
    rng, f = np.random.default_rng(0), 3
    kernel, recurrent, bias = (
        rng.normal(size=(3, 3, 4, 4 * f)),
        rng.normal(size=(3, 3, f, 4 * f)),
        rng.normal(size=4 * f),
    )
    sequence = rng.normal(size=(2, 2, 5, 6, 4))  # (B, T, H, W, C)
    gate = (lambda x: np.clip(0.2 * x + 0.5, 0, 1)) if hard else sigmoid

    h = c = np.zeros((2, f, 5, 6))
    for step in range(2):
        x = sequence[:, step].transpose(0, 3, 1, 2)
        z = conv(x, kernel.transpose(3, 2, 0, 1), bias) + conv(h, recurrent.transpose(3, 2, 0, 1))
        i, forget, new, o = np.split(z, 4, axis=1)
        c = gate(forget) * c + gate(i) * np.tanh(new)
        h = gate(o) * np.tanh(c)

    module = ConvLSTM(4, f, hard).double()
    with torch.no_grad():
        for parameter, keras in ((module.kernel, kernel), (module.recurrent_kernel, recurrent), (module.bias, bias)):
            i, forget, new, o = np.split(keras, 4, axis=-1)
            ours = np.concatenate([i, new, o, forget], axis=-1)
            parameter.copy_(torch.as_tensor(ours.transpose(3, 2, 0, 1) if ours.ndim == 4 else ours))
    steps = [torch.as_tensor(sequence[:, step].transpose(0, 3, 1, 2)) for step in range(2)]
    np.testing.assert_allclose(module(*steps).detach(), h, atol=1e-12)
    with torch.inference_mode():
        np.testing.assert_allclose(module(*steps), h, atol=1e-12)


def test_channel_attention_computes_what_danet_computes():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 4))
    a = x.reshape(2, 5, 12)
    energy = a @ a.transpose(0, 2, 1)
    attended = softmax(energy.max(axis=2, keepdims=True) - energy) @ a
    module = settle(ChannelAttention("inverse"))
    expected = x + module.beta.item() * attended.reshape(x.shape)
    np.testing.assert_allclose(module(torch.as_tensor(x)).detach(), expected, atol=1e-12)


def test_spatial_gate_computes_what_sa_unet_computes():
    x, module = np.random.default_rng(0).normal(size=(2, 5, 9, 8)), settle(SpatialGate())
    pooled = np.stack([x.mean(axis=1), x.max(axis=1)], axis=1)
    expected = x * sigmoid(conv(pooled, weights(module)["conv.weight"]))
    np.testing.assert_allclose(module(torch.as_tensor(x)).detach(), expected, atol=1e-12)


def test_spatial_attention_computes_what_cs2_net_computes():
    x, module = np.random.default_rng(0).normal(size=(2, 16, 5, 4)), settle(SpatialAttention(16))
    with torch.no_grad():
        module.gain.fill_(0.7)
    p = weights(module)
    query, key = (
        np.maximum(batch_norm(conv(x, p[f"{name}.0.weight"], p[f"{name}.0.bias"]), p, f"{name}.1"), 0).reshape(2, 2, 20)
        for name in ("query", "key")
    )
    affinity = softmax(query.transpose(0, 2, 1) @ key)  # rows: the pixels that ask
    value = conv(x, p["value.weight"], p["value.bias"]).reshape(2, 16, 20)
    expected = x + 0.7 * (value @ affinity.transpose(0, 2, 1)).reshape(x.shape)
    np.testing.assert_allclose(module(torch.as_tensor(x)).detach(), expected, atol=1e-12)
    assert (expected - x).std() > 0.1


def test_the_transposed_convolution_is_aligned_as_in_keras():
    """Padding "same" at stride 2: the kernel starts at twice the pixel's place, and the end is cut."""
    x, module = np.random.default_rng(0).normal(size=(2, 3, 4, 5)), settle(Up(3, 2))
    p = weights(module)
    expected = np.zeros((2, 2, 10, 12)) + p["bias"][:, None, None]
    for i in range(3):
        for j in range(3):
            expected[:, :, i : i + 8 : 2, j : j + 10 : 2] += np.einsum("bchw,co->bohw", x, p["weight"][:, :, i, j])
    np.testing.assert_allclose(module(torch.as_tensor(x)).detach(), expected[:, :, :8, :10], atol=1e-12)


def test_res2_adds_each_parts_result_to_the_next():
    x, module = np.random.default_rng(0).normal(size=(2, 3, 6, 5)), settle(Res2(3, 8))
    p = weights(module)

    def cbr(y, name):
        return np.maximum(batch_norm(conv(y, p[f"{name}.conv.weight"]), p, f"{name}.adn.N"), 0)

    x1, x2, x3, x4 = np.split(cbr(x, "enter"), 4, axis=1)
    y2 = cbr(x2, "convs.0")
    y3 = cbr(x3 + y2, "convs.1")
    y4 = cbr(x4 + y3, "convs.2")
    fused = batch_norm(conv(np.concatenate([x1, y2, y3, y4], axis=1), p["fuse.0.weight"]), p, "fuse.1")
    expected = np.maximum(fused + batch_norm(conv(x, p["project.0.weight"]), p, "project.1"), 0)
    np.testing.assert_allclose(module(torch.as_tensor(x)).detach(), expected, atol=1e-12)


def test_drop_block_drops_squares_in_training_only_and_keeps_the_mean():
    module, ones = DropBlock(size=5, keep=0.8), torch.ones(8, 16, 24, 20)
    out = module(ones)
    dropped = (out == 0).numpy()
    assert 0.1 < dropped.mean() < 0.2  # squares overlap: at most 1 - keep
    assert out.mean().item() == pytest.approx(1, abs=1e-5)
    square = np.ones((1, 1, 5, 5), bool)
    assert (ndimage.binary_opening(dropped, square) == dropped).all()  # nothing but whole squares
    assert not (dropped == dropped[:, :1]).all()  # each channel by itself

    x = torch.rand(2, 3, 16, 16)
    assert sum(module(x).mean() for _ in range(500)).item() / 500 == pytest.approx(x.mean().item(), rel=0.01)
    assert module.eval()(x) is x


def test_drop_block_takes_a_map_smaller_than_its_square():
    out = DropBlock(size=7, keep=0.5)(torch.ones(64, 8, 3, 3))
    whole = out.flatten(2)
    assert ((whole == 0).all(dim=2) | (whole != 0).all(dim=2)).all()
    assert 0.3 < (whole == 0).float().mean() < 0.7


def noisy_disc(depth=None):
    """A noisy image of a disc, the disc, and a ragged mask of it."""
    rng = np.random.default_rng(0)
    x, y = np.ogrid[:96, :96]
    distance = 25 - np.hypot(x - 50, y - 45)
    image = 0.3 + 0.3 * (distance > 0) + rng.normal(0, 0.05, (96, 96))
    noise = ndimage.gaussian_filter(rng.normal(size=(96, 96)), 2)
    mask = distance + 3 * noise / noise.std() > 0
    volumes = (image, distance > 0, mask)
    if depth:
        volumes = [np.stack([volume] * depth, axis=-1) for volume in volumes]
    return [torch.as_tensor(volume, dtype=torch.float32)[None] for volume in volumes]


def dice(a, b):
    return (2 * (a * b).sum() / (a.sum() + b.sum())).item()


@pytest.mark.parametrize("depth", [None, 3], ids=["slice", "volume"])
def test_the_level_set_improves_a_ragged_mask_of_a_noisy_disc(depth):
    image, truth, mask = noisy_disc(depth)
    result = LevelSetd(keys="pred", image_key="image")({"image": image, "pred": MetaTensor(mask)})
    assert isinstance(result["pred"], MetaTensor)
    assert result["pred"].shape == mask.shape and result["pred"].dtype == mask.dtype
    assert torch.equal(result["image"], image)
    assert dice(mask, truth) < 0.95 < 0.98 < dice(result["pred"], truth)


def test_the_level_set_finds_nothing_where_nothing_was():
    image, _, mask = noisy_disc(3)
    mask[..., 1] = 0
    result = LevelSetd("pred", "image")({"image": image, "pred": mask})["pred"]
    assert not result[..., 1].any() and result[..., 0].any() and result[..., 2].any()


def test_the_level_set_refuses_a_mask_on_another_grid():
    image, _, mask = noisy_disc()
    with pytest.raises(ValueError, match=r"pred is \(96, 95, 1\) and image is \(96, 96, 1\)"):
        LevelSetd("pred", "image")({"image": image, "pred": mask[..., :-1]})
