"""Training data: generation from a robot's description, the file format, validation, sources of training's rows."""

from mfik.data.dataset import FORMAT_VERSION, IKDataset, load_dataset, save_dataset
from mfik.data.generate import COUPLINGS, generate, nearest_equivalent
from mfik.data.source import FileSource, OnlineSource

__all__ = [
    "COUPLINGS",
    "FORMAT_VERSION",
    "FileSource",
    "IKDataset",
    "OnlineSource",
    "generate",
    "load_dataset",
    "nearest_equivalent",
    "save_dataset",
]
