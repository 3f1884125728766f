"""Contain the links of a robot in spheres: for collision, conservative, with the excess reported.

Spheres in the file stay as they are; boxes, cylinders, capsules and meshes are fitted.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mfik.cli import ROBOT, Parser, add_source_arguments, run_script, source_arguments
from mfik.collision import read_ignored, read_spheres, write_spheres
from mfik.errors import ArgumentError, RobotError
from mfik.robots import PRESETS
from mfik.robots.geometry import read_shapes
from mfik.robots.source import read_source
from mfik.writing import make_folder

if TYPE_CHECKING:
    import trimesh

PICTURES = (".png", ".svg", ".pdf")


def main() -> None:
    parser = Parser(description=__doc__.split("\n\n")[0])
    parser.add_argument("robot", metavar="ROBOT", help=f"{ROBOT}, with collision geometry")
    add_source_arguments(parser)
    parser.add_argument(
        "--links", nargs="+", metavar="LINK", help="links to fit, beside those that OUTPUT has; default: all"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--max_spheres", type=int, metavar="N", help="spheres of each link at most, as tight as it gets")
    size.add_argument("--excess", type=float, default=0.02, metavar="M", help="how far spheres may stick out [m]")
    parser.add_argument("--output", type=Path, default=Path("spheres.yml"), help="YAML file to write")
    parser.add_argument("--picture", type=Path, help="picture of meshes and spheres to write (.png, .svg, .pdf)")
    args = parser.parse_args()

    if args.robot in PRESETS:
        raise ArgumentError(
            f"robot: '{args.robot}' is a preset, whose spheres ship with it; give the file of a robot with meshes"
        )
    if args.picture is not None and args.picture.suffix not in PICTURES:
        raise ArgumentError(f"--picture {args.picture}: expected a name that ends in {', '.join(PICTURES)}; rename it")
    try:
        from mfik.collision.fitting import fit_spheres
        from mfik.robots.meshes import link_mesh
    except ImportError as error:
        raise ImportError(f"fitting needs trimesh and SciPy ({error}): pip install 'mfik[collision]'") from None
    source = read_source(args.robot, **source_arguments(args))
    links = read_shapes(source.path, source.root)
    geometry = {link: shapes for link, shapes in links.items() if shapes}
    if not geometry:
        raise RobotError(f"{args.robot}: no link has <collision> geometry; add it, or write the spheres by hand")
    wanted = args.links or list(geometry)
    for link in wanted:
        if link not in geometry:
            raise ArgumentError(f"--links: '{link}' has no geometry; use links of {', '.join(geometry)}")
    meshes = {link: link_mesh(geometry[link], source) for link in wanted}  # all are there before the first is fitted
    for file in (args.output, args.picture):
        if file is not None:
            make_folder(file.parent)  # likewise

    spheres: dict[str, np.ndarray] = {}
    ignored: set[frozenset[str]] = set()
    if args.links and args.output.exists():
        spheres, ignored = read_spheres(args.output), read_ignored(args.output, links)
    print(f"{'link':32} spheres  overshoot  excess volume  surface points outside")
    for link in wanted:
        given = [[*shape.transform[:3, 3], *shape.size] for shape in geometry[link] if shape.kind == "sphere"]
        mesh = meshes[link]
        if mesh is None:
            spheres[link] = np.array(given)
            print(f"{link:32} {len(given):7}  as they are")
            continue
        fit = fit_spheres(mesh, excess_m=args.excess, max_spheres=args.max_spheres)
        spheres[link] = np.array([*given, *fit.spheres.tolist()])
        print(
            f"{link:32} {len(spheres[link]):7}  {1e3 * fit.overshoot_m:6.1f} mm  {100 * fit.excess_volume:10.0f} %"
            f"  {fit.outside} of {fit.samples:,}",
            flush=True,
        )
    print(f"{'all':32} {sum(len(rows) for rows in spheres.values()):7}")
    how = f"at most {args.max_spheres} spheres a link" if args.max_spheres else f"excess {args.excess} m"
    made_by = f"fit_spheres of {os.path.basename(args.robot)}, {how}" + f" for {', '.join(wanted)}" * bool(args.links)
    if args.picture is not None:
        draw(args.picture, meshes, {link: spheres[link] for link in wanted})
        print(args.picture)
    write_spheres(args.output, spheres, made_by, ignored)
    print(f"{args.output}: load_robot(..., spheres='{args.output}') takes them")


def draw(path: Path, meshes: dict[str, trimesh.Trimesh | None], spheres: dict[str, np.ndarray]) -> None:
    """Draw every link's surface and spheres in a picture of its own."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.use("Agg")
    columns = min(4, len(spheres))
    rows = -(-len(spheres) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.2 * rows), layout="constrained")
    u, v = np.mgrid[0 : 2 * np.pi : 17j, 0 : np.pi : 9j]
    unit = np.stack([np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)])
    for index, (link, balls) in enumerate(spheres.items()):
        axes = figure.add_subplot(rows, columns, index + 1, projection="3d")
        mesh = meshes[link]
        if mesh is not None:
            axes.plot_trisurf(*mesh.vertices.T, triangles=mesh.faces, color="#555555")
        for x, y, z, radius in balls:
            axes.plot_wireframe(*(np.array([x, y, z])[:, None, None] + radius * unit), color="#3b7dd8", linewidth=0.3)
        axes.set_title(f"{link}: {len(balls)}", fontsize=8)
        axes.set_aspect("equal")
        axes.set_axis_off()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run_script(main)
