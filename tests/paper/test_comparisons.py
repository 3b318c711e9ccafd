"""The paper's rivals: every network by one test."""

import math

import pytest
import torch
from monai.bundle import ConfigParser
from test_blocks import seed_and_one_thread

from scripts.paper.rivals import NETWORKS, OUR_READING, REFINEMENTS, build

__all__ = ["seed_and_one_thread"]  # a fixture, used by being here

PARAMETERS = {
    "U-Net": 31_036_481,
    "Res U-Net": 31_736_833,
    "Res2 U-Net": 17_351_841,
    "CofRes U-Net": 17_694_081,
    "SA-UNet": 537_011,
    "BCDU-Net D1": 8_860_293,
    "BCDU-Net D3": 20_658_821,
    "CS2-Net": 8_400_163,
    "Mo": 33_067_649,
    "CSDResU-Net": 7_386_698,
    "ULSM-Net": 31_036_481,
    "RA V-Net without CofRes": 36_614_978,
    "RA V-Net": 29_940_610,
    "Attention U-Net": 31_739_185,
    "U-Net++": 9_118_657,
    "DynUNet": 46_309_441,
    "SegResNet": 6_298_497,
}
EVERY_NETWORK = pytest.mark.parametrize("name", NETWORKS)


@EVERY_NETWORK
def test_every_network(name):
    """Exact size; logits as large as the image; a gradient for all; scripted alike; bfloat16 near float32."""
    with torch.device("meta"):
        assert sum(p.numel() for p in build(name).parameters()) == PARAMETERS[name]

    net, x = build(name, scale=0.25), torch.rand(2, 1, 32, 48)
    logits = net(x)
    assert logits.shape == x.shape
    logits.square().sum().backward()
    idle = {key.split(".")[1] for key, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle == ({"query", "key", "value"} if name == "CS2-Net" else set())  # behind a gain of 0 at the start

    net.eval()
    with torch.inference_mode():
        expected = net(x)
        torch.testing.assert_close(torch.jit.script(net)(x), expected)
        with torch.autocast("cpu", torch.bfloat16):
            reduced = net(x)
    assert reduced.dtype == torch.bfloat16
    assert (reduced - expected).abs().max() < 0.05 * (expected.max() - expected.min())


def test_every_network_takes_other_channels():
    for name in NETWORKS:
        assert build(name, 0.25, in_channels=3, out_channels=2).eval()(torch.rand(1, 3, 16, 32)).shape == (1, 2, 16, 32)


@EVERY_NETWORK
def test_the_prior_is_the_bias_of_the_last_layer(name):
    logits = []
    for prior in (0.5, 0.05):
        torch.manual_seed(0)
        with torch.inference_mode():
            logits.append(build(name, scale=0.25, prior=prior).eval()(torch.rand(1, 1, 32, 48)))
    torch.testing.assert_close(
        logits[1] - logits[0], torch.full((1, 1, 32, 48), math.log(1 / 19)), rtol=1e-3, atol=1e-4
    )


def test_cs2_net_learns_its_queries_once_the_gain_has_left_zero():
    net = build("CS2-Net", scale=0.25)
    with torch.no_grad():
        net.space.gain.fill_(0.5)
    net(torch.rand(2, 1, 64, 64)).square().sum().backward()
    assert all(p.grad.any() for p in net.space.parameters())


def test_a_size_that_does_not_divide_is_refused_with_the_cure():
    for name in ("U-Net", "SA-UNet", "BCDU-Net D1", "CS2-Net"):
        with pytest.raises(ValueError, match=r"divisible by 16, got 40 x 48: .*DivisiblePadd\(k=16\)"):
            build(name, scale=0.25)(torch.rand(1, 1, 40, 48))


@pytest.mark.parametrize(("levels", "patch"), [(6, 128), (8, 512)])
def test_dynunet_pads_to_four_pixels_at_the_bottom_and_to_what_its_halvings_divide(levels, patch):
    net = build("DynUNet", scale=0.125, levels=levels).eval()
    assert net.unit == patch // 4
    high, wide = patch + net.unit, patch
    with torch.inference_mode():
        fitting = torch.rand(1, 1, high, wide)
        assert torch.equal(net(fitting), net.net(fitting))
        odd = torch.rand(1, 1, high - 16, 48)
        padded = torch.zeros(1, 1, high, wide)
        padded[:, :, : high - 16, :48] = odd
        assert torch.equal(net(odd), net.net(padded)[:, :, : high - 16, :48])


def test_a_bundle_config_names_a_network_and_its_scale():
    definition = {"_target_": "scripts.paper.rivals.build", "name": "BCDU-Net D3", "scale": 0.25}
    net = ConfigParser({"network_def": definition}).get_parsed_content("network_def")
    assert net.level1[0].out_channels == 16 and len(net.bottom) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("V-Net",), "no network is named 'V-Net': there are U-Net, "),
        (("SA-UNet", 0.3), "whole number of its 16 filters, got 0.3: 4.8"),
        (("U-Net", 0.0), "whole number of its 64 filters, got 0.0"),
        (("BCDU-Net D1", 3 / 64), "even width, got 3"),
        (("Res2 U-Net", 6 / 64), "divisible by 4, got 6"),
    ],
)
def test_a_wrong_name_or_scale_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(*arguments)


@pytest.mark.parametrize("prior", [0, 1, -0.1])
def test_a_prior_that_is_no_share_is_refused(prior):
    with pytest.raises(ValueError, match="between 0 and 1, got"):
        build("U-Net", scale=0.25, prior=prior)


def test_without_cofres_only_the_encoder_differs():
    keys = [set(build(name, scale=0.25).state_dict()) for name in ("RA V-Net", "RA V-Net without CofRes")]
    assert {key.split(".")[0] for key in keys[0] ^ keys[1]} == {"level1", "level2", "level3", "level4", "bottom"}


def test_ulsm_net_is_u_net_with_a_refinement():
    assert NETWORKS["ULSM-Net"] is NETWORKS["U-Net"]  # so that it need not be trained twice
    assert list(REFINEMENTS) == ["ULSM-Net"] and set(REFINEMENTS) < set(OUR_READING) < set(NETWORKS)
