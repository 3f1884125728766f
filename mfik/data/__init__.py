"""Training data: generation from a robot's description, the file format, validation, sources of training's rows."""

from mfik import needs_torch  # noqa: F401
from mfik.data.dataset import DATA_FORMAT, IKDataset, load_dataset, save_dataset
from mfik.data.free import free_check
from mfik.data.generate import COUPLINGS, generate, nearest_equivalent
from mfik.data.source import FileSource, OnlineSource, Source, StepRows

__all__ = [
    "COUPLINGS",
    "DATA_FORMAT",
    "FileSource",
    "IKDataset",
    "OnlineSource",
    "Source",
    "StepRows",
    "free_check",
    "generate",
    "load_dataset",
    "nearest_equivalent",
    "save_dataset",
]
