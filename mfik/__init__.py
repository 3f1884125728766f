"""mfik: MeanFlow inverse kinematics. Train in PyTorch, solve in one network evaluation, run in C++ controllers."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mfik")
except PackageNotFoundError:  # imported from a source tree that was never installed
    __version__ = "0+unknown"
