"""Every block against a slow reference, written from the equations of SPEC.md with explicit formulae, in float64.

The references take a block's weights by name and share no code with it; `test_networks.py` wires them to a RA V-Net.
"""

import pytest
import torch
import torch.nn.functional as F

from scripts.blocks import AttentionRecovery, ChannelAttention, CofRes, ConvBNReLU, ConvLSTM

GRADIENTS = pytest.mark.parametrize("gradients", [True, False], ids=["autograd", "inference"])


def conv(x, weight, bias=None):
    return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)


def batch_norm(x, p, name):
    weight, bias, mean, variance = (p[f"{name}.{k}"] for k in ("weight", "bias", "running_mean", "running_var"))
    return torch.stack(
        [(x[:, c] - mean[c]) / (variance[c] + 1e-5) ** 0.5 * weight[c] + bias[c] for c in range(x.shape[1])], dim=1
    )


def cbr(x, p, name):
    y = batch_norm(conv(x, p[f"{name}.conv.weight"]), p, f"{name}.adn.N")
    return y * (y > 0)


def cofres(x, p, name="", jumps="all"):
    o = x
    if f"{name}project.0.weight" in p:
        o = batch_norm(conv(x, p[f"{name}project.0.weight"]), p, f"{name}project.1")
    if jumps == "all":
        r1 = cbr(x, p, f"{name}convs.0") + o
        r2 = cbr(r1, p, f"{name}convs.1") + o
        r3 = cbr(r2, p, f"{name}convs.2") + o
        r4 = cbr(r3, p, f"{name}convs.3") + o
    else:
        r1 = cbr(x, p, f"{name}convs.0")
        r2 = cbr(r1, p, f"{name}convs.1") + o
        r3 = cbr(r2, p, f"{name}convs.2")
        r4 = cbr(r3, p, f"{name}convs.3") + o
    return cbr(torch.cat([r1, r2, r3, r4], dim=1), p, f"{name}fuse")


def channel_attention(x, p, name="", affinity="softmax"):
    out = torch.empty_like(x)
    for b in range(x.shape[0]):
        a = [channel.flatten() for channel in x[b]]
        rows = [row / row.square().sum().sqrt().clamp(min=1e-12) for row in a] if affinity == "scaled" else a
        for j in range(len(a)):
            energy = torch.stack([(rows[j] * row).sum() for row in rows])
            if affinity == "scaled":
                energy = energy * p[f"{name}temperature"]
            if affinity == "inverse":
                energy = energy.max() - energy
            exponential = torch.exp(energy - energy.max())
            g = exponential / exponential.sum()
            attended = sum(g[k] * a[k] for k in range(len(a)))
            out[b, j] = x[b, j] + p[f"{name}beta"] * attended.reshape(x.shape[2:])
    return out


def conv_lstm(sequence, p, name=""):
    """Keras' ConvLSTM2D: four gates in every step, from a state of zeros."""
    (wi, wg, wo, wf), (ui, ug, uo, uf), (bi, bg, bo, bf) = (
        p[f"{name}{k}"].chunk(4) for k in ("kernel", "recurrent_kernel", "bias")
    )
    b, _, height, width = sequence[0].shape
    h = c = torch.zeros(b, bi.shape[0], height, width, dtype=sequence[0].dtype)
    for x in sequence:
        i = 1 / (1 + torch.exp(-(conv(x, wi, bi) + conv(h, ui))))
        f = 1 / (1 + torch.exp(-(conv(x, wf, bf) + conv(h, uf))))
        c = f * c + i * torch.tanh(conv(x, wg, bg) + conv(h, ug))
        o = 1 / (1 + torch.exp(-(conv(x, wo, bo) + conv(h, uo))))
        h = o * torch.tanh(c)
    return h


def attention_recovery(x, skip, p, name="", skip_first=False):
    u = cbr(x, p, f"{name}reduce")
    u = u.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    y = batch_norm(conv(u, p[f"{name}residual.conv1.conv.weight"]), p, f"{name}residual.norm1")
    y = batch_norm(conv(y * (y > 0), p[f"{name}residual.conv2.conv.weight"]), p, f"{name}residual.norm2") + u
    u = cbr(y * (y > 0), p, f"{name}restore")
    h = conv_lstm((skip, u) if skip_first else (u, skip), p, f"{name}lstm.")
    return cbr(h, p, f"{name}halve")


def settle(module):
    """The module in float64 and evaluation mode, every parameter and running statistic away from its initial value."""
    for name, value in module.state_dict().items():
        if name.endswith(("running_var", "temperature")):
            value.uniform_(0.5, 2)
        elif name.endswith("beta"):
            value.fill_(0.7)
        elif value.ndim == 1:
            value.normal_(0.2, 0.5)
    return module.double().eval()


def check(module, inputs, gradients, expected):
    """The module equals the reference, and leaves its inputs and its state as they were."""
    inputs_before, state_before = [x.clone() for x in inputs], {k: v.clone() for k, v in module.state_dict().items()}
    with torch.set_grad_enabled(gradients):
        result = module(*inputs)
    torch.testing.assert_close(result.detach(), expected, rtol=1e-6, atol=1e-6)
    assert expected.std() > 1e-2  # or any module would do
    torch.testing.assert_close(list(inputs), inputs_before, rtol=0, atol=0)
    torch.testing.assert_close(dict(module.state_dict()), state_before, rtol=0, atol=0)


@pytest.fixture(autouse=True)
def seed_and_one_thread():
    """Two threads on tensors this small wait for each other most of the time, minutes of it on a busy machine."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@GRADIENTS
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_conv_bn_relu_equals_the_reference(kernel_size, gradients):
    module, x = settle(ConvBNReLU(3, 5, kernel_size)), torch.randn(2, 3, 6, 9).double()
    check(module, [x], gradients, cbr(x, {f".{k}": v for k, v in module.state_dict().items()}, ""))


@GRADIENTS
@pytest.mark.parametrize("jumps", ["all", "pairs"])
@pytest.mark.parametrize(("channels", "projected"), [((1, 8), True), ((12, 8), True), ((4, 16), False)])
def test_cofres_equals_the_reference(channels, projected, jumps, gradients):
    module, x = settle(CofRes(*channels, jumps=jumps)), torch.randn(2, channels[0], 6, 9).double()
    p = module.state_dict()
    assert ("project.0.weight" in p) == projected
    check(module, [x], gradients, cofres(x, p, jumps=jumps))


@GRADIENTS
@pytest.mark.parametrize("affinity", ["softmax", "inverse", "scaled"])
def test_channel_attention_equals_the_reference(affinity, gradients):
    module, x = settle(ChannelAttention(affinity)), 0.4 * torch.randn(2, 6, 3, 5).double()
    check(module, [x], gradients, channel_attention(x, module.state_dict(), affinity=affinity))


@pytest.mark.parametrize("affinity", ["softmax", "inverse", "scaled"])
def test_channel_attention_starts_as_the_identity(affinity):
    x = torch.randn(2, 6, 3, 5)
    module = ChannelAttention(affinity)
    assert torch.equal(module(x), x)
    with torch.no_grad():
        module.beta.fill_(0.1)
    assert not torch.allclose(module(x), x)


def test_the_scaled_affinity_starts_at_a_temperature_of_10():
    """Two rows that are orthogonal: energies 1 and 0, so that a channel takes exp(10) : 1 of itself."""
    module = ChannelAttention("scaled")
    module.beta.data.fill_(1.0)
    x = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    other = 1 / (1 + torch.e**10)
    assert module(x)[0, 1, 0, 0].item() == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("affinity", ["softmax", "inverse", "scaled"])
def test_channel_attention_runs_in_float32_under_autocast(affinity, monkeypatch):
    """Nearly equal channels: energies of 5e2 that differ by less than bfloat16 can tell."""
    x = 1 + 0.03 * torch.randn(1, 8, 16, 32)
    x[:, ::2] *= torch.tensor([1.0, -1.0]).repeat(256).view(16, 32)  # mixing the two halves would show
    module = ChannelAttention(affinity)
    with torch.no_grad():
        module.beta.fill_(1.0)
        expected, expected_of_rounded = module(x), module(x.bfloat16().float())
        with torch.autocast("cpu", torch.bfloat16):
            result, result_of_rounded = module(x), module(x.bfloat16())
            monkeypatch.setattr("scripts.blocks._product", torch.matmul)
            careless = module(x)
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    assert result_of_rounded.dtype == torch.bfloat16
    torch.testing.assert_close(result_of_rounded.float(), expected_of_rounded, rtol=0, atol=0.02)  # rounded, only here
    assert (careless - expected).abs().max() > 1e-3


@GRADIENTS
@pytest.mark.parametrize(("in_channels", "channels"), [(4, 4), (6, 3), (3, 5)])
def test_conv_lstm_equals_the_naive_two_step_form(in_channels, channels, gradients):
    module = settle(ConvLSTM(in_channels, channels))
    sequence = [torch.randn(2, in_channels, 5, 7).double() for _ in range(2)]
    check(module, sequence, gradients, conv_lstm(sequence, module.state_dict()))


def test_conv_lstm_has_the_gradients_of_the_naive_form():
    module = settle(ConvLSTM(4, 3))
    sequence = [torch.randn(2, 4, 5, 7).double().requires_grad_() for _ in range(2)]
    p, weight = dict(module.named_parameters()), torch.randn(2, 3, 5, 7).double()
    fast = torch.autograd.grad((module(*sequence) * weight).sum(), [*p.values(), *sequence])
    naive = torch.autograd.grad((conv_lstm(sequence, p) * weight).sum(), [*p.values(), *sequence])
    torch.testing.assert_close(fast, naive, rtol=1e-6, atol=1e-6)
    assert all(gradient.abs().max() > 1e-2 for gradient in naive)


def test_conv_lstm_starts_with_forget_bias_one_and_an_orthogonal_recurrent_kernel():
    module = ConvLSTM(4, 4)
    assert module.bias.tolist() == [0.0] * 12 + [1.0] * 4
    rows = module.recurrent_kernel.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(16), rtol=0, atol=1e-5)


@GRADIENTS
@pytest.mark.parametrize("skip_first", [False, True])
@pytest.mark.parametrize("lstm_ratio", [1.0, 0.5])
def test_attention_recovery_equals_the_reference(lstm_ratio, skip_first, gradients):
    module = settle(AttentionRecovery(8, lstm_ratio=lstm_ratio, skip_first=skip_first))
    assert module.lstm.channels == 8 * lstm_ratio
    x, skip = torch.randn(2, 8, 3, 5).double(), torch.randn(2, 8, 6, 10).double()
    expected = attention_recovery(x, skip, module.state_dict(), skip_first=skip_first)
    assert expected.shape == (2, 4, 6, 10)
    check(module, [x, skip], gradients, expected)


@pytest.mark.parametrize(
    ("build", "shapes"),
    [
        (lambda: CofRes(3, 8), [(2, 3, 6, 9)]),
        (lambda: CofRes(3, 8, jumps="pairs"), [(2, 3, 6, 9)]),
        (lambda: ChannelAttention("scaled"), [(2, 6, 3, 5)]),
        (lambda: ConvLSTM(4, 3), [(2, 4, 5, 7)] * 2),
        (lambda: AttentionRecovery(8), [(2, 8, 3, 5), (2, 8, 6, 10)]),
    ],
    ids=["CofRes", "CofRes pairs", "ChannelAttention", "ConvLSTM", "AttentionRecovery"],
)
def test_training_and_inference_compute_the_same_function(build, shapes):
    """In inference a block works in its own memory and folds its normalisations; training must not notice."""
    module, inputs = settle(build()), [torch.randn(shape).double().requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(module, inputs, atol=1e-4, nondet_tol=0.0, fast_mode=True)
    with torch.inference_mode():
        torch.testing.assert_close(module(*inputs), module(*inputs), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CofRes(3, 10), "divisible by 4, got 10"),
        (lambda: CofRes(3, 8, jumps="double"), '"all" or "pairs", got \'double\''),
        (lambda: ChannelAttention("cosine"), '"softmax", "inverse" or "scaled", got \'cosine\''),
        (lambda: AttentionRecovery(6), "divisible by 4, got 6"),
        (lambda: AttentionRecovery(8, lstm_ratio=0.0), "lstm_ratio.*got 0.0"),
    ],
)
def test_a_wrong_argument_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
