"""mfik: MeanFlow inverse kinematics. Train in PyTorch, solve in one network evaluation, run in C++ controllers."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Look the version up when it is asked for: reading the metadata of packages takes longer than the rest."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mfik")
    except PackageNotFoundError:  # imported from a source tree that was never installed
        return "0+unknown"
