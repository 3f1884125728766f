"""Pictures of a run, drawn from its TensorBoard records."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

_FIGURES = {
    "loss.png": (
        "loss",
        {"train": "train/loss", "validation": "val/val_loss"},
    ),
    "error.png": (
        "one-step error of held-out rows [mm or deg]",
        {
            "position, median [mm]": "val/pos_mm_p50",
            "position, 95 % [mm]": "val/pos_mm_p95",
            "rotation, median [deg]": "val/rot_deg_p50",
            "rotation, 95 % [deg]": "val/rot_deg_p95",
        },
    ),
}


def plot_run(output_dir: Path) -> list[Path]:
    """Draw loss and errors over the steps into OUTPUT_DIR/plots.

    Returns:
        The PNG files; none where matplotlib (extra `viz`) is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    events = EventAccumulator(str(output_dir / "logs"), size_guidance={"scalars": 0})
    events.Reload()
    recorded = set(events.Tags()["scalars"])
    folder = output_dir / "plots"
    folder.mkdir(exist_ok=True)
    paths = []
    for name, (label, curves) in _FIGURES.items():
        drawn = {curve: events.Scalars(tag) for curve, tag in curves.items() if tag in recorded}
        if not drawn:  # interrupted before the first record
            continue
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot(xlabel="step", ylabel=label, yscale="log")
        for curve, scalars in drawn.items():
            axes.plot([s.step for s in scalars], [s.value for s in scalars], label=curve, marker=".")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(folder / name, dpi=120)
        paths.append(folder / name)
    return paths
