"""What a CT costs, counted in what no machine changes: modules, slices, operations, bytes. Times are in benchmarks/."""

import ctypes
import math
import mmap
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from commands import ROOT
from monai.data import MetaTensor
from torch.utils.flop_counter import FlopCounterMode

from ravnet_bundle.scripts.assessment import measure
from ravnet_bundle.scripts.grid import FromGridd, ToGridd
from ravnet_bundle.scripts.inference.pipeline import Pipeline
from ravnet_bundle.scripts.phantom import make_phantom, save_phantom

SLOW = {"torch", "monai", "ignite", "itk", "highdicom", "matplotlib", "jinja2", "skimage", "pandas", "tensorboard"}


@pytest.fixture(scope="module")
def thin():
    """Slices of 1.5 mm."""
    return make_phantom(seed=1, shape=(104, 88, 240), spacing=(3.5, 3.5, 1.5))


def test_a_ct_is_found_and_read_before_pytorch_and_its_like_are_imported(thin, tmp_path):
    save_phantom(thin, tmp_path / "ct.nii.gz")
    code = (
        "import sys\nfrom ravnet_bundle.scripts.batch.segment import segment\n"
        "from ravnet_bundle.scripts.reading import find, read\n"
        "print(read(*find([sys.argv[1]]).scans).hu.shape, *sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "ct.nii.gz")]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("(104, 88, 240) ")
    assert not SLOW & set(printed.split())


def test_the_commands_monai_comes_without_what_a_segmentation_does_not_use():
    """And what was hidden from it can be imported afterwards: the picture needs matplotlib."""
    code = (
        "import sys\nfrom ravnet_bundle.scripts.batch import opening, options\nopening.own_process = True\n"
        "opening.opened(options.Options(device='cpu'))\nprint(*sys.modules)\n"
        "import ignite.engine, itk, matplotlib.figure, scipy.optimize, scipy.signal, scipy.spatial, skimage.measure\n"
        "import tensorboard"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = set(printed.split())
    assert {"torch", "monai", "monai.bundle"} <= loaded
    hidden = {
        "ignite",
        "itk",
        "matplotlib",
        "scipy.optimize",
        "scipy.signal",
        "scipy.spatial",
        "skimage",
        "tensorboard",
    }
    assert not hidden & loaded


def test_the_network_sees_a_third_of_thin_slices_and_the_liver_alone_closely(thin):
    ct = MetaTensor(torch.from_numpy(thin.image), affine=torch.from_numpy(thin.affine))
    ct.meta["original_channel_dim"] = "no_channel"
    pipeline, seen = Pipeline(pixel_size=3.0), []
    hook = pipeline.network.register_forward_hook(lambda network, inputs, _: seen.append(len(inputs[0])))
    with FlopCounterMode(display=False) as operations:
        found = pipeline(ct)
    hook.remove()
    both = 2 * np.count_nonzero(found.mask & (thin.label > 0))
    assert both > 0.95 * (np.count_nonzero(found.mask) + np.count_nonzero(thin.label))
    first, step = 40, 3  # slices of the first pass, and their distance, of the grid's 120; the CT has 240
    liver = math.ceil(np.count_nonzero((thin.label > 0).any((0, 1))) / 2)
    assert sum(seen) <= first + liver + 2 * step  # from a slice without liver to the next
    assert operations.get_total_flops() < 500e9


@pytest.mark.parametrize(("spacing", "kind", "most"), [((0.75, 0.75, 1), np.uint8, 12), ((0.3, 0.3, 0.3), bool, 2)])
def test_measures_take_a_few_bytes_for_each_voxel_of_the_livers_box(spacing, kind, most):
    i, j, k = np.ogrid[:160, :160, :100]
    mask = (((i - 80) / 75) ** 2 + ((j - 80) / 75) ** 2 + ((k - 50) / 45) ** 2 < 1).astype(kind)
    hu = np.where(mask, 60, -500).astype(np.int16)
    tracemalloc.start()
    measures = measure(hu, mask, np.diag([*spacing, 1.0]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert measures["hu_median"] == 60 and measures["hu_margin_mm"] == 5
    assert peak < most * mask.size


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which pages are in memory")
def test_a_mask_takes_memory_only_where_the_liver_is():
    ct = MetaTensor(torch.zeros(1, 512, 512, 80, dtype=torch.int16), affine=np.diag([0.75, 0.75, 1.0, 1.0]))
    image = ToGridd("image", pixel_size=6, slice_step=4, slab=4)({"image": ct})["image"]
    found = torch.zeros_like(image.as_tensor())
    found[:, 16:32, 16:32, 4:12] = 1
    mask = FromGridd("pred")({"image": image, "pred": found})["pred"]
    pages = np.zeros(mask.numel() // mmap.PAGESIZE + 1, np.uint8)
    start = mask.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    told = pages.ctypes.data_as(ctypes.c_void_p)
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(mask.numel()), told) == 0
    assert 0 < (pages & 1).mean() < 0.2  # of 80 slices half hold liver, a quarter of their rows
    assert mask[0, 192, 192, 40] == 1 and mask.sum() == mask[:, 120:264, 120:264, 15:65].sum()
