"""A network of slices on volumes."""

from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor

from scripts.inference import axial
from scripts.inference.axial import AxialInferer
from scripts.networks import RAVNet


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    network = RAVNet(width=8)
    with torch.no_grad():
        network.train()(torch.randn(4, 1, 32, 32))  # statistics of its own
    return network.eval()


@pytest.fixture(scope="module")
def volume() -> torch.Tensor:
    return torch.rand(2, 1, 32, 48, 5, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def slice_by_slice(network, volume: torch.Tensor) -> torch.Tensor:
    """`(B, 1, X, Y, Z) -> (B, 1, X, Y, Z)`, by one network call for each slice."""
    return torch.stack(
        [torch.cat([network(scan[None, ..., z]) for scan in volume]) for z in range(volume.shape[-1])], -1
    )


@torch.inference_mode()
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_a_volume_gives_what_its_slices_give_one_by_one(batch_size, network, volume):
    result = AxialInferer(batch_size, amp=False)(volume, network)
    assert result.shape == volume.shape
    expected = slice_by_slice(network, volume)
    assert expected.std() > 1e-3  # the network says something
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


class Planes(torch.nn.Module):
    """Logits that tell which planes it saw, of a volume whose plane z holds z."""

    def forward(self, x):
        return (x * torch.tensor([10000.0, 100.0, 1.0])[:, None, None]).sum(1, keepdim=True)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_channels_of_a_slice_are_its_neighbours_and_beyond_an_end_its_last_slice(batch_size):
    volume = torch.arange(6.0).expand(2, 1, 16, 32, 6)
    logits = AxialInferer(batch_size, amp=False, seen=[-2, 0, 2])(volume, Planes())
    assert logits.shape == volume.shape
    assert logits[1, 0, 3, 4].tolist() == [2, 103, 204, 10305, 20405, 30505]


def test_a_volume_of_several_channels_is_refused():
    with pytest.raises(ValueError, match="one channel"):
        AxialInferer(amp=False)(torch.zeros(1, 2, 16, 16, 3), Planes())


@torch.inference_mode()
def test_slices_pass_as_they_are(network, volume):
    slices = volume[..., 2]
    torch.testing.assert_close(AxialInferer(amp=False)(slices, network), network(slices), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_size_that_does_not_divide_is_padded_with_zeros_and_cropped(network, volume):
    odd = volume[:, :, :29, :41]
    padded = torch.zeros_like(volume)
    padded[:, :, :29, :41] = odd
    expected = slice_by_slice(network, padded)[:, :, :29, :41]
    torch.testing.assert_close(AxialInferer(amp=False)(odd, network), expected, rtol=1e-4, atol=1e-5)
    two = AxialInferer(amp=False)(odd[..., 0], network)
    torch.testing.assert_close(two, expected[..., 0], rtol=1e-4, atol=1e-5)


def test_the_network_sees_batches_of_multiples_of_the_divisor(volume):
    seen = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return x

    result = AxialInferer(batch_size=4, divisor=32, amp=False)(volume, network)
    assert seen == [(4, 1, 32, 64), (1, 1, 32, 64)] * 2  # of each volume
    assert torch.equal(result, volume)  # each voxel in its place


@torch.inference_mode()
def test_a_metatensor_gives_the_same_logits(network, volume):
    result = AxialInferer(amp=False)(MetaTensor(volume), network)
    assert torch.equal(result, AxialInferer(amp=False)(volume, network))


@torch.inference_mode()
def test_bfloat16_is_close_to_float32_and_comes_back_as_float32(network, volume, monkeypatch):
    exact = AxialInferer(amp=False)(volume, network)
    monkeypatch.setattr(axial, "has_fast_bfloat16", lambda device: True)
    fast = AxialInferer(amp=True)(volume, network)
    assert fast.dtype == exact.dtype == torch.float32
    assert not torch.equal(fast, exact)  # it was used
    assert (fast - exact).abs().max() < 0.05 * exact.abs().max()


@torch.inference_mode()
def test_bfloat16_is_left_aside_where_it_is_slow(network, volume, monkeypatch):
    monkeypatch.setattr(axial, "has_fast_bfloat16", lambda device: False)
    assert torch.equal(AxialInferer(amp=True)(volume, network), AxialInferer(amp=False)(volume, network))


def test_a_cpu_is_fast_with_bfloat16_where_it_says_so_itself():
    """PyTorch tells it by functions of its own only, which another release may name otherwise."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert axial.has_fast_bfloat16(torch.device("cpu")) == bool(flags & {"avx512_bf16", "amx_tile"})


def test_gradients_flow_through_it(network):
    slices = torch.rand(1, 1, 20, 20, requires_grad=True)
    AxialInferer(amp=False)(slices, network).sum().backward()
    assert slices.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 1, 32, 32, 3, 1)])
def test_other_numbers_of_dimensions_are_refused(shape, network):
    with pytest.raises(ValueError, match=r"needs \(B, C, H, W\) or \(B, C, X, Y, Z\), got shape \(1"):
        AxialInferer()(torch.zeros(shape), network)


@torch.inference_mode()
def test_a_volume_kept_as_float16_passes_without_amp(network, volume):
    half = volume.half()
    torch.testing.assert_close(AxialInferer(amp=False)(half, network), AxialInferer(amp=False)(half.float(), network))


def test_a_coarse_inferer_sees_larger_pixels_and_answers_on_the_volumes_grid(network, volume):
    inferer = AxialInferer(amp=False)
    inferer.coarse = 2
    smooth = torch.nn.functional.interpolate(volume[..., :2], scale_factor=(16, 16, 1), mode="nearest")  # flat squares
    seen = []

    def look(x):
        seen.append(x.shape[2:])
        return x

    answer = inferer(smooth, look)
    assert answer.shape == smooth.shape and set(seen) == {(256, 384)}
    torch.testing.assert_close(answer[:, :, 8::16, 8::16], volume[..., :2], rtol=0, atol=1e-5)
