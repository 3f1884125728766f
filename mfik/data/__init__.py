"""Training data: generation from a robot's description, the file format, validation, sources of training's rows."""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ImportError("mfik.data needs PyTorch: pip install 'mfik[train]'")

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
