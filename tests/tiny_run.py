"""Runs of a network so small that an epoch takes a tenth of a second."""

import torch

from mfik.data import FileSource
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.train.v1 import MeanFlowTrainer, TrainConfig

TINY = ModelConfig(width=32, num_blocks=1, cond_dim=16, encoding="none")


def config(**changes):
    base = {"batch_size": 64, "num_epochs": 3, "warmup_steps": 5, "learning_rate": 1e-3, "log_interval": 5}
    return TrainConfig(**{**base, "device": "cpu", **changes})


def trainer(panda, output_dir=None, **changes):
    torch.manual_seed(0)
    return MeanFlowTrainer(MeanFlowNet(TINY), config(**changes), robot=panda, output_dir=output_dir)


def fit(run, data):
    """Train on all rows but the last 70, which are validated."""
    source = FileSource(data.rows(0, 630), run.config.batch_size, seed=run.config.seed)
    return run.fit(source, data.rows(630, 700))


def states_equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)
