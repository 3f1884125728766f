"""MeanFlow training, version 1 of its interface; it trains networks of every type."""

from mfik.train.v1.checkpoint import load_checkpoint, load_model, save_checkpoint
from mfik.train.v1.config import TrainConfig
from mfik.train.v1.loss import LossOutput, jvp_target, meanflow_loss
from mfik.train.v1.plots import plot_run, read_validations
from mfik.train.v1.schedule import learning_rate
from mfik.train.v1.trainer import MeanFlowTrainer

__all__ = [
    "LossOutput",
    "MeanFlowTrainer",
    "TrainConfig",
    "jvp_target",
    "learning_rate",
    "load_checkpoint",
    "load_model",
    "meanflow_loss",
    "plot_run",
    "read_validations",
    "save_checkpoint",
]
