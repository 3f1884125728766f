"""Compare runs of train.py and fit.py: the last validation of each, and the settings in which they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mfik.cli import Parser, run_script
from mfik.errors import ArgumentError, DataError
from mfik.report import has_matplotlib
from mfik.train.v1 import read_run
from mfik.train.v1.records import CSV_FILE, read_csv
from mfik.train.v1.run_folder import RUN_FILE
from mfik.writing import make_folder

# Columns of the table: the tag of a validation, its format, and whether more is better.
_METRICS = {
    "val_loss": ("val/val_loss", "{:.4g}", False),
    "mm": ("val/pos_mm_p50", "{:.1f}", False),
    "deg": ("val/rot_deg_p50", "{:.2f}", False),
    "success": ("val/solved_10", "{:.2%}", True),
}
_CURVES = {
    "training loss": "train/loss",
    "validation loss": "val/val_loss",
    "position error of one step, median [mm]": "val/pos_mm_p50",
    "success rate of one attempt": "val/solved_10",
}
_RECORDED = ("arguments", "train_config", "model_config", "data")  # parts of run.json that hold settings


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--output", type=Path, help="folder for the pictures, compare.png; default: none are drawn")
    args = parser.parse_args()
    runs = {str(folder): load(folder) for folder in args.runs}
    print(table(runs))
    print()
    print(differences(runs))
    if args.output is not None:
        if not has_matplotlib():
            raise ArgumentError("--output: expected matplotlib for the pictures; pip install 'mfik[viz]'")
        make_folder(args.output)
        draw(args.output / "compare.png", runs)
        print(f"\n{args.output / 'compare.png'}: losses, errors and success rates over the time of training")


def load(folder: Path) -> dict[str, Any]:
    """Return a run's settings, and its curves: steps, seconds and values by tag."""
    if not (folder / CSV_FILE).is_file():
        raise DataError(f"{folder}: expected the folder of a run, with {CSV_FILE}; it has none")
    record = read_run(folder / RUN_FILE)
    settings = {f"{part}.{name}": value for part in _RECORDED for name, value in record.get(part, {}).items()}
    curves: dict[str, list[tuple[int, float, float]]] = {}
    for step, seconds, tag, value in read_csv(folder / CSV_FILE):
        curves.setdefault(tag, []).append((step, seconds, value))
    return {"settings": settings, "curves": {tag: np.array(rows) for tag, rows in curves.items()}}


def table(runs: dict[str, dict[str, Any]]) -> str:
    """Return the last validation of each run, the best of a column marked, and the best one that each run had."""
    width = max(len("run"), *map(len, runs))
    lines = [f"{'run':{width}} | {'steps':>9} | {'minutes':>7} | " + " | ".join(f"{name:>18}" for name in _METRICS)]
    lines.append("-" * len(lines[0]))
    last = {
        column: {name: run["curves"][tag][-1, 2] for name, run in runs.items() if tag in run["curves"]}
        for column, (tag, _, _) in _METRICS.items()
    }
    for name, run in runs.items():
        rows = np.concatenate([*run["curves"].values()]) if run["curves"] else np.zeros((1, 3))
        cells = []
        for column, (tag, form, more) in _METRICS.items():
            if name not in last[column]:
                cells.append("-")
                continue
            values = run["curves"][tag][:, 2]
            winner = (max if more else min)(last[column].values()) == values[-1] and len(last[column]) > 1
            best = values.max() if more else values.min()
            cells.append(f"{form.format(values[-1])}{'*' if winner else ''} ({form.format(best)})")
        lines.append(
            f"{name:{width}} | {int(rows[:, 0].max()):9,} | {rows[:, 1].max() / 60:7.2f} | "
            + " | ".join(f"{cell:>18}" for cell in cells)
        )
    return "\n".join([*lines, "Last validation, in brackets the best one of the run; *: best of the runs."])


def differences(runs: dict[str, dict[str, Any]]) -> str:
    """Return the settings that are not the same in all runs."""
    names = sorted({name for run in runs.values() for name in run["settings"]})
    lines = []
    for name in names:
        values = {run: str(data["settings"].get(name, "-")) for run, data in runs.items()}
        if len(set(values.values())) > 1:
            lines.append(f"{name}: " + ", ".join(f"{run} {value}" for run, value in values.items()))
    return "\n".join(["Settings that differ:", *lines]) if lines else "The settings are the same."


def draw(path: Path, runs: dict[str, dict[str, Any]]) -> None:
    """Draw the curves of all runs over the time of training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    for axes, (label, tag) in zip(figure.subplots(2, 2).flat, _CURVES.items(), strict=True):
        for name, run in runs.items():
            if tag in run["curves"]:
                _, seconds, value = run["curves"][tag].T
                axes.plot(seconds / 60, value, label=name, marker="." if len(value) <= 50 else "")
        axes.set(xlabel="training [min]", ylabel=label, yscale="linear" if "success" in label else "log")
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run_script(main)
