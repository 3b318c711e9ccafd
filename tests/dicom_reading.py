"""A liver on the grids of several acquisitions, and DICOM results read back by others' means."""

import numpy as np
import pydicom
from matplotlib.path import Path as Polygon
from series_files import write_series

from scripts.writing import Software, write_rtstruct, write_seg

SOFTWARE = Software("RA V-Net", "1.2.3", "ab" * 32)
DICOM = {"SEG": write_seg, "RTSTRUCT": write_rtstruct}
SHAPE, SPACING, CENTRE = (48, 40, 14), (2.0, 2.3, 5.0), np.array([30.0, -20.0, 110.0])
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])

# The directions, in RAS, of a slice's row, of its column, and from slice to slice.
ACQUISITIONS = {
    "axial": [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
    "axial, feet first": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "prone": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "coronal": [[-1, 0, 0], [0, 0, -1], [0, -1, 0]],
    "sagittal": [[0, -1, 0], [0, 0, -1], [-1, 0, 0]],
    "oblique": [[-0.96, -0.28, 0], [0.28 * 0.8, -0.96 * 0.8, -0.6], [0.28 * 0.6, -0.96 * 0.6, 0.8]],
}


def liver(world):
    """In RAS mm: two parts, one with a channel through it and a rod in the channel; like no mirror image of itself."""

    def ellipsoid(centre, *radii):
        return (((world - CENTRE - centre) / radii) ** 2).sum(-1) < 1

    channel = ellipsoid([6, 4, 0], 12, 9, 500) & ~ellipsoid([9, 5, 0], 4.1, 4.1, 500)
    return (ellipsoid([4, 3, 2], 30, 27, 24) & ~channel) | ellipsoid([-28, 20, -14], 9, 8, 7)


def affine_of(acquisition, shape=SHAPE):
    affine = np.eye(4)
    affine[:3, :3] = np.array(ACQUISITIONS[acquisition], float).T * SPACING
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def voxel_centres(affine, shape):
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]


def study(folder, acquisition="axial", change=None):
    """A series on the disk, and the liver on its grid: (mask, affine, files)."""
    affine = affine_of(acquisition)
    mask = liver(voxel_centres(affine, SHAPE))
    return mask, affine, write_series(np.where(mask, 100, -50), affine, folder, change=change)


def pixel_centres(position, orientation, spacing, shape):
    """RAS mm of each pixel, by PS3.3 C.7.6.2.1.1: (rows, columns, 3)."""
    row, column = np.array(orientation, float)[:3], np.array(orientation, float)[3:]
    r, c = np.meshgrid(*map(np.arange, shape), indexing="ij")
    lps = np.array(position, float) + r[..., None] * float(spacing[0]) * column + c[..., None] * float(spacing[1]) * row
    return lps * RAS_TO_LPS


def read_seg(path):
    """Each frame of a SEG: its pixels, where they are in RAS, and the slice that it refers to."""
    ds = pydicom.dcmread(path)
    shared = ds.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    pixels = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    for frame, groups in zip(pixels, ds.PerFrameFunctionalGroupsSequence, strict=True):
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        yield frame > 0, pixel_centres(position, orientation, spacing, frame.shape), source


def read_rtstruct(path, files, combine):
    """Each contoured slice: the pixels whose centres are in its polygons, where they are in RAS, and its UID."""
    slices = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, files)}
    masks = {}
    for contour in pydicom.dcmread(path).ROIContourSequence[0].get("ContourSequence", []):
        uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
        ds = slices[uid]
        row, column = np.split(np.array(ds.ImageOrientationPatient, float), 2)
        from_corner = np.reshape(contour.ContourData, (-1, 3)).astype(float) - np.array(ds.ImagePositionPatient, float)
        assert contour.NumberOfContourPoints == len(from_corner) >= 3
        assert np.abs(from_corner @ np.cross(row, column)).max() < 1e-3  # in the slice's plane
        corners = np.stack([from_corner @ column / ds.PixelSpacing[0], from_corner @ row / ds.PixelSpacing[1]], -1)
        pixels = np.stack(np.meshgrid(np.arange(ds.Rows), np.arange(ds.Columns), indexing="ij"), -1)
        inside = Polygon(np.concatenate([corners, corners[:1]])).contains_points(pixels.reshape(-1, 2))
        empty = np.zeros((ds.Rows, ds.Columns), bool)
        masks[uid] = combine(masks.get(uid, empty), inside.reshape(empty.shape))
    for uid, frame in masks.items():
        ds = slices[uid]
        yield (
            frame,
            pixel_centres(ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing, frame.shape),
            uid,
        )


def dice_in_world(frames, count):
    """Dice between frames as read and the liver, which has `count` voxels in the whole series."""
    both = found = 0
    for pixels, world, _ in frames:
        both += (pixels & liver(world)).sum()
        found += pixels.sum()
    return 2 * both / (found + count)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def read_volume(frames, affine, shape):
    """Frames as read -> a mask on a grid, by where their pixels are."""
    volume = np.zeros(shape, bool)
    for pixels, world, _ in frames:
        at = np.rint((world[pixels] - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
        volume[tuple(at.T)] = True
    return volume
