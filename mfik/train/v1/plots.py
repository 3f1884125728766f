"""Pictures and page of a run, drawn from its TensorBoard records and run.json."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mfik.kinematics.refinement import ATTEMPT_REFINEMENTS
from mfik.report import Page, has_matplotlib
from mfik.train.v1.config import TrainConfig
from mfik.train.v1.validation import VAL_REFINEMENTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 300  # of a curve; neighbouring records are averaged to no more


class _Picture(NamedTuple):
    """What a picture of a run shows: its y axis, and the curves' tags by name."""

    label: str
    curves: dict[str, str]
    scale: str = "log"
    factor: float = 1.0


_LOSS = _Picture("loss", {"train": "train/loss", "validation": "val/val_loss"})
_FILES = {
    "loss.png": _LOSS,
    "error.png": _Picture(
        "one-step error of held-out rows [mm or deg]",
        {
            "position, median [mm]": "val/pos_mm_p50",
            "position, 95 % [mm]": "val/pos_mm_p95",
            "rotation, median [deg]": "val/rot_deg_p50",
            "rotation, 95 % [deg]": "val/rot_deg_p95",
        },
    ),
}
_QUANTILES = {"95 %": "p95", "mean": "mean", "median": "p50"}
# The page: by heading a sentence and its pictures, by title.
_PARTS = {
    "Accuracy of the averaged network on held-out rows": (
        "One-step errors, and the success rate (rows within 1 mm and 1 mrad and inside the limits) after so many "
        "refinements, at the end of each epoch. These numbers count; a falling loss alone does not.",
        {
            "Position error of one step": _Picture(
                "position error [mm]", {name: f"val/pos_mm_{key}" for name, key in _QUANTILES.items()}
            ),
            "Rotation error of one step": _Picture(
                "rotation error [deg]", {name: f"val/rot_deg_{key}" for name, key in _QUANTILES.items()}
            ),
            "Success rate": _Picture(
                "success rate [%]",
                {
                    "one step": "val/solved_0",
                    f"after {VAL_REFINEMENTS} refinements": f"val/solved_{VAL_REFINEMENTS}",
                    f"to 1e-5 after {ATTEMPT_REFINEMENTS}": f"val/solved_{ATTEMPT_REFINEMENTS}",
                },
                scale="linear",
                factor=100.0,
            ),
        },
    ),
    "Loss": (
        "Training loss as means over the steps between two records, validation loss at the end of each epoch, the "
        "latter also of the rows with r in each quarter of [0, 1], and the loss's forward-kinematics part.",
        {
            "Loss": _LOSS,
            "Validation loss by r": _Picture(
                "loss", {f"r from {k / 4:g} to {(k + 1) / 4:g}": f"val/loss_r{k}" for k in range(4)}
            ),
            "Forward-kinematics loss": _Picture("loss", {"train": "train/fk_loss"}),
            "Norms": _Picture(
                "mean norm",
                {
                    "residual u - (v + (t - r) D)": "train/meanflow_residual",
                    "velocity u": "train/velocity_norm",
                    "derivative D": "train/jvp_norm",
                },
            ),
        },
    ),
    "Optimisation": (
        "Learning rate, norm of the gradient before it is clipped, and rows trained a second, validation and "
        "checkpoints included.",
        {
            "Learning rate": _Picture("learning rate", {"train": "train/lr"}),
            "Gradient norm": _Picture("norm", {"train": "train/grad_norm"}),
            "Phases": _Picture(
                "share [%]",
                {
                    "length of the intervals (curriculum)": "train/curriculum_reach",
                    "rows with a new target (reflow)": "train/reflow_accepted",
                    "loss in the mined rows": "train/mined_share",
                },
                scale="linear",
                factor=100.0,
            ),
            "Throughput": _Picture("rows a second", {"train": "train/samples_per_s"}, scale="linear"),
        },
    ),
}


class _Curve(NamedTuple):
    """Records of a tag: steps, values and wall times [s], [N] each."""

    step: np.ndarray
    value: np.ndarray
    time_s: np.ndarray


def read_validations(output_dir: Path, names: Sequence[str]) -> list[tuple[int, dict[str, float]]]:
    """Read metrics of `MeanFlowTrainer.validate` from a run's records.

    Returns:
        For each validation its step and the metrics by name.
    """
    events = EventAccumulator(str(output_dir / "logs"), size_guidance={"scalars": 0})
    events.Reload()
    curves = {name: {s.step: s.value for s in events.Scalars(f"val/{name}")} for name in names}
    return [(step, {name: curves[name][step] for name in names}) for step in curves[names[0]]]


def plot_run(output_dir: Path) -> list[Path]:
    """Draw loss and errors into OUTPUT_DIR/plots and write the run's page, OUTPUT_DIR/report/index.html.

    Returns:
        The PNG files, and last the page; nothing where matplotlib (extra `viz`) is not installed, or nothing was
        recorded yet.
    """
    if not has_matplotlib():
        return []
    from matplotlib.figure import Figure

    events = EventAccumulator(str(output_dir / "logs"), size_guidance={"scalars": 0})
    events.Reload()
    curves = {}
    for tag in events.Tags()["scalars"]:
        scalars = events.Scalars(tag)
        columns = zip(*((scalar.step, scalar.value, scalar.wall_time) for scalar in scalars), strict=True)
        curves[tag] = _Curve(*(np.array(column, dtype=float) for column in columns))
    folder = output_dir / "plots"
    folder.mkdir(exist_ok=True)
    paths = []
    for name, picture in _FILES.items():
        if curves.keys() & picture.curves.values():
            figure = Figure(figsize=(8, 4.5), layout="constrained")
            axes = figure.add_subplot()
            _draw(axes, picture, curves)
            axes.grid(alpha=0.3)
            figure.savefig(folder / name, dpi=120)
            paths.append(folder / name)
    if curves:
        paths.append(_write_page(output_dir, curves))
    return paths


def _draw(axes: Axes, picture: _Picture, curves: Mapping[str, _Curve]) -> None:
    """Draw the curves of a picture that were recorded, over the steps."""
    for name, tag in picture.curves.items():
        if tag in curves:
            step, value = (_thinned(values) for values in (curves[tag].step, curves[tag].value))
            axes.plot(step, picture.factor * value, label=name, marker="." if len(step) <= 50 else "")
    axes.set(xlabel="step", ylabel=picture.label, yscale=picture.scale)
    if picture.scale == "log":
        low, high = axes.get_ylim()
        axes.yaxis.set_major_formatter("{x:g}")  # 400, not 4 x 10^2
        axes.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else "")
    else:
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -0.02 * high), high)  # a curve at 0 is seen
        axes.yaxis.set_major_formatter("{x:,.0f}")
    if len(axes.lines) > 1:
        axes.figure.legend(loc="outside lower center", ncols=2)


def _thinned(values: np.ndarray) -> np.ndarray:
    """Return the means of neighbours of which there are no more than _POINTS."""
    starts = np.unique(np.linspace(0, len(values), _POINTS, endpoint=False).astype(int))
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))


def _write_page(output_dir: Path, curves: Mapping[str, _Curve]) -> Path:
    record = output_dir / "run.json"
    run = json.loads(record.read_text()) if record.is_file() else {}  # written by scripts/train.py
    last = int(max(curve.step[-1] for curve in curves.values()))
    times = np.concatenate([curve.time_s for curve in curves.values()])
    took = f"{(times.max() - times.min()) / 60:.1f} minutes from the first record to the last"
    measured, command, lead = f"{last:,} steps, {took}", "scripts/train.py", "A run of mfik.train.v1."
    if run:
        config, robot, where = run["train_config"], run["robot"], run["environment"]
        measured = (
            f"{last:,} steps of {config['batch_size'] * where['processes']:,} rows, seed {config['seed']}; "
            f"{where['device_name'] or where['device']}, {took}"
        )
        command = shlex.join(["python", *run["command"]])
        lead = (
            f"A network for {len(robot['joints'])} joints from {robot['base_link']} to {robot['tip_link']}, trained by "
            "MeanFlow. Curves of more than "
            f"{_POINTS} records show means of neighbouring ones."
        )
    name = run["robot"]["name"] if run else output_dir.resolve().name
    page = Page(f"{name}: a training run", lead, measured=measured, command=command)
    final = {tag.removeprefix("val/"): curve.value[-1] for tag, curve in curves.items() if tag.startswith("val/")}
    if final:
        page.tiles(
            {
                "One step, median": f"{final['pos_mm_p50']:.1f} mm, {final['rot_deg_p50']:.2f} deg",
                "One step, 95 %": f"{final['pos_mm_p95']:.1f} mm, {final['rot_deg_p95']:.2f} deg",
                f"Success rate after {VAL_REFINEMENTS} refinements": f"{final[f'solved_{VAL_REFINEMENTS}']:.1%}",
                "Steps": f"{last:,}",
            }
        )
    else:
        page.paragraph("The run ended before its first validation.")
    for heading, (sentence, pictures) in _PARTS.items():
        shown = {
            title: _drawer(picture, curves)
            for title, picture in pictures.items()
            if curves.keys() & picture.curves.values()
        }
        if shown:
            page.heading(heading)
            page.figure(sentence, shown)
    if final:
        page.heading("Final numbers")
        page.table("Last validation.", ["metric", "value"], [[name, f"{value:.5g}"] for name, value in final.items()])
    if run:
        defaults = TrainConfig().to_dict()
        page.heading("Settings")
        page.table(
            "Of training (TrainConfig).",
            ["setting", "value", "default"],
            [[name, str(value), str(defaults.get(name, "-"))] for name, value in run["train_config"].items()],
            numbers=False,
        )
        groups = {"script": "arguments", "network": "model_config", "data": "data", "environment": "environment"}
        page.table(
            "Of the script, the network, the data, and where it ran.",
            ["setting", "value"],
            [[f"{group}: {name}", str(value)] for group, key in groups.items() for name, value in run[key].items()],
            numbers=False,
        )
    return page.write(output_dir / "report")


def _drawer(picture: _Picture, curves: Mapping[str, Any]) -> Callable[[Axes], None]:
    return lambda axes: _draw(axes, picture, curves)
