"""A copy of the network whose batch normalisation knows one CT."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from torch import nn


def adapted(network: Callable[..., Any], show: Callable[[nn.Module], Any]) -> nn.Module | None:
    """A copy whose batch normalisation has the mean and variance of what `show` lets it see.

    The weights stay. The statistics are plain means over the forward passes of `show`, as those of
    `torch.optim.swa_utils.update_bn`. That function is not called, because it turns dropout on, too.

    Source: Schneider et al., Improving robustness against common corruptions by covariate shift adaptation, NeurIPS
    2020; for a single image: Dong et al., InTEnt, arXiv:2402.09604, 2024.

    Args:
        network: in evaluation mode.
        show: calls the copy that it is given, once or more.

    Returns:
        The copy in evaluation mode; None if the network has no batch normalisation of slices, such as an exported one,
        or if `show` gives a channel too few values for a variance.
    """
    if not isinstance(network, nn.Module) or not _norms(network):
        return None
    own = deepcopy(network)
    for norm in _norms(own):
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    try:
        show(own)
    except ValueError:  # PyTorch: more than one value per channel is needed
        return None
    for norm in _norms(own):
        norm.eval()
    return own


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [one for one in network.modules() if isinstance(one, nn.BatchNorm2d) and one.track_running_stats]
