"""Names of the files in a bundle's folder."""

NATIVE_FILE = "model.safetensors"  # also in csrc/solver/bundle.cpp
TORCHSCRIPT_FILE = "model.ts"
ONNX_FILE = "model.onnx"
CHECKSUMS_FILE = "SHA256SUMS"
CARD_FILE = "README.md"
