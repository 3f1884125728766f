"""The world and clearance of libmfik.so, through ctypes: the same numbers as from Python."""

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mfik.collision import Box, Capsule, Cylinder, HalfSpace, PointCloud, Sphere, World
from mfik.robots import load_robot

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)
from mfik.export import document, export_bundle
from mfik.solve import Solver

REAL, POINTER, TEXT = ctypes.c_double, ctypes.c_void_p, ctypes.c_char_p


class Clearance(ctypes.Structure):
    _fields_ = [("distance_m", REAL), ("first", TEXT), ("second", TEXT), ("gradient", REAL * 16)]


@pytest.fixture(scope="module")
def library():
    folder = subprocess.check_output([sys.executable, "-m", "mfik", "--lib-dir"], text=True).strip()
    loaded = ctypes.CDLL(str(Path(folder) / "libmfik.so"))
    loaded.mfik_load.restype = loaded.mfik_world_create.restype = POINTER
    return loaded


def doubles(values):
    array = np.asarray(values, dtype=np.float64).ravel()
    return (REAL * len(array))(*array)


def test_c_says_what_python_says(library, tmp_path):
    robot = load_robot("panda")
    export_bundle(tmp_path / "panda", None, document(None, robot))
    solver = POINTER(library.mfik_load(str(tmp_path / "panda").encode(), None, ctypes.c_size_t(0)))
    world, text = POINTER(library.mfik_world_create()), ctypes.create_string_buffer(300)
    end = (text, ctypes.c_size_t(len(text)))
    pose, points = [0.5, 0.1, 0.4, 0.6, 0.8, 0.0, 0.0], [[0.3, 0.3, 0.3], [0.1, 0.6, 0.2]]
    add = {
        "sphere": (REAL(0.1),),
        "box": (doubles([0.1, 0.2, 0.3]),),
        "cylinder": (REAL(0.1), REAL(0.2)),
        "capsule": (REAL(0.1), REAL(0.2)),
        "half_space": (),
        "point_cloud": (doubles(points), ctypes.c_size_t(2), REAL(0.05)),
    }
    for index, (kind, sizes) in enumerate(add.items()):
        call = getattr(library, f"mfik_world_add_{kind}")
        assert call(world, kind.encode(), *sizes, doubles(pose), *end) == index
    shapes = [
        Sphere(0.1, pose, "sphere"),
        Box([0.1, 0.2, 0.3], pose, "box"),
        Cylinder(0.1, 0.2, pose, "cylinder"),
        Capsule(0.1, 0.2, pose, "capsule"),
        HalfSpace(pose, "half_space"),
        PointCloud(points, 0.05, "point_cloud", pose),
    ]
    here, python = World(shapes), Solver.from_robot(robot)
    for q in robot.sample(20, np.random.default_rng(0)):
        found, expected = Clearance(), python.clearance(q, here)
        assert library.mfik_clearance_of(solver, doubles(q), world, 1, ctypes.byref(found)) == 0
        assert found.distance_m == expected.distance
        assert (found.first.decode(), found.second.decode()) == (expected.first, expected.second)
        np.testing.assert_array_equal(found.gradient[:7], expected.gradient)
        assert not any(found.gradient[7:])
        here.set_pose("half_space", [0, 0, -1, 1, 0, 0, 0])
        assert library.mfik_world_set_pose(world, 4, doubles([0, 0, -1, 1, 0, 0, 0])) == 0
    assert library.mfik_world_set_pose(world, 6, doubles(pose)) == 5, "no such shape"
    assert library.mfik_world_add_sphere(world, b"box", REAL(0.1), doubles(pose), *end) == -1
    assert b"'box': expected a name of its own" in text.value
    assert library.mfik_world_add_sphere(world, b"new", REAL(-0.1), doubles(pose), *end) == -1
    assert b"finite and above 0" in text.value
    assert library.mfik_clearance_of(solver, None, world, 1, ctypes.byref(found)) == 5
    library.mfik_world_destroy(world)
    library.mfik_destroy(solver)
