"""Where the metrics of a run are recorded: TensorBoard's logs, metrics.csv, and Weights & Biases on demand."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from mfik.errors import ArgumentError
from mfik.writing import whole_file

CSV_FILE = "metrics.csv"
CSV_COLUMNS = ("step", "seconds", "tag", "value")


class Records:
    """Record metrics in the folder of a run; what is recorded past the step that is resumed from is withdrawn.

    Args:
        folder: Of the run; gets `logs/` and `metrics.csv`, a row for each number, with TensorBoard's tags.
        step: That the run continues from.
        run: Identity of the run, which Weights & Biases continues it by.
        settings: Of the run, for Weights & Biases; None: it is not used.
    """

    def __init__(self, folder: Path, step: int, run: str, settings: dict[str, Any] | None) -> None:
        self._board = SummaryWriter(str(folder / "logs"), purge_step=step + 1)
        path = folder / CSV_FILE
        rows = [row for row in read_csv(path) if row[0] <= step] if step and path.is_file() else []
        with whole_file(path) as file:
            lines = [CSV_COLUMNS, *rows]
            file.write("".join(",".join(map(str, line)) + "\n" for line in lines).encode())
        self._file = open(path, "a", newline="")
        self._wandb = None
        if settings is not None:
            import wandb

            project = os.environ.get("WANDB_PROJECT", "mfik")
            try:
                self._wandb = wandb.init(project=project, dir=folder, id=run, resume="allow", config=settings)
            except wandb.errors.Error as error:
                raise ArgumentError(
                    f"wandb: it cannot be logged to ({error}); `wandb login`, or WANDB_MODE=offline"
                ) from error
        self._csv = csv.writer(self._file, lineterminator="\n")

    def add(self, group: str, metrics: Mapping[str, float], step: int, seconds: float) -> None:
        """Record the metrics of a group after a step, `seconds` of training after the first one."""
        for name, value in metrics.items():
            self._board.add_scalar(f"{group}/{name}", value, step)
            self._csv.writerow((step, round(seconds, 3), f"{group}/{name}", value))
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log({f"{group}/{name}": value for name, value in metrics.items()}, step=step)

    def close(self) -> None:
        """Write what is still in memory."""
        self._board.close()
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_csv(path: Path) -> list[tuple[int, float, str, float]]:
    """Read a metrics.csv: step, seconds, tag and value of each record; a last line that was cut off is left out."""
    with open(path, newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == len(CSV_COLUMNS)][1:]
    return [(int(step), float(seconds), tag, float(value)) for step, seconds, tag, value in rows]
