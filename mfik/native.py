"""The native extension, imported where it is first needed: without it the package still trains."""

from types import ModuleType


def load_native() -> ModuleType:
    """Return `mfik._native`.

    Raises:
        ImportError: It was not built, or cannot be loaded here.
    """
    try:
        from mfik import _native
    except ImportError as error:
        raise ImportError(
            f"mfik._native, which holds the C++ solver, cannot be imported ({error}); "
            "build it with: pip install -e . (needs a C++17 compiler)"
        ) from error
    return _native
