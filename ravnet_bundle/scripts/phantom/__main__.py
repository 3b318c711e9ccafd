"""`python -m scripts.phantom OUTPUT.nii.gz --seed 1 --label_path LABEL.nii.gz`: one phantom as NIfTI."""

import fire

from . import make_phantom, save_phantom


def main(output: str, label_path: str | None = None, **kwargs) -> None:
    """Write a phantom; further arguments are make_phantom's (seed, shape, spacing, region, phase, axcodes)."""
    save_phantom(make_phantom(**kwargs), output, label_path)


if __name__ == "__main__":
    fire.Fire(main)
