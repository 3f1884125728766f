"""One HTML page with its pictures, each drawn twice: for light and for dark."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PICTURES = "pictures"
_SIZE_IN = (4.6, 3.3)  # so that 9 pt read on a telephone and two pictures stand side by side on a screen

# Okabe and Ito's colours ("Color universal design", 2008), which the colour-blind tell apart; blue and black are
# replaced in the dark by sky blue and yellow of the same set. Order: C0 to C4 of the pictures.
_COLOURS = {
    "light": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"),
    "dark": ("#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#F0E442"),
}
_INK = {"light": "#1f2328", "dark": "#e6edf3"}
_FAINT = {"light": "#59636e", "dark": "#9198a1"}
_LINE = {"light": "#d1d9e0", "dark": "#3d444d"}
_CARD = {"light": "#ffffff", "dark": "#151b23"}
_GROUND = {"light": "#f6f8fa", "dark": "#0d1117"}

_STYLE = """
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 16px; }
h1 { margin: 8px 0; } h2 { margin: 40px 0 8px; }
p, figcaption { max-width: 75ch; overflow-wrap: break-word; }
code, pre { font: 13px/1.5 ui-monospace, monospace; }
pre { overflow-x: auto; padding: 12px; border: 1px solid var(--line); border-radius: 6px; background: var(--card); }
a { color: inherit; }
.faint { color: var(--faint); font-size: 14px; }
.tiles { display: grid; gap: 12px; margin: 16px 0; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(min(100%, 220px), 1fr)); }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px; }
.tiles dt { color: var(--faint); font-size: 14px; }
.tiles dd { margin: 0; font-size: 18px; overflow-wrap: break-word; }
figure { margin: 16px 0 32px; } figcaption p { margin: 6px 0; }
.pictures { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
.pictures img { display: block; box-sizing: border-box; width: 100%; max-width: 620px; border: 1px solid var(--line);
    border-radius: 6px; }
.table { overflow-x: auto; margin: 16px 0; }
table { border-collapse: collapse; background: var(--card); font-size: 14px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 6px; }
th, td { border: 1px solid var(--line); padding: 4px 7px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 110px; }
table.text th { text-align: left; }
table.text td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
"""


def has_matplotlib() -> bool:
    """Tell whether pictures can be drawn; matplotlib comes with the extra `viz`."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def cpu_name() -> str:
    """Return the processor's model and the number of its cores that this process may use."""
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:  # not Linux
        match = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{match.group(1).strip() if match else platform.processor() or platform.machine()}, {cores} cores"


class Page:
    """A page in the making; `write` puts it into a folder. Needs matplotlib (`has_matplotlib`) for its pictures.

    Args:
        title: Heading of the page.
        lead: A paragraph below it.
        measured: What was measured, and where; stands below every picture.
        command: Command that measures it again.
    """

    def __init__(self, title: str, lead: str, *, measured: str, command: str) -> None:
        self._title = title
        self._measured = measured
        self._pictures: dict[str, tuple[str, Callable[[Axes], None]]] = {}
        self._body = [f"<h1>{escape(title)}</h1>", f"<p>{escape(lead)}</p>"]
        self._end = f'<h2 id="repeat">Measure it again</h2><pre>{escape(command)}</pre><p>{escape(measured)}.</p>'

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._body.append(f"<h2>{escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._body.append(f"<p>{escape(text)}</p>")

    def tiles(self, values: Mapping[str, str]) -> None:
        """Add key numbers by their names."""
        tiles = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())
        self._body.append(f'<dl class="tiles">{"".join(tiles)}</dl>')

    def table(self, caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> None:
        """Add a table; the first column names the rows, the others hold numbers or text."""

        def line(tag: str, cells: Sequence[str]) -> str:
            return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

        kind = "" if numbers else ' class="text"'
        self._body.append(
            f'<div class="table"><table{kind}><caption>{escape(caption)}</caption><thead>{line("th", head)}</thead>'
            f"<tbody>{''.join(line('td', row) for row in rows)}</tbody></table></div>"
        )

    def details(self, summary: str, text: str) -> None:
        """Add preformatted text that shows when it is asked for."""
        self._body.append(f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>")

    def figure(self, caption: str, pictures: Mapping[str, Callable[[Axes], None]]) -> None:
        """Add pictures with a sentence below them.

        Args:
            caption: What is seen, and how it was measured.
            pictures: By title (every one of its own on the page), what draws it into the axes that it is given.
        """
        images = []
        for title, draw in pictures.items():
            name = re.sub(r"\W+", "-", title.lower()).strip("-")
            self._pictures[name] = title, draw
            images.append(
                f'<picture><source media="(prefers-color-scheme: dark)" srcset="{_PICTURES}/{name}-dark.svg">'
                f'<img src="{_PICTURES}/{name}-light.svg" alt="{escape(title)}"></picture>'
            )
        self._body.append(
            f'<figure><div class="pictures">{"".join(images)}</div><figcaption><p>{escape(caption)}</p>'
            f'<p class="faint">{escape(self._measured)} (<a href="#repeat">command</a>).</p></figcaption></figure>'
        )

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write FOLDER/index.html and FOLDER/pictures; return the page's path."""
        folder = Path(folder)
        (folder / _PICTURES).mkdir(parents=True, exist_ok=True)
        for theme in _COLOURS:
            for name, picture in self._pictures.items():
                _save(folder / _PICTURES / f"{name}-{theme}.svg", *picture, theme)
        page = folder / "index.html"
        page.write_text(
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta name="color-scheme" content="light dark"><title>{escape(self._title)}</title>'
            f"<style>:root {{ {_variables('light')} }}\n"
            f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables('dark')} }} }}{_STYLE}</style></head>\n"
            "<body><main>\n" + "\n".join([*self._body, self._end]) + "\n</main></body></html>\n",
            encoding="utf-8",
        )
        return page


def _variables(theme: str) -> str:
    values = {"ink": _INK, "faint": _FAINT, "line": _LINE, "card": _CARD, "ground": _GROUND}
    return " ".join(f"--{name}: {colours[theme]};" for name, colours in values.items())


def _save(path: Path, title: str, draw: Callable[[Axes], None], theme: str) -> None:
    """Draw a picture as SVG, the same bytes for the same numbers."""
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    ink = {name: _INK[theme] for name in ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")}
    lines = {name: _FAINT[theme] for name in ("axes.edgecolor", "xtick.color", "ytick.color")}
    style: Any = {
        **ink,
        **lines,
        "figure.facecolor": _CARD[theme],
        "axes.facecolor": _CARD[theme],
        "grid.color": _LINE[theme],
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=_COLOURS[theme]),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9,
        "legend.fontsize": 8,
        "legend.edgecolor": _LINE[theme],
        "lines.markersize": 4,
        "image.cmap": "viridis",
        "svg.hashsalt": path.name,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=_SIZE_IN, layout="constrained")
        figure.suptitle(title, fontsize=10)
        draw(figure.add_subplot())
        figure.savefig(path, metadata={"Date": None})
