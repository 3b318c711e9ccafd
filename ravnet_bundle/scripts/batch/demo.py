"""`make demo`: makes two synthetic CTs, segments them, and prints volumes and Dice."""

import time
from pathlib import Path

import fire
import nibabel as nib
import numpy as np
from monai.bundle import run

from ..inference.provenance import BUNDLE, peak_memory_gib
from ..phantom import make_phantom, save_phantom
from ..report import view, write_preview


def demo(output_dir: str = "demo") -> None:
    """Segments two phantoms, an abdomen and a pelvis, with the shipped weights; writes masks and pictures.

    Example: cd ravnet_bundle; python -m scripts.batch.demo --output_dir demo

    Args:
        output_dir: folder for `ct/` (the phantoms), `truth/`, `mask/` and `abdomen.png`, `pelvis.png`.
    """
    folder = Path(output_dir).resolve()
    for name in ("ct", "truth", "mask"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    regions = ("abdomen", "pelvis")
    for region in regions:
        print(f"making a synthetic CT: {region}", flush=True)
        phantom = make_phantom(seed=1, region=region, shape=(384, 384, 60), spacing=(1.0, 1.0, 4.0))
        save_phantom(phantom, folder / "ct" / f"{region}.nii.gz", folder / "truth" / f"{region}.nii.gz")
    start = time.perf_counter()
    run(
        config_file=str(BUNDLE / "configs" / "inference.json"),
        bundle_root=str(BUNDLE),
        dataset_dir=str(folder / "ct"),
        output_dir=str(folder / "mask"),
    )
    seconds = time.perf_counter() - start
    print("\nsynthetic CT    liver ml   true ml   Dice (of a phantom: no measure of accuracy on patients)")
    for region in regions:
        names = (f"ct/{region}.nii.gz", f"mask/{region}_liver.nii.gz", f"truth/{region}.nii.gz")
        affine = nib.load(folder / names[0]).affine
        hu, found, true = (np.asarray(nib.load(folder / name).dataobj) for name in names)
        found, true, voxel = found > 0, true > 0, abs(np.linalg.det(affine)) / 1000  # ml
        dice = 2 * (found & true).sum() / max(1, found.sum() + true.sum())
        text = f"{dice:.3f}" if true.any() else "none: no liver there"
        print(f"{region:<12} {found.sum() * voxel:11.0f} {true.sum() * voxel:9.0f}   {text}")
        write_preview(folder / f"{region}.png", view(hu, [found, true], affine), f"synthetic CT, {region}")
    peak = peak_memory_gib()
    memory = "" if peak is None else f"; {peak:.1f} GiB peak memory"
    print(f"\n{seconds:.0f} s for both, reading and writing included{memory}")
    print(f"masks and pictures: {folder}\n")
    print("Your own CT (a NIfTI, NRRD or MetaImage file, DICOM, or a folder of any of these):")
    print("  .venv/bin/ravnet segment CT -o OUT")


if __name__ == "__main__":
    fire.Fire(demo)
