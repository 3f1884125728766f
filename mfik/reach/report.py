"""How a map of reach is shown: slices and projections."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mfik.reach.result import ReachMap
from mfik.report import Page
from mfik.writing import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE_IN = (9.6, 8.0)


def pictures(found: ReachMap) -> dict[str, Callable[[Axes], None]]:
    """Return what draws each picture of a map into axes, by its title.

    Shares are those of the orientations that are reached; where none is, nothing is drawn.
    """
    share, best = found.share, found.manipulability_best
    middle = int(np.abs(found.y).argmin())
    level = int(share.sum(axis=(0, 1)).argmax())
    side, above = ("x", found.x, "z", found.z), ("x", found.x, "y", found.y)
    return {
        f"Share at y = {found.y[middle]:.3g} m": _image(share[:, middle], "share", 1.0, *side),
        f"Share at z = {found.z[level]:.3g} m": _image(share[:, :, level], "share", 1.0, *above),
        "Largest share seen from above": _image(share.max(axis=2), "share", 1.0, *above),
        "Best manipulability seen from the side": _image(best.max(axis=1), "manipulability", None, *side),
    }


def draw_map(page: Page, found: ReachMap) -> None:
    """Put a map's numbers and pictures on a page."""
    counts = found.counts()
    poses = counts.pop("poses")
    tiles = {name.replace("_", " "): f"{number:,} ({number / poses:.1%})" for name, number in counts.items()}
    page.tiles({"poses": f"{poses:,}", **tiles, "positions": f"{(found.share > 0).sum():,} reached"})
    page.figure(
        f"Share of {len(found.orientations)} orientations that are reached at a position, and Yoshikawa's "
        "manipulability, the best of them; the layer of z is the one with the largest sum of shares.",
        pictures(found),
    )


def save_picture(found: ReachMap, file: Path) -> None:
    """Write a map's pictures as one PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    for axes, (title, draw) in zip(figure.subplots(2, 2).flat, pictures(found).items(), strict=True):
        axes.set_title(title, fontsize=10)
        draw(axes)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120, metadata={"Software": None})
    with whole_file(file) as target:
        target.write(image.getbuffer())


def _image(
    values: np.ndarray, label: str, most: float | None, across: str, at: np.ndarray, up: str, level: np.ndarray
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        half = 0.5 * (at[1] - at[0] if len(at) > 1 else level[1] - level[0] if len(level) > 1 else 1.0)
        extent = (at[0] - half, at[-1] + half, level[0] - half, level[-1] + half)
        shown = np.ma.masked_equal(values.T, 0.0)
        image = axes.imshow(shown, origin="lower", extent=extent, vmin=0.0, vmax=most, interpolation="nearest")
        axes.set(xlabel=f"{across} [m]", ylabel=f"{up} [m]")
        axes.figure.colorbar(image, ax=axes, label=label)

    return draw
