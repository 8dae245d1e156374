"""Volume nodes as grids: what the worker is told lies where Slicer shows it."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from slicer_scene import SlicerScene, affine, rotation

from MSKDSegmentationLib.errors import SegmentationError
from MSKDSegmentationLib.volume import grid_of, region_corners, voxels

ARRAY = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
OBLIQUE = affine(rotation((20, -35, 50)) @ np.diag([0.7, 0.9, 2.5]), (-30, 12, 7))


def itk_point_in_ras(geometry: dict, index: tuple[int, int, int]) -> np.ndarray:
    """Where ITK puts voxel (i, j, k) of an image with that geometry, turned from LPS to RAS."""
    image = sitk.Image(2, 2, 2, sitk.sitkUInt8)
    image.SetSpacing(geometry["spacing"][::-1])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(geometry["direction"])
    return np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)


def slicer_point(volume, index: tuple[int, int, int]) -> np.ndarray:
    """Where Slicer shows voxel (i, j, k), below all transforms."""
    matrix = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(volume))
    point = (matrix @ (*index, 1))[:3]
    if volume.GetParentTransformNode() is None:
        return point
    placed = [0.0, 0.0, 0.0]
    volume.TransformPointToWorld(point, placed)
    return np.array(placed)


def _ijk_to_ras(volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(4),
        OBLIQUE,
        affine(np.diag([-1.0, -1.0, 3.0]), (10, 20, 30)),
        affine(np.diag([-1.0, 1.0, 1.0])),
        affine(np.array([[0, 0, 2.0], [1.0, 0, 0], [0, 1.0, 0]])),
    ],
    ids=["identity", "oblique", "flipped", "left-handed", "sagittal"],
)
@pytest.mark.parametrize(
    "transform",
    [None, affine(rotation((5, 80, -10)), (1, 2, 3)), affine(np.diag([2.0, 2.0, 2.0]))],
    ids=["untransformed", "rigid", "scaled"],
)
def test_the_geometry_sent_is_where_slicer_shows_the_voxels(world: SlicerScene, matrix, transform) -> None:
    volume = world.volume(ARRAY, matrix)
    if transform is not None:
        volume.SetAndObserveTransformNodeID(world.transform(transform).GetID())
    geometry = grid_of(volume).as_geometry()
    for index in [(0, 0, 0), (5, 0, 0), (0, 4, 0), (0, 0, 3), (5, 4, 3)]:
        assert itk_point_in_ras(geometry, index) == pytest.approx(slicer_point(volume, index), abs=1e-4)


def test_a_stack_of_transforms_is_followed_to_the_world(world: SlicerScene) -> None:
    volume = world.volume(ARRAY, OBLIQUE)
    inner, outer = world.transform(affine(rotation((0, 0, 90)))), world.transform(affine(np.eye(3), (100, 0, 0)))
    inner.SetAndObserveTransformNodeID(outer.GetID())
    volume.SetAndObserveTransformNodeID(inner.GetID())
    geometry = grid_of(volume).as_geometry()
    assert itk_point_in_ras(geometry, (5, 4, 3)) == pytest.approx(slicer_point(volume, (5, 4, 3)), abs=1e-4)


def test_under_a_shear_the_grid_is_the_nearest_that_an_image_can_have(world: SlicerScene) -> None:
    volume = world.volume(ARRAY, OBLIQUE)
    shear = np.eye(3)
    shear[0, 1] = 0.1
    volume.SetAndObserveTransformNodeID(world.transform(affine(shear)).GetID())
    geometry = grid_of(volume).as_geometry()
    direction = np.array(geometry["direction"]).reshape(3, 3)
    assert direction.T @ direction == pytest.approx(np.eye(3), abs=1e-9)
    for index in [(0, 0, 0), (5, 4, 3)]:
        assert np.linalg.norm(itk_point_in_ras(geometry, index) - slicer_point(volume, index)) < 0.5


def test_a_region_drawn_around_voxels_holds_these_voxels(world: SlicerScene) -> None:
    volume = world.volume(ARRAY, OBLIQUE)
    corner, other = slicer_point(volume, (1, 1, 1)), slicer_point(volume, (3, 3, 2))
    region = world.region(np.minimum(corner, other), np.maximum(corner, other))
    box = grid_of(volume).region_around(region_corners(region))
    assert box["minimum"] == pytest.approx(np.minimum(corner, other), abs=1e-4)
    assert box["maximum"] == pytest.approx(np.maximum(corner, other), abs=1e-4)


def test_a_turned_or_transformed_region_becomes_the_box_around_it(world: SlicerScene) -> None:
    region = world.region((-10, -20, -5), (10, 20, 5))
    region.SetAndObserveTransformNodeID(world.transform(affine(rotation((0, 0, 90)), (100, 0, 0))).GetID())
    box = grid_of(world.volume(ARRAY)).region_around(region_corners(region))
    assert box["minimum"] == pytest.approx((80, -10, -5), abs=1e-6)
    assert box["maximum"] == pytest.approx((120, 10, 5), abs=1e-6)


def test_a_region_may_be_two_points(world: SlicerScene) -> None:
    box = grid_of(world.volume(ARRAY)).region_around(region_corners(((0, 1, 2), (3, 4, 5))))
    assert (box["minimum"], box["maximum"]) == (pytest.approx([0, 1, 2]), pytest.approx([3, 4, 5]))


def test_an_empty_region_is_refused(world: SlicerScene) -> None:
    with pytest.raises(SegmentationError, match="'R' is empty"):
        region_corners(world.region((0, 0, 0), (1, 1, 0)))


def test_a_volume_without_image_is_refused(world: SlicerScene) -> None:
    empty = world.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    with pytest.raises(SegmentationError, match="'nothing' holds no image"):
        voxels(empty)


def test_a_colour_image_is_refused(world: SlicerScene) -> None:
    node = world.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    slicer.util.updateVolumeFromArray(node, np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(SegmentationError, match="'photo' has 3 numbers per voxel"):
        voxels(node)


def test_a_non_linear_transform_is_refused_with_its_name(world: SlicerScene) -> None:
    volume = world.volume(ARRAY)
    warp = world.scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    import vtk

    spline = vtk.vtkThinPlateSplineTransform()
    warp.SetAndObserveTransformToParent(spline)
    volume.SetAndObserveTransformNodeID(warp.GetID())
    with pytest.raises(SegmentationError, match="non-linear transform 'warp'; harden"):
        grid_of(volume)


def test_a_flat_grid_is_refused(world: SlicerScene) -> None:
    volume = world.volume(ARRAY)
    volume.SetAndObserveTransformNodeID(world.transform(affine(np.diag([1.0, 1.0, 0.0]))).GetID())
    with pytest.raises(SegmentationError, match="no volume"):
        grid_of(volume)
