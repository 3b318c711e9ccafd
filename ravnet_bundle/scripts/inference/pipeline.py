"""The bundle's `configs/inference.json` on one CT that is in memory."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Activationsd, Compose, SaveImaged

from ..grid import FromGridd
from .bowel import BowelContrastd
from .provenance import BUNDLE

TRIES = 100


class Segmentation(NamedTuple):
    """The pipeline's result for one CT. The network's grid has its axes towards R, A, S.

    Attributes:
        mask: uint8, 0 and 1, on the CT's own grid `(X, Y, Z)`.
        image: float16, the network's input, 0..1, on its grid `(X', Y', Z')`.
        answer: float16, the network's probabilities without white bowel, on the same grid.
        delivered: float16, `answer` after the three-dimensional steps; the mask is made from it.
        affine: of that grid, 4 x 4, RAS world, mm.
        note: the message of a three-dimensional step that gave up, or "".
    """

    mask: np.ndarray
    image: np.ndarray
    answer: np.ndarray
    delivered: np.ndarray
    affine: np.ndarray
    note: str = ""


class Pipeline:
    """Opens `configs/inference.json` once, with its network and weights, and segments one loaded CT after the other.

    It runs all steps of the config except loading and saving. So the mask is the same, bit for bit, as the one that
    `python -m monai.bundle run --config_file configs/inference.json` writes.

    Args:
        overrides: keys of the config and their values, such as `{"device": "cpu", "pixel_size": 3.0}`.
    """

    def __init__(self, **overrides: Any):
        parser = opened(**overrides)
        parser["imports"] = [line for line in parser["imports"] if line != "$import ignite"]  # see `_load_weights`
        self.device = torch.device(parser.get_parsed_content("device"))
        self.key = parser.get_parsed_content("image_key")
        self.network = parser.get_parsed_content("network").eval()
        _load_weights(parser)
        self.inferer = parser.get_parsed_content("inferer")
        self.grid = {name: parser.get_parsed_content(name) for name in ("pixel_size", "slice_step", "slab")}
        _load, *before = parser.get_parsed_content("preprocessing").transforms
        self.before = Compose(before)
        after = parser.get_parsed_content("postprocessing").transforms
        self.after = [step for step in after if not isinstance(step, SaveImaged)]

    @torch.inference_mode()
    def __call__(self, ct: MetaTensor) -> Segmentation:
        """Segments a CT, `(X, Y, Z)` in HU, as `reading.load` gives it."""
        image = self.before({self.key: ct})[self.key]
        logits = self.inferer(image[None].to(self.device), self.network)[0]
        item = {self.key: image, "pred": torch.as_tensor(np.asarray(logits.cpu()))}
        del logits  # each step makes a volume of its own, and the CT may be large
        answer = delivered = np.empty(0)
        for step in self.after:
            if isinstance(step, FromGridd):
                delivered = _half(item["pred"])
            item = step(item)
            if isinstance(step, (Activationsd, BowelContrastd)):
                answer = _half(item["pred"])
        return Segmentation(
            item["pred"][0].numpy(),
            _half(image),
            answer,
            delivered,
            np.asarray(image.affine, dtype=float),
            item.get("pred_note", ""),
        )

    @torch.inference_mode()
    def predict(self, volume: np.ndarray, at: Sequence[int]) -> np.ndarray:
        """Probabilities for N slices of a volume on the network's grid: float32, `(X', Y', Z') -> (X', Y', N)`."""
        x = torch.from_numpy(volume)[None].to(self.device)
        activate = next(step for step in self.after if isinstance(step, Activationsd))
        return activate({"pred": self.inferer.slices(x, at, None, self.network).cpu()})["pred"][0].numpy()


def _half(volume: torch.Tensor) -> np.ndarray:
    return torch.as_tensor(volume)[0].half().numpy()


def opened(bundle_root: str = str(BUNDLE), **overrides: Any) -> ConfigParser:
    """A parser of `configs/inference.json`, with other values for some keys."""
    parser = ConfigParser(_of_this_package(ConfigParser.load_config_file(f"{bundle_root}/configs/inference.json")))
    parser.update({"bundle_root": bundle_root, **_of_this_package(overrides)})
    for _ in range(TRIES):
        with suppress(RuntimeError):  # MONAI looks once through `sys.modules`, where other threads may be importing
            parser.locator.get_component_module_name("Compose")
            break
    return parser


def _load_weights(parser: ConfigParser) -> None:
    """Does the work of the config's `CheckpointLoader` without Ignite: its import takes half a second."""
    path = parser.get_parsed_content("checkpointloader#load_path")
    device = parser.get_parsed_content("checkpointloader#map_location")
    weights = torch.load(path, map_location=device, weights_only=True)
    for name, module in parser.get_parsed_content("checkpointloader#load_dict").items():
        module.load_state_dict(weights.get(name, weights))


def _of_this_package(config: Any) -> Any:
    """A config with its `scripts.*` targets under this package's own name, such as `ravnet_bundle.scripts`.

    Otherwise Python imports the classes twice, and `except CTError` misses the second class.
    """
    if isinstance(config, Mapping):
        return {key: _of_this_package(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_of_this_package(value) for value in config]
    if isinstance(config, str) and config.startswith("scripts."):
        return __package__.removesuffix(".inference") + config.removeprefix("scripts")
    return config
