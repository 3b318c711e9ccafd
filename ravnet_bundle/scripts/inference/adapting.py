"""A copy of the network whose batch normalisation knows one CT."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def adapted(network: Callable[..., Any], show: Callable[[nn.Module], Any]) -> nn.Module | None:
    """A copy whose batch normalisation has the mean and variance of what `show` lets it see.

    The weights stay. The statistics are means over the forward passes of `show`, as `torch.optim.swa_utils.update_bn`
    takes them. Source: Schneider et al., Improving robustness against common corruptions by covariate shift adaptation,
    NeurIPS 2020; for a single image: Dong et al., InTEnt, CVPR Workshops 2024 (arXiv:2402.09604).

    Args:
        network: in evaluation mode.
        show: calls the copy that it is given, once or more.

    Returns:
        The copy in evaluation mode; None if the network has no batch normalisation, such as an exported one.
    """
    if not isinstance(network, nn.Module) or not _norms(network):
        return None
    own = deepcopy(network)
    for norm in _norms(own):
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    show(own)
    for norm in _norms(own):
        norm.eval()
    return own


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [one for one in network.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]
