"""Training data: generation from a robot's description, the file format, validation."""

from mfik.data.dataset import FORMAT_VERSION, IKDataset, load_dataset, save_dataset
from mfik.data.generate import COUPLINGS, generate, nearest_equivalent

__all__ = [
    "COUPLINGS",
    "FORMAT_VERSION",
    "IKDataset",
    "generate",
    "load_dataset",
    "nearest_equivalent",
    "save_dataset",
]
