"""The world, attachments and clearance of libmfik.so, through ctypes: the same numbers as from Python."""

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
    loaded.mfik_load.restype = loaded.mfik_world_create.restype = loaded.mfik_attachments_create.restype = POINTER
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
        assert library.mfik_clearance_of(solver, doubles(q), world, 1, None, ctypes.byref(found)) == 0
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
    assert library.mfik_clearance_of(solver, None, world, 1, None, ctypes.byref(found)) == 5
    library.mfik_world_destroy(world)
    library.mfik_destroy(solver)


def test_what_is_attached_in_c_counts_as_what_is_attached_in_python(library, tmp_path):
    robot = load_robot("panda")
    export_bundle(tmp_path / "panda", None, document(None, robot))
    solver = POINTER(library.mfik_load(str(tmp_path / "panda").encode(), None, ctypes.c_size_t(0)))
    held, text = POINTER(library.mfik_attachments_create(solver)), ctypes.create_string_buffer(300)

    def attach(name, spheres, link, pose, touching=()):
        names = (TEXT * len(touching))(*(other.encode() for other in touching))
        size = ctypes.c_size_t(len(touching)), text, ctypes.c_size_t(len(text))
        count = ctypes.c_size_t(len(spheres))
        return library.mfik_attachments_add(
            held, name.encode(), doubles(spheres), count, link.encode(), doubles(pose), names, *size
        )

    # A long tool, which hits the forearm; a box beside the elbow, which link 5 always touches; one that no joint moves.
    tool, box, stand = [[0, 0, 0.1 * i, 0.05] for i in range(8)], [[0, 0, 0, 0.25]], [[0, 0, 0, 0.1]]
    objects = [
        ("tool", tool, robot.tip_link, [0.0, 0.1, 0.1, 0.6, -0.8, 0.0, 0.0], ("panda_link6",)),
        ("box", box, "panda_link4", [0.0, 0.0, 0.1, 1.0, 0.0, 0.0, 0.0], ()),
        ("stand", stand, robot.base_link, [0.3, 0.3, 0.2, 1.0, 0.0, 0.0, 0.0], ("box",)),
    ]
    moved = [0.05, 0.0, 0.2, 0.8, 0.0, 0.6, 0.0]
    for index, given in enumerate(objects):
        assert attach(*given) == index, text.value
    assert library.mfik_attachments_set_pose(held, 0, doubles(moved)) == 0
    assert library.mfik_attachments_set_pose(held, 3, doubles(moved)) == 5, "no such object"
    for name, spheres, link, pose, touching in objects:
        pose = moved if name == "tool" else pose
        robot = robot.attach(name, spheres, link=link, pose=pose, touching=touching)
    pairs = {frozenset((pair.first, pair.second)): pair.reason for pair in robot.body.pairs}
    assert pairs[frozenset(("box", "panda_link5"))] == "always", "or the example shows less than it should"

    here, world = World([Sphere(0.1, [0.6, 0, 0.6, 1, 0, 0, 0], "ball")]), POINTER(library.mfik_world_create())
    library.mfik_world_add_sphere(world, b"ball", REAL(0.1), doubles([0.6, 0, 0.6, 1, 0, 0, 0]), None, 0)
    python, seen = Solver.from_robot(robot), set()
    for q in robot.sample(300, np.random.default_rng(0)):
        found, expected = Clearance(), python.clearance(q, here)
        assert library.mfik_clearance_of(solver, doubles(q), world, 1, held, ctypes.byref(found)) == 0
        assert found.distance_m == pytest.approx(expected.distance, abs=1e-12)
        assert (found.first.decode(), found.second.decode()) == (expected.first, expected.second)
        np.testing.assert_allclose(found.gradient[:7], expected.gradient, atol=1e-9)
        seen |= {expected.first, expected.second}
    assert {"tool", "box", "stand", "ball"} <= seen
    assert attach("tool", tool, robot.tip_link, moved) == -1
    assert b"'tool': expected a name that no link" in text.value
    library.mfik_attachments_destroy(held)
    library.mfik_world_destroy(world)
    library.mfik_destroy(solver)
