"""Spheres contain what they are fitted to."""

import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from cmake_project import ROOT
from programs import python

from mfik.collision import read_ignored, read_spheres, write_spheres
from mfik.errors import ArgumentError, RobotError

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("scipy")

from mfik.collision.fitting import fit_spheres  # noqa: E402
from mfik.robots.geometry import Shape, mesh_path  # noqa: E402
from mfik.robots.meshes import link_mesh  # noqa: E402
from mfik.robots.source import Source  # noqa: E402


def held(points, spheres):
    distance = np.linalg.norm(points[:, None] - spheres[None, :, :3], axis=-1)
    return (distance <= spheres[:, 3]).any(1)


def surfaces():
    yield "box", trimesh.creation.box((0.2, 0.1, 0.02))
    yield "tube", trimesh.creation.annulus(0.04, 0.06, 0.15)
    yield (
        "two bodies",
        trimesh.util.concatenate(
            [
                trimesh.creation.icosphere(radius=0.05),
                trimesh.creation.box((0.05, 0.05, 0.05)).apply_translation((0.3, 0, 0)),
            ]
        ),
    )
    open_box = trimesh.creation.box((0.1, 0.1, 0.1))
    open_box.update_faces(np.arange(len(open_box.faces)) > 1)
    yield "open", open_box


@pytest.mark.parametrize(("name", "mesh"), list(surfaces()), ids=lambda x: x if isinstance(x, str) else "")
def test_spheres_contain_the_surface_and_stick_out_by_the_excess_at_most(name, mesh):
    fit = fit_spheres(mesh, excess_m=0.02, samples=20_000)
    points, _ = trimesh.sample.sample_surface(mesh, 100_000, seed=7)
    for part in np.array_split(np.asarray(points), 20):
        assert held(part, fit.spheres).all()
    assert held(mesh.vertices, fit.spheres).all(), "corners are the first to be left out"
    assert fit.outside == 0 and fit.samples == 20_000
    assert 0 < fit.overshoot_m <= 0.021


def test_coverage_needs_no_luck_between_samples():
    """A needle that random points of the surface hardly ever hit."""
    box = trimesh.creation.box((0.2, 0.2, 0.2))
    needle = trimesh.Trimesh([[0.1, 0, 0], [0.3, 0, 0], [0.1, 1e-5, 0]], [[0, 1, 2]])
    fit = fit_spheres(trimesh.util.concatenate([box, needle]), excess_m=0.03, samples=1000)
    along = np.linspace([0.1, 0, 0], [0.3, 0, 0], 1000)
    assert held(along, fit.spheres).all()


@pytest.mark.slow
def test_a_sphere_takes_one_sphere():
    fit = fit_spheres(trimesh.creation.icosphere(subdivisions=3, radius=0.1), max_spheres=1)
    assert len(fit.spheres) == 1 and fit.outside == 0
    assert fit.spheres[0, 3] < 0.102


def test_the_number_of_spheres_is_kept_and_more_are_tighter():
    mesh = trimesh.creation.cylinder(0.05, 0.4)
    overshoots = []
    for number in (1, 4, 12):
        fit = fit_spheres(mesh, max_spheres=number, samples=5000)
        assert 1 <= len(fit.spheres) <= number and fit.outside == 0
        overshoots.append(fit.overshoot_m)
    assert overshoots[0] > overshoots[1] > overshoots[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"excess_m": 0.0}, "excess: expected a length"),
        ({"excess_m": np.nan}, "excess"),
        ({"max_spheres": 0}, "at least 1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        fit_spheres(trimesh.creation.box((1, 1, 1)), **arguments)
    with pytest.raises(ArgumentError, match="mesh: expected triangles"):
        fit_spheres(trimesh.Trimesh())


def test_surfaces_of_primitives_lie_around_the_true_ones(tmp_path):
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(2000, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    transform = np.eye(4)
    transform[:3, 3] = 0.1, 0.2, 0.3
    radius, length = 0.05, 0.2
    capsule = radius * direction + np.sign(direction[:, 2:]) * [0, 0, 0.5 * length]
    angle = rng.uniform(0, 2 * np.pi, 2000)
    cylinder = np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.uniform(-0.5, 0.5, 2000) * length], -1)
    for kind, points in (("capsule", capsule), ("cylinder", cylinder)):
        mesh = link_mesh([Shape(kind, transform, (radius, length))], Source(tmp_path, ET.Element("robot")))
        hull = mesh.convex_hull
        offset = (hull.face_normals * hull.triangles[:, 0]).sum(-1)
        slack = hull.face_normals @ (points + transform[:3, 3]).T - offset[:, None]
        assert slack.max() <= 1e-12, kind
        assert hull.volume < 1.05 * mesh.volume and mesh.is_watertight


def test_meshes_are_found_by_package_by_path_and_scaled(tmp_path):
    folder = tmp_path / "arm_description" / "urdf"
    folder.mkdir(parents=True)
    source = Source(folder / "arm.urdf", ET.Element("robot"))
    mesh = tmp_path / "arm_description" / "meshes" / "part.stl"
    mesh.parent.mkdir()
    trimesh.creation.box((1, 1, 1)).export(mesh)
    for file in ("package://arm_description/meshes/part.stl", "../meshes/part.stl", f"file://{mesh}"):
        shape = Shape("mesh", np.eye(4), (0.1, 0.2, 0.3), file)
        assert mesh_path(shape, folder).samefile(mesh)
        np.testing.assert_allclose(link_mesh([shape], source).extents, [0.1, 0.2, 0.3], atol=1e-6)
    with pytest.raises(RobotError, match="mesh 'package://other/part.stl': no such file .tried"):
        mesh_path(Shape("mesh", np.eye(4), (1, 1, 1), "package://other/part.stl"), folder)
    mesh.write_bytes(b"solid nothing")
    with pytest.raises(RobotError, match="part.stl: "):
        link_mesh([Shape("mesh", np.eye(4), (1.0, 1.0, 1.0), "../meshes/part.stl")], source)


def run(*arguments):
    command = [python(), ROOT / "scripts" / "fit_spheres.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


URDF = """<robot name="two"><link name="a"><collision><geometry><box size="0.2 0.1 0.1"/></geometry></collision></link>
<link name="b"><collision><geometry><sphere radius="0.07"/></geometry></collision>{more}</link>
<joint name="j" type="continuous"><parent link="a"/><child link="b"/></joint></robot>"""


def test_the_command_writes_spheres_and_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    urdf, output, picture = tmp_path / "two.urdf", tmp_path / "out" / "two.yml", tmp_path / "new" / "two.png"
    urdf.write_text(URDF.format(more=""))
    out = run(urdf, "--excess", "0.03", "--output", output, "--picture", picture)
    assert out.returncode == 0, out.stderr
    assert "as they are" in out.stdout and "0 of 100,000" in out.stdout and picture.stat().st_size > 1000
    spheres = read_spheres(output)
    np.testing.assert_array_equal(spheres["b"], [[0, 0, 0, 0.07]])
    assert held(trimesh.creation.box((0.2, 0.1, 0.1)).vertices, spheres["a"]).all()
    assert run(urdf, "--links", "a", "--max_spheres", "1", "--output", output).returncode == 0
    again = read_spheres(output)
    assert len(again["a"]) == 1 and (again["b"] == spheres["b"]).all(), "the other link stays"
    write_spheres(output, again, ignored=[("a", "b")])
    assert run(urdf, "--links", "a", "--max_spheres", "2", "--output", output).returncode == 0
    assert read_ignored(output, ()) == {frozenset("ab")}, "so do pairs that are ignored"


@pytest.mark.parametrize(
    ("more", "arguments", "message"),
    [
        (
            '<collision><geometry><mesh filename="none.stl"/></geometry></collision>',
            [],
            "mesh 'none.stl': no such file",
        ),
        ("", ["--links", "c"], "--links: 'c' has no geometry; use links of a, b"),
        ("", ["--excess", "-1"], "excess: expected a length"),
        ("", ["--picture", "two.foo"], "--picture two.foo: expected a name that ends in .png, .svg, .pdf"),
        ("", ["--picture", "/proc/none/two.png"], "/proc/none: expected a folder that can be written"),
    ],
)
def test_what_the_command_cannot_do_is_one_line_and_writes_nothing(tmp_path, more, arguments, message):
    urdf, output = tmp_path / "two.urdf", tmp_path / "two.yml"
    urdf.write_text(URDF.format(more=more))
    out = run(urdf, "--output", output, *arguments)
    assert out.returncode == 2 and message in out.stderr and len(out.stderr.splitlines()) == 1
    assert not output.exists()
