"""RA V-Net as a whole: its function, its size, and everything that is done with a network."""

import pytest
import torch
import torch.nn as nn
from test_blocks import attention_recovery, channel_attention, check, cofres, conv, seed_and_one_thread, settle

from scripts.networks import RAVNet

__all__ = ["seed_and_one_thread"]  # a fixture, used by being here

OPTIONS = {
    "the paper": {},
    "inverse": {"affinity": "inverse"},
    "scaled": {"affinity": "scaled"},
    "attention at skips": {"attention_at": "skips"},
    "no attention": {"attention_at": "none"},
    "jumps in pairs": {"jumps": "pairs"},
    "half LSTM": {"lstm_ratio": 0.5},
    "skip first": {"skip_first": True},
    "dropout": {"dropout": 0.2},
    "everything": {"affinity": "scaled", "attention_at": "skips", "jumps": "pairs", "lstm_ratio": 0.5, "dropout": 0.2},
}
EVERY_OPTION = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def reference(x, p, affinity="softmax", attention_at="bottom", jumps="all", skip_first=False, **_):
    """Figure 1, from the references of the blocks."""
    skips = []
    for level in range(1, 5):
        x = cofres(x, p, f"level{level}.", jumps)
        attend = attention_at == "skips"
        skips.append(channel_attention(x, p, f"skips.{level - 1}.", affinity) if attend else x)
        b, c, height, width = x.shape
        x = x.reshape(b, c, height // 2, 2, width // 2, 2).amax(dim=(3, 5))
    x = cofres(x, p, "bottom.", jumps)
    x = x if attention_at == "none" else channel_attention(x, p, "attention.", affinity)
    for level in range(4, 0, -1):
        x = attention_recovery(x, skips[level - 1], p, f"recover{level}.", skip_first)
    return conv(x, p["head.weight"], p["head.bias"])


@pytest.mark.parametrize("gradients", [True, False], ids=["autograd", "inference"])
@EVERY_OPTION
def test_the_whole_network_equals_the_reference(options, gradients):
    net, x = settle(RAVNet(2, 3, width=4, **options)), torch.rand(2, 2, 32, 48).double()
    check(net, [x], gradients, reference(x, net.state_dict(), **options))


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, 29_940_610),
        ({"lstm_ratio": 0.5}, 13_488_130),
        ({"width": 32}, 7_488_898),
        ({"width": 16}, 1_874_098),
        ({"jumps": "pairs", "skip_first": True, "dropout": 0.5}, 29_940_610),
        ({"affinity": "inverse"}, 29_940_610),
        ({"affinity": "scaled"}, 29_940_611),
        ({"attention_at": "skips"}, 29_940_614),
        ({"attention_at": "none"}, 29_940_609),
    ],
)
def test_parameters_are_counted_exactly(arguments, parameters):
    with torch.device("meta"):
        net = RAVNet(**arguments)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "batch", "height", "width"),
    [(1, 1, 1, 16, 16), (1, 1, 3, 64, 64), (1, 1, 2, 32, 80), (3, 2, 1, 96, 16), (4, 5, 2, 48, 32)],
)
def test_the_output_has_the_size_of_the_input(in_channels, out_channels, batch, height, width):
    net = RAVNet(in_channels, out_channels, width=8).eval()
    assert net(torch.rand(batch, in_channels, height, width)).shape == (batch, out_channels, height, width)


@EVERY_OPTION
def test_gradients_reach_every_parameter(options):
    net = RAVNet(width=8, **options)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("beta"):
                p.fill_(0.5)  # at 0 the temperature has a gradient of 0
    net(torch.rand(2, 1, 64, 64)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_beta_starts_at_zero_and_still_gets_a_gradient():
    net = RAVNet(width=8, attention_at="skips")
    net(torch.rand(2, 1, 64, 64)).square().sum().backward()
    betas = {name: p for name, p in net.named_parameters() if name.endswith("beta")}
    assert len(betas) == 5
    assert all(p.item() == 0 and p.grad.item() != 0 for p in betas.values())


@EVERY_OPTION
def test_it_learns_a_square(options):
    x = torch.rand(2, 1, 32, 32)
    x[:, :, 8:20, 8:24] += 1
    net, target = RAVNet(width=8, **options), (x > 1).float()
    optimizer, losses = torch.optim.Adam(net.parameters(), 3e-3), []
    for _ in range(20):
        losses.append(nn.functional.binary_cross_entropy_with_logits(net(x), target))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


@EVERY_OPTION
def test_the_scripted_network_computes_the_same(options):
    net, x = settle(RAVNet(width=8, **options)).float(), torch.rand(2, 1, 32, 48)
    scripted = torch.jit.script(net)
    torch.testing.assert_close(scripted(x), net(x))
    with torch.inference_mode():
        torch.testing.assert_close(scripted(x), net(x))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_the_traced_network_computes_the_same_at_other_sizes():
    net = settle(RAVNet(width=8)).float()
    with torch.no_grad():
        traced = torch.jit.trace(net, torch.rand(1, 1, 32, 32))
        x = torch.rand(3, 1, 64, 48)
        torch.testing.assert_close(traced(x), net(x))


@pytest.mark.parametrize("gradients", [True, False], ids=["autograd", "inference"])
def test_bfloat16_with_channels_last_is_close_to_float32(gradients):
    net, x = RAVNet(width=8).eval(), torch.rand(2, 1, 64, 64)
    with torch.set_grad_enabled(gradients):
        expected = net(x).detach()
        with torch.autocast("cpu", torch.bfloat16):
            result = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)).detach()
    assert result.dtype == torch.bfloat16
    assert 0 < (result - expected).abs().max() < 0.03 * (expected.max() - expected.min())


def test_dropout_adds_no_parameters_and_acts_in_training_only():
    plain, dropped, x = RAVNet(width=8), RAVNet(width=8, dropout=0.5), torch.rand(2, 1, 32, 32)
    dropped.load_state_dict(plain.state_dict(), strict=True)
    assert list(dropped.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(plain(x), plain(x))
        assert not torch.allclose(dropped(x), dropped(x))
        dropped.load_state_dict(plain.state_dict())  # the running statistics too
        torch.testing.assert_close(dropped.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("size", [(40, 48), (48, 40), (500, 512)])
def test_a_size_that_does_not_divide_is_refused_with_the_cure(size):
    with pytest.raises(ValueError, match=rf"divisible by 16, got {size[0]} x {size[1]}: .*DivisiblePadd\(k=16\)"):
        RAVNet(width=4)(torch.rand(1, 1, *size))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 6}, "multiple of 4, got 6"),
        ({"width": 0}, "multiple of 4, got 0"),
        ({"attention_at": "head"}, '"skips" or "none", got \'head\''),
        ({"affinity": "cosine"}, "affinity must be .* got 'cosine'"),
        ({"jumps": "some"}, "jumps must be .* got 'some'"),
        ({"lstm_ratio": 0.0}, "lstm_ratio .* got 0.0"),
        ({"dropout": 1.5}, "dropout probability .* got 1.5"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RAVNet(**{"width": 8, **arguments})


def test_checkpointing_gives_the_same_gradients_and_statistics_in_less_memory():
    x = torch.rand(2, 1, 32, 32)
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        net = RAVNet(width=8, dropout=0.1, checkpointing=checkpointing)
        kept = 0

        def keep(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = net(x).square().mean()
        loss.backward()
        results.append((loss, {name: p.grad for name, p in net.named_parameters()}, net.state_dict(), kept))
    (loss, gradients, state, kept), (loss2, gradients2, state2, kept2) = results
    assert loss == loss2
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients2[name], gradient, msg=name)
    for name, value in state.items():
        assert torch.equal(state2[name], value), name
    assert kept2 < kept / 3
