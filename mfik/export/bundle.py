"""The bundle: three files with the same network, each carrying the same JSON document about itself.

`model.safetensors` (weights for the native C++ engine), `model.ts` (TorchScript), `model.onnx` (ONNX, dynamic batch).
The graphs map (q_ref [N, J], target_pose [N, 7]) float32 to q_solution [N, J].
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from mfik.errors import BundleError, MfikError
from mfik.model.v1 import MeanFlowNet, ModelConfig, SingleStep
from mfik.robots import Robot

BUNDLE_VERSION = 1
NATIVE_FILE = "model.safetensors"
TORCHSCRIPT_FILE = "model.ts"
ONNX_FILE = "model.onnx"
_METADATA_KEY = "mfik"


def document(
    model: MeanFlowNet,
    robot: Robot,
    *,
    training: dict[str, Any] | None = None,
    accuracy: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the JSON document of a bundle: format, robot chain and limits, network, provenance, measured accuracy."""
    return {
        "format": "mfik-bundle",
        "version": BUNDLE_VERSION,
        "robot": robot.to_dict(),
        "model": model.config.to_dict(),
        "training": training or {},
        "accuracy": accuracy or {},
    }


def write_native(path: Path, model: MeanFlowNet, description: dict[str, Any]) -> None:
    """Write the native engine's file: float32 weights and the JSON document in the safetensors header."""
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(weights, path, metadata={_METADATA_KEY: json.dumps(description)})


def export_bundle(
    output: str | os.PathLike[str], model: MeanFlowNet, description: dict[str, Any], *, overwrite: bool = False
) -> None:
    """Write the bundle folder, whole or not at all.

    Args:
        output: Folder to create.
        model: Network to export; evaluated in float32 on the CPU.
        description: `document(model, robot, ...)`.
        overwrite: Replace an existing bundle.

    Raises:
        BundleError: `output` exists and `overwrite` is false, or it is not a bundle.
    """
    output = Path(output)
    if output.exists():
        if not overwrite:
            raise BundleError(f"{output}: exists already; give another --output, or --overwrite to replace it")
        if not (output / NATIVE_FILE).is_file():
            raise BundleError(f"{output}: exists and is not a bundle (no {NATIVE_FILE}); give another --output")
    if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
        raise BundleError("model: has weights that are not finite; export an earlier checkpoint")
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=output.parent, prefix=output.name, suffix=".partial"))
    try:
        step = SingleStep(model).float().cpu().eval()
        write_native(partial / NATIVE_FILE, model, description)
        _write_torchscript(partial / TORCHSCRIPT_FILE, step, description)
        _write_onnx(partial / ONNX_FILE, step, description)
        partial.chmod(0o755)
        if output.exists():
            shutil.rmtree(output)
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _example(step: SingleStep) -> tuple[torch.Tensor, torch.Tensor]:
    dof = step.model.config.dof
    return torch.zeros(2, dof), torch.tensor([[0.5, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0]]).repeat(2, 1)


def _write_torchscript(path: Path, step: SingleStep, description: dict[str, Any]) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is deprecated and stays the requested format
        traced = torch.jit.freeze(torch.jit.trace(step, _example(step)))
        torch.jit.save(traced, str(path), _extra_files={_METADATA_KEY: json.dumps(description)})


def _write_onnx(path: Path, step: SingleStep, description: dict[str, Any]) -> None:
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that torchvision, which nothing here uses, is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            step,
            _example(step),
            input_names=["q_ref", "target_pose"],
            output_names=["q_solution"],
            dynamic_shapes=({0: torch.export.Dim("N")}, {0: torch.export.Dim("N")}),
            dynamo=True,
            verbose=False,
        )
    logger.setLevel(level)
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {_METADATA_KEY: json.dumps(description)})
    onnx.save(proto, str(path))


def load_bundle(path: str | os.PathLike[str]) -> tuple[MeanFlowNet, Robot, dict[str, Any]]:
    """Read a bundle (the folder, or its `model.safetensors`) back into PyTorch.

    Returns:
        The network in evaluation mode, its robot, and the JSON document.

    Raises:
        BundleError: the file is missing, malformed, foreign, or of another version.
    """
    path = Path(path)
    file = path / NATIVE_FILE if path.is_dir() else path
    if not file.is_file():
        raise BundleError(f"{file}: no such file; make a bundle with scripts/export.py")
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get(_METADATA_KEY)
            weights = {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{file}: not a readable safetensors file ({error}); export it again") from error
    if text is None:
        raise BundleError(f"{file}: expected metadata {_METADATA_KEY!r}, found none; it was not written by mfik")
    try:
        description = json.loads(text)
        kind, version = description["format"], description["version"]
        if (kind, version) != ("mfik-bundle", BUNDLE_VERSION):
            raise BundleError(f"{file}: expected mfik-bundle version {BUNDLE_VERSION}, got {kind} version {version}")
        model = MeanFlowNet(ModelConfig.from_dict(description["model"]))
        model.load_state_dict(weights)
        robot = Robot.from_dict(description["robot"])
    except BundleError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, MfikError) as error:
        raise BundleError(f"{file}: inconsistent bundle ({error}); export it again") from error
    return model.eval(), robot, description
