"""The bundle: three files with the same network, each carrying the same JSON document about itself.

`model.safetensors` (weights for the native C++ engine), `model.ts` (TorchScript), `model.onnx` (ONNX, dynamic batch):
the last two are described in graphs.py.

`model.safetensors` carries a CRC-32 of all its bytes, which both loaders check before anything else: it finds every
flipped bit and every damaged run of up to 32 bits for certain, and other damage but for one case in 2^32. It is no
signature: who can write the file can write its checksum. PyTorch and ONNX Runtime load their files without a check of
the weights, so `SHA256SUMS` beside them lists the hash of each file: `sha256sum -c SHA256SUMS` in the bundle's folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from mfik.errors import ArgumentError, BundleError, MfikError, WriteError
from mfik.export.graphs import METADATA_KEY, onnx_model, torchscript
from mfik.files import (
    BUNDLE_FORMAT,
    CARD_FILE,
    CHECKSUMS_FILE,
    NATIVE_FILE,
    ONNX_FILE,
    TORCHSCRIPT_FILE,
)
from mfik.model import Network, build_network
from mfik.robots import Robot
from mfik.writing import left_partials, make_folder, partial_of

# The header begins so, behind its length; eight digits of the checksum and a quote follow.
_HEADER_START = b'{"__metadata__":{"crc32":"'
_CHECKSUM = slice(8 + len(_HEADER_START), 8 + len(_HEADER_START) + 8)
# Limits of what a file may claim, as in csrc/solver/bundle.cpp.
_MAX_FILE_BYTES = 1 << 30
_MAX_HEADER_BYTES = 1 << 20
_MAX_JSON_DEPTH = 32
_MAX_REFINE = 1000


def write_native(path: Path, model: Network | None, description: dict[str, Any]) -> None:
    """Write the native engine's file: float32 weights, the JSON document and a checksum in the safetensors header."""
    state = {} if model is None else model.state_dict()
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in state.items()}
    plain = safetensors.torch.save(weights)
    header_end = 8 + int.from_bytes(plain[:8], "little")
    # The metadata comes first and its order is fixed, unlike in safetensors' own header: the checksum's place is known.
    metadata = {"crc32": "0" * 8, METADATA_KEY: _to_json(description)}
    header = json.dumps({"__metadata__": metadata, **json.loads(plain[8:header_end])}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # safetensors aligns the data to 8 bytes
    content = bytearray(len(header).to_bytes(8, "little") + header + plain[header_end:])
    content[_CHECKSUM] = _checksum(content)
    Path(path).write_bytes(content)


def _to_json(description: dict[str, Any]) -> str:
    try:
        return json.dumps(description, allow_nan=False)
    except ValueError as error:
        raise BundleError(
            f"description: expected finite numbers, got one that is not ({error}); leave it out"
        ) from error


def _checksum(content: bytes | bytearray) -> bytes:
    """Return the CRC-32 of a native file with 0 for each digit of its checksum, as lower-case hexadecimal digits."""
    crc = zlib.crc32(content[: _CHECKSUM.start])
    crc = zlib.crc32(b"0" * 8, crc)
    return b"%08x" % zlib.crc32(memoryview(content)[_CHECKSUM.stop :], crc)


def export_bundle(
    output: str | os.PathLike[str],
    model: Network | None,
    description: dict[str, Any],
    *,
    card: str | None = None,
    refine: int = 0,
    errors: bool = False,
    overwrite: bool = False,
) -> None:
    """Write the bundle folder, whole or not at all.

    Args:
        output: Folder to create.
        model: Network to export; evaluated in float32 on the CPU. None: the robot alone, for the C++ solver.
        description: `document(model, robot, ...)`.
        card: Text of the model card, README.md; None writes none.
        refine: Steps of damped least squares that the graphs take after the network's answer, at most.
        errors: The graphs also return, of each q_solution, pos_error [m] and rot_error [rad], and inside, whether it
            keeps the limits, [N] each.
        overwrite: Replace an existing bundle.

    Raises:
        ArgumentError: `refine` is no integer from 0 to 1000, or a robot alone, which has no graph, has options of one.
        BundleError: `output` exists and `overwrite` is false, or it is not a bundle.
        WriteError: the disk is full, the folder is read-only, or the like.
    """
    output = Path(output)
    if isinstance(refine, bool) or not isinstance(refine, int) or not 0 <= refine <= _MAX_REFINE:
        raise ArgumentError(f"refine: expected an integer from 0 to {_MAX_REFINE}, got {refine!r}")
    if model is None and (refine > 0 or errors):
        raise ArgumentError("refine, errors: expected a network, whose graphs they are for, got a robot alone")
    if output.exists():
        if not overwrite:
            raise BundleError(f"{output}: exists already; give another --output, or --overwrite to replace it")
        if not (output / NATIVE_FILE).is_file():
            raise BundleError(f"{output}: exists and is not a bundle (no {NATIVE_FILE}); give another --output")
    state = {} if model is None else model.state_dict()
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise BundleError("model: has weights that are not finite; export an earlier checkpoint")
    make_folder(output.parent)
    for left in left_partials(output):  # by exports that were killed
        shutil.rmtree(left, ignore_errors=True)
    partial = partial_of(output)
    partial.mkdir()  # with the umask's mode
    try:
        write_native(partial / NATIVE_FILE, model, description)
        if model is not None:
            model, robot = model.float().cpu().eval(), Robot.from_dict(description["robot"])
            graph = (model, robot, _to_json(description), refine, errors)
            (partial / TORCHSCRIPT_FILE).write_bytes(torchscript(*graph))
            (partial / ONNX_FILE).write_bytes(onnx_model(*graph).SerializeToString())
        sums = [(hashlib.sha256(file.read_bytes()).hexdigest(), file.name) for file in sorted(partial.iterdir())]
        (partial / CHECKSUMS_FILE).write_text("".join(f"{digest}  {name}\n" for digest, name in sums))
        if card is not None:
            (partial / CARD_FILE).write_text(card)
        if output.exists():
            shutil.rmtree(output)
        partial.rename(output)
    except BaseException as error:
        written = sum(file.stat().st_size for file in partial.glob("*"))
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise WriteError(
                f"{output}: cannot be written, after {written:,} bytes: {error.strerror}; free space there, or give "
                "another --output"
            ) from error
        raise


def load_bundle(path: str | os.PathLike[str]) -> tuple[Network, Robot, dict[str, Any]]:
    """Read a bundle (the folder, or its `model.safetensors`) back into PyTorch.

    Returns:
        The network in evaluation mode, its robot, and the JSON document.

    Raises:
        BundleError: the file is missing, malformed, foreign, or of another format version.
    """
    path = Path(path)
    file = path / NATIVE_FILE if path.is_dir() else path
    if not file.is_file():
        raise BundleError(f"{file}: no such file; make a bundle with scripts/export.py")
    try:
        content = _read(file)
        header_end = 8 + _check_bytes(content)
        text = _parse(content[8:header_end], "header")["__metadata__"][METADATA_KEY]
        description = _parse(text, "metadata")
        kind, version = description["format"], description["version"]
        if (kind, version) != ("mfik-bundle", BUNDLE_FORMAT):
            raise ValueError(
                f"expected an mfik-bundle of format version {BUNDLE_FORMAT}, got {kind!r:.60} of format version "
                f"{version!r:.60}; use the mfik that wrote it"
            )
        robot = Robot.from_dict(description["robot"])
        if description["model"] is None:
            raise ValueError("expected a network, got a robot alone")
        with torch.device("meta"):  # sizes are checked before any memory is taken for them
            model = build_network(description["model"], robot)
        _load_weights(model, safetensors.torch.load(content))
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({error}); check its permissions, or copy it again") from error
    except KeyError as error:
        raise BundleError(f"{file}: expected {error}, got nothing; export it again with scripts/export.py") from error
    except (
        ArithmeticError,
        AttributeError,
        TypeError,
        ValueError,
        RuntimeError,  # RecursionError too
        SafetensorError,
        MfikError,
    ) as error:
        raise BundleError(f"{file}: {error}; export it again with scripts/export.py") from error
    return model.eval(), robot, description


def _read(file: Path) -> bytes:
    size = file.stat().st_size
    if size > _MAX_FILE_BYTES:
        raise ValueError(f"size: expected at most {_MAX_FILE_BYTES} bytes, got {size}; it is no bundle")
    return file.read_bytes()


def _check_bytes(content: bytes) -> int:
    """Return the header's length after checking it and the checksum: nothing is parsed before."""
    if len(content) < 8:
        raise ValueError(f"expected a safetensors file, got {len(content)} bytes")
    length, limit = int.from_bytes(content[:8], "little"), min(_MAX_HEADER_BYTES, len(content) - 8)
    if length > limit:
        raise ValueError(f"header length: expected at most {limit} bytes, got {length}; the file is damaged")
    header = content[8 : 8 + length]
    if not header.startswith(_HEADER_START) or length < len(_HEADER_START) + 8:
        raise ValueError(
            f"header: expected {_HEADER_START.decode()!r} and a checksum at its begin, got {header[:60]!r}; "
            "the file is a bundle of format version 1, was not written by mfik, or is damaged"
        )
    stored, computed = content[_CHECKSUM], _checksum(content)
    if stored != computed:
        raise ValueError(
            f"checksum: expected {stored!r} of the header, got {computed!r} of the file's bytes; "
            "the file is damaged: copy it again"
        )
    return length


def _parse(text: str | bytes, where: str) -> dict[str, Any]:
    """Read a JSON object under the rules of the C++ reader: bounded depth, every key once, finite numbers, UTF-8."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"{where}: expected every key once, got {max(keys, key=keys.count)!r:.60} twice")
        return members

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            raise ValueError(f"{where}: expected finite numbers, got {number:.60}")
        return float(number)

    if isinstance(text, bytes):
        text = text.decode()
    value = json.loads(text, object_pairs_hook=once, parse_float=finite, parse_constant=finite)
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, got {text!r:.60}")
    depth, level = 0, [value]
    while level := [
        x for v in level if isinstance(v, (dict, list)) for x in (v.values() if isinstance(v, dict) else v)
    ]:
        depth += 1
    if depth > _MAX_JSON_DEPTH:
        raise ValueError(f"{where}: expected at most {_MAX_JSON_DEPTH} levels, got {depth}")
    json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text: UnicodeEncodeError
    return value


def _load_weights(model: Network, weights: dict[str, torch.Tensor]) -> None:
    """Replace all weights of a network, after checking that they are its own and finite."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(expected.keys() | weights.keys()):
        where = f"tensor {name!r:.60}"
        if name not in expected or name not in weights or weights[name].shape != expected[name]:
            want = list(expected[name]) if name in expected else "no such tensor"
            got = list(weights[name].shape) if name in weights else "nothing"
            raise ValueError(f"{where}: expected shape {want}, got {got}")
        if weights[name].dtype != torch.float32:
            raise ValueError(f"{where}: expected torch.float32, got {weights[name].dtype}")
        if not bool(weights[name].isfinite().all()):
            raise ValueError(f"{where}: expected finite weights, got NaN or infinity; training diverged")
    model.load_state_dict(weights, assign=True)
