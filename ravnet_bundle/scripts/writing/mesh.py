"""Writes a mask's surface as a closed triangle mesh, for 3D Slicer, Blender and 3D printers.

Coordinates are millimetres in LPS, 3D Slicer's default for meshes: x to the patient's left, y to the back, z to the
head. A comment (in STL the header) says "SPACE=LPS".
"""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes

from ..files import atomic
from ..geometry import bounding_box

SPACE = "SPACE=LPS; RA V-Net, liver, millimetres"
SMOOTHING = 0.8  # voxels, SD: smooths the voxels' steps and keeps parts thicker than two voxels
STEPS = 256  # levels of the smoothed mask; the surface lies between two levels, so that no triangle has area zero
CLOSE = 0.002  # accepted error of the volume, as a fraction
MARGIN = 4  # voxels around the mask, so that the smoothed surface is closed


def surface(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices `(N, 3)`, LPS millimetres, float32, and triangles `(M, 3)`, indices, counterclockwise from outside.

    The mask is smoothed slightly and cut at the level where the mesh has the mask's volume.

    Args:
        mask: `(X, Y, Z)`, liver > 0; an empty mask gives no triangles.
        affine: `(4, 4)`, voxels to RAS millimetres.
    """
    box = bounding_box(mask)
    if box is None:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    field = gaussian_filter(np.pad(mask[box] > 0, MARGIN).astype(np.float32), SMOOTHING)
    vertices, triangles = _cut(np.round(STEPS * field), int(np.count_nonzero(mask[box])))
    start = np.array([part.start for part in box]) - MARGIN
    world = (vertices + start) @ affine[:3, :3].T + affine[:3, 3]
    world[:, :2] *= -1  # RAS to LPS
    if np.linalg.det(affine[:3, :3]) > 0:
        triangles = triangles[:, ::-1]
    return world.astype(np.float32), triangles.astype(np.int32)


def _cut(field: np.ndarray, volume: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles, in voxels, at the level with the given volume; the field has whole numbers."""
    low, high = 0, int(field.max())
    while True:
        middle = (low + high) // 2
        vertices, triangles, _, _ = marching_cubes(field, middle + 0.5)
        a, b, c = np.moveaxis((vertices.astype(np.float64) - vertices.mean(axis=0))[triangles], 1, 0)
        held = abs(np.einsum("ij,ij->", a, np.cross(b, c))) / 6
        if abs(held - volume) <= CLOSE * volume or high - low <= 1:
            return vertices, triangles
        low, high = (middle, high) if held > volume else (low, middle)


def write_mesh(mask: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Writes `surface` atomically as binary STL or PLY, or as OBJ, by the path's ending; always the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    vertices, triangles = surface(mask, affine)
    content = {".stl": _stl, ".ply": _ply, ".obj": _obj}[path.suffix](vertices, triangles)
    with atomic(path) as file:
        file.write(content)


def _stl(vertices: np.ndarray, triangles: np.ndarray) -> bytes:
    facets = np.zeros(len(triangles), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    facets["corners"] = vertices[triangles]  # a normal of 0 is allowed: programs compute it from the corners' order
    return SPACE.encode().ljust(80) + np.uint32(len(facets)).astype("<u4").tobytes() + facets.tobytes()


def _ply(vertices: np.ndarray, triangles: np.ndarray) -> bytes:
    header = f"ply\nformat binary_little_endian 1.0\ncomment {SPACE}\nelement vertex {len(vertices)}\n"
    header += "property float x\nproperty float y\nproperty float z\n"
    header += f"element face {len(triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    faces = np.zeros(len(triangles), [("number", "u1"), ("corners", "<i4", 3)])
    faces["number"], faces["corners"] = 3, triangles
    return header.encode() + vertices.astype("<f4").tobytes() + faces.tobytes()


def _obj(vertices: np.ndarray, triangles: np.ndarray) -> bytes:
    lines = [f"# {SPACE}", *(f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in vertices)]
    lines += [f"f {a} {b} {c}" for a, b, c in triangles + 1]
    return ("\n".join(lines) + "\n").encode()
