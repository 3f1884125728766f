"""Export of trained networks: TorchScript, ONNX and the native engine's safetensors in one bundle."""

from mfik import needs_torch  # noqa: F401
from mfik.export.bundle import (
    export_bundle,
    load_bundle,
    write_native,
)
from mfik.files import (
    BUNDLE_FORMAT,
    CARD_FILE,
    CHECKSUMS_FILE,
    NATIVE_FILE,
    ONNX_FILE,
    TORCHSCRIPT_FILE,
    document,
)

__all__ = [
    "BUNDLE_FORMAT",
    "CARD_FILE",
    "CHECKSUMS_FILE",
    "NATIVE_FILE",
    "ONNX_FILE",
    "TORCHSCRIPT_FILE",
    "document",
    "export_bundle",
    "load_bundle",
    "write_native",
]
