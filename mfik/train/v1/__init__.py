"""MeanFlow training, version 1 of its interface; it trains networks of every type."""

from mfik import needs_torch  # noqa: F401
from mfik.train.v1.checkpoint import (
    CheckpointSettings,
    load_checkpoint,
    load_model,
    load_settings,
    save_checkpoint,
)
from mfik.train.v1.config import TrainConfig
from mfik.train.v1.loss import LossOutput, jvp_target, meanflow_loss
from mfik.train.v1.plots import plot_run, read_validations
from mfik.train.v1.run_folder import holds_run, newest_checkpoint, read_run, run_id, write_run
from mfik.train.v1.schedule import learning_rate
from mfik.train.v1.trainer import MeanFlowTrainer

__all__ = [
    "CheckpointSettings",
    "LossOutput",
    "MeanFlowTrainer",
    "TrainConfig",
    "holds_run",
    "jvp_target",
    "learning_rate",
    "load_checkpoint",
    "load_model",
    "load_settings",
    "meanflow_loss",
    "newest_checkpoint",
    "plot_run",
    "read_run",
    "read_validations",
    "run_id",
    "save_checkpoint",
    "write_run",
]
