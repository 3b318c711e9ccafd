"""A network adapted to one CT: batch normalisation with that CT's own statistics."""

import pytest
import torch

from scripts.inference.adapting import adapted
from scripts.networks import RAVNet


@pytest.fixture
def network():
    torch.manual_seed(0)
    return RAVNet(width=8, dropout=0.5).eval()  # at width 4 the first block adds the input itself


@torch.inference_mode()
def test_an_adapted_network_sees_a_ct_of_another_scale_as_the_same(network):
    x = 100 * torch.rand(4, 1, 32, 32)  # so large that the normalisation's epsilon is nothing
    assert not torch.allclose(network(x), network(3 * x), atol=1e-2)
    same, scaled = (adapted(network, lambda one, x=x: one(x)) for x in (x, 3 * x))
    torch.testing.assert_close(scaled(3 * x), same(x), rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_its_statistics_are_the_mean_over_all_that_was_shown_and_its_weights_stay(network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    batches = [torch.rand(2, 1, 32, 32), 5 * torch.rand(2, 1, 32, 32)]
    both = adapted(network, lambda one: [one(x) for x in batches])
    each = [adapted(network, lambda one, x=x: one(x)) for x in batches]
    first = next(key for key in before if key.endswith("running_mean"))
    mean = sum(one.state_dict()[first] for one in each) / 2
    torch.testing.assert_close(both.state_dict()[first], mean)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())
    assert all(torch.equal(value, both.state_dict()[key]) for key, value in network.named_parameters())
    assert not any(module.training for module in both.modules())


def test_a_network_without_batch_normalisation_is_not_adapted():
    assert adapted(torch.nn.Conv2d(1, 1, 3), pytest.fail) is None
    assert adapted(lambda x: x, pytest.fail) is None
    script = torch.jit.script(RAVNet(width=4).eval())
    assert adapted(script, pytest.fail) is None


@torch.inference_mode()
def test_too_few_values_for_a_variance_adapt_nothing(network):
    assert adapted(network, lambda one: one(torch.rand(1, 1, 16, 16))) is None  # one pixel at the bottom
    assert adapted(network, lambda one: one(torch.rand(2, 1, 16, 16))) is not None
