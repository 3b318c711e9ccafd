"""Pictures of a mask on its CT."""

from __future__ import annotations

import matplotlib
import nibabel as nib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend is chosen first: there may be no screen)


def picture(image: str, mask: str, path: str, truth: str | None = None, title: str = "") -> None:
    """Draws three axial slices and a coronal one with the mask's contour, as radiologists see them, into a PNG.

    The slices are those that part the mask (or, without any, the volume) into quarters; the coronal one is its middle.

    Args:
        image, mask: NIfTI files on one grid.
        path: the PNG.
        truth: reference mask, drawn under the mask's.
        title: above the picture.
    """
    files = [nib.as_closest_canonical(nib.load(file)) for file in (image, mask, truth) if file]
    spacing = files[0].header.get_zooms()[:3]
    volumes = [np.asarray(file.dataobj) for file in files]
    masks = [volume > 0 for volume in volumes[1:]]
    found = masks[0] if masks[0].any() else np.ones_like(masks[0])
    _, ys, zs = (np.flatnonzero(found.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    views = [(np.s_[:, :, z], spacing[1] / spacing[0]) for z in np.quantile(zs, (0.75, 0.5, 0.25)).astype(int)]
    views.append((np.s_[:, ys[len(ys) // 2], :], spacing[2] / spacing[0]))
    shapes = [volumes[0][view].shape for view, _ in views]
    widths = [shape[0] / (shape[1] * aspect) for shape, (_, aspect) in zip(shapes, views, strict=True)]
    figure, axes = plt.subplots(1, 4, figsize=(4 * sum(widths), 4.4), width_ratios=widths, facecolor="black")
    names = ("axial, upper", "axial, middle", "axial, lower", "coronal")
    for axis, (view, aspect), name in zip(axes, views, names, strict=True):
        # canonical arrays are (R, A, S): transposed, origin below, mirrored so that the right is on the left
        axis.imshow(volumes[0][view].T, cmap="gray", vmin=-110, vmax=190, origin="lower", aspect=aspect)
        for drawn, colour in list(zip(masks, ("#ff4040", "#40ff80"), strict=False))[::-1]:
            if drawn[view].any():
                axis.contour(drawn[view].T, levels=[0.5], colors=colour, linewidths=1.0)
        axis.invert_xaxis()
        axis.set_title(name, color="white", fontsize=9)
        axis.axis("off")
    legend = "red: mask" + (", green: truth" if truth else "") + "; R is on the left"
    figure.suptitle(f"{title}   ({legend})" if title else legend, color="white", fontsize=10)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.86, wspace=0.02)
    figure.savefig(path, dpi=110, facecolor="black")
    plt.close(figure)
