"""Files that nobody should load: what the C++ reader refuses, `load_bundle` refuses, and nothing else is raised."""

import json
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

from mfik.errors import BundleError
from mfik.export import load_bundle
from mfik.solve import Solver

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "v1.safetensors"
CORPUS = sorted((ROOT / "csrc" / "tests" / "corpus").iterdir())
CHECKSUM = slice(34, 42)
LOADERS = [load_bundle, Solver.load]


def sealed(content: bytes) -> bytes:
    """Return the file with a checksum that fits, as an attacker would write it; too short a file as it is."""
    if len(content) < CHECKSUM.stop:
        return content
    crc = zlib.crc32(content[: CHECKSUM.start] + b"00000000" + content[CHECKSUM.stop :])
    return content[: CHECKSUM.start] + b"%08x" % crc + content[CHECKSUM.stop :]


class Parts:
    """The golden file taken apart; `bytes()` writes it again with whatever was changed."""

    def __init__(self, network_type="v1"):
        content = GOLDEN.with_stem(network_type).read_bytes()
        end = 8 + struct.unpack("<Q", content[:8])[0]
        self.header = json.loads(content[8:end])
        self.document = json.loads(self.header["__metadata__"]["mfik"])
        self.robot, self.model = self.document["robot"], self.document["model"]
        self.data = bytearray(content[end:])
        self.document_text = self.header_text = None

    def bytes(self):
        self.header["__metadata__"]["mfik"] = self.document_text or json.dumps(self.document)
        header = (self.header_text or (lambda text: text))(json.dumps(self.header, separators=(",", ":"))).encode()
        return sealed(struct.pack("<Q", len(header)) + header + self.data)

    def weight(self, name, value):
        struct.pack_into("<f", self.data, self.header[name]["data_offsets"][0], value)


def with_text(key, text):
    """A document with raw text for the value of `key`."""

    def change(p):
        p.document[key] = "@"
        p.document_text = json.dumps(p.document).replace('"@"', text)

    return change


def tensor(name, key, value):
    return lambda p: p.header[name].__setitem__(key, value)


def joint(j, key, value):
    return lambda p: p.robot["joints"][j].__setitem__(key, value)


def model(key, value):
    return lambda p: p.model.__setitem__(key, value)


def document(key, value):
    return lambda p: p.document.__setitem__(key, value)


HOSTILE = {
    "format version 1": document("version", 1),
    "format version 3": document("version", 3),
    "format version as text": document("version", "2"),
    "format": document("format", "other"),
    "robot text": document("robot", "panda"),
    "robot empty": document("robot", {}),
    "model list": document("model", []),
    "model type": model("type", "v9"),
    "dof of another robot": model("dof", 6),
    "dof over the limit": model("dof", 17),
    "width huge": model("width", 10**9),
    "width beyond 64 bits": model("width", 10**30),
    "width zero": model("width", 0),
    "width negative": model("width", -1),
    "width float": model("width", 32.0),
    "width true": model("width", True),
    "width other": model("width", 64),
    "blocks huge": model("num_blocks", 10**9),
    "blocks too few": model("num_blocks", 1),
    "cond_dim huge": model("cond_dim", 16385),
    "encoding": model("encoding", "hash"),
    "encoding none": model("encoding", "none"),
    "encoding_dim odd": model("encoding_dim", 7),
    "encoding_dim huge": model("encoding_dim", 16386),
    "encoding_dim small": model("encoding_dim", 2),
    "encoding_dim float": model("encoding_dim", 8.0),
    "depth": with_text("training", "[" * 40 + "]" * 40),
    "depth for a stack overflow": with_text("robot", "[" * 100_000 + "]" * 100_000),
    "duplicate key": with_text("training", '{"a": 1, "a": 2}'),
    "duplicate robot": with_text("training", '{}, "robot": {}'),
    "NaN in JSON": with_text("training", "NaN"),
    "number beyond double": with_text("training", "1e999"),
    "half a surrogate pair": with_text("training", '"\\ud800"'),
    "text after the document": with_text("training", "{}} {"),
    "duplicate tensor": lambda p: setattr(p, "header_text", lambda text: text[:-1] + ',"norm.bias":0}'),
    "header of a megabyte": lambda p: setattr(p, "header_text", lambda text: text + " " * (1 << 20)),
    "no joints": lambda p: p.robot.update(joints=[]),
    "17 joints": lambda p: p.robot["joints"].extend(dict(p.robot["joints"][0], name=f"j{i}") for i in range(10)),
    "joint twice": joint(1, "name", "panda_joint1"),
    "joint name number": joint(1, "name", 5),
    "joint kind": joint(1, "kind", "ball"),
    "joint kind list": joint(1, "kind", []),
    "limits reversed": joint(3, "lower", 4.0),
    "limit true": joint(3, "upper", True),
    "limit null": joint(3, "upper", None),
    "limit text": joint(3, "upper", "1"),
    "continuous with limits": joint(3, "kind", "continuous"),
    "origin short": joint(1, "origin", [1, 2, 3]),
    "origin nested": joint(1, "origin", [[0]] * 12),
    "origin not a rotation": joint(0, "origin", [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1 + 1e-8, 0]),
    "origin mirrored": joint(0, "origin", [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, -1, 0]),
    "dtype": tensor("norm.bias", "dtype", "I32"),
    "dtype half": tensor("norm.bias", "dtype", "F16"),
    "shape other": tensor("norm.bias", "shape", [2, 16]),
    "shape negative": tensor("norm.bias", "shape", [-32]),
    "shape zero": tensor("norm.bias", "shape", [0]),
    "shape huge": tensor("norm.bias", "shape", [1 << 33, 1 << 33]),
    "offsets reversed": tensor("norm.bias", "data_offsets", [128, 0]),
    "offsets outside": tensor("norm.bias", "data_offsets", [1 << 40, (1 << 40) + 128]),
    "overlap": lambda p: p.header["norm.bias"].update(data_offsets=p.header["norm.weight"]["data_offsets"]),
    "extra tensor": lambda p: (
        p.header.update(extra={"dtype": "F32", "shape": [1], "data_offsets": [len(p.data), len(p.data) + 4]}),
        p.data.extend(bytes(4)),
    ),
    "tensor renamed": lambda p: p.header.update(other=p.header.pop("norm.bias")),
    "tensor missing": lambda p: p.header.pop("norm.bias"),
    "tensor null": lambda p: p.header.update({"norm.bias": None}),
    "weight NaN": lambda p: p.weight("head.weight", float("nan")),
    "weight infinite": lambda p: p.weight("input.bias", float("inf")),
    "frequency infinite": lambda p: p.weight("encoding.frequencies", float("-inf")),
    "data cut": lambda p: p.data.pop(),
    "data too long": lambda p: p.data.append(0),
}


def no_length(p):
    for origin in [*(joint["origin"] for joint in p.robot["joints"]), p.robot["tool"]]:
        origin[3] = origin[7] = origin[11] = 0


HOSTILE_V2 = {  # the change, and what both messages name
    "another type": (model("type", "v1"), ""),
    "unknown type": (model("type", "v3"), "v3"),
    "dof of another robot": (model("dof", 6), "model.dof: expected 7"),
    "dof over the limit": (model("dof", 17), "model.dof: expected"),
    "width huge": (model("width", 10**9), "model.width: expected an integer from 1 to 16384"),
    "width zero": (model("width", 0), "width"),
    "width float": (model("width", 32.0), "width"),
    "width true": (model("width", True), "width"),
    "width missing": (lambda p: p.model.pop("width"), ""),
    "width other": (model("width", 64), "expected shape [64"),
    "blocks huge": (model("num_blocks", 257), "model.num_blocks: expected an integer from 1 to 256"),
    "blocks too few": (model("num_blocks", 1), "tensor 'blocks.1.linear1.bias'"),
    "blocks too many": (model("num_blocks", 3), "tensor 'blocks.2.linear1.bias'"),
    "features of another robot": (joint(2, "kind", "prismatic"), "expected shape [32, 56], got [32, 58]"),
    "chain without length": (no_length, ""),
    "tensor of another type": (lambda p: p.header.update({"norm.bias": p.header.pop("head.bias")}), "tensor '"),
    "weight NaN": (lambda p: p.weight("head.weight", float("nan")), "tensor 'head.weight'"),
    "data cut": (lambda p: p.data.pop(), ""),
}


def with_body(p):
    """Give the robot two links of two balls."""
    links = [
        {"name": name, "frame": frame, "transform": p.robot["tool"], "spheres": [[0, 0, 0, 0.1], [0.1, 0, 0, 0.05]]}
        for name, frame in (("one", 1), ("two", 7))
    ]
    p.robot["body"] = {"links": links, "pairs": [["one", "two", "checked", 0, 0]]}


def body(key, value):
    return lambda p: p.robot["body"].__setitem__(key, value)


def link(i, key, value):
    return lambda p: p.robot["body"]["links"][i].__setitem__(key, value)


HOSTILE_BODY = {
    "body is a list": lambda p: p.robot.update(body=[]),
    "body empty": lambda p: p.robot.update(body={}),
    "links empty": body("links", []),
    "links text": body("links", "one"),
    "129 links": lambda p: p.robot["body"].update(
        links=[dict(p.robot["body"]["links"][0], name=f"l{i}") for i in range(129)]
    ),
    "link null": lambda p: p.robot["body"]["links"].__setitem__(0, None),
    "link twice": link(1, "name", "one"),
    "link name number": link(1, "name", 5),
    "frame negative": link(0, "frame", -1),
    "frame beyond the chain": link(0, "frame", 8),
    "frame float": link(0, "frame", 1.0),
    "transform short": link(0, "transform", [1, 2, 3]),
    "transform not a rotation": link(0, "transform", [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]),
    "spheres empty": link(0, "spheres", []),
    "spheres null": link(0, "spheres", None),
    "2049 spheres": link(0, "spheres", [[0, 0, 0, 0.1]] * 2049),
    "sphere of three numbers": link(0, "spheres", [[0, 0, 0]]),
    "sphere of text": link(0, "spheres", ["abcd"]),
    "radius zero": link(0, "spheres", [[0, 0, 0, 0]]),
    "radius negative": link(0, "spheres", [[0, 0, 0, -0.1]]),
    "radius true": link(0, "spheres", [[0, 0, 0, True]]),
    "pairs missing": lambda p: p.robot["body"].pop("pairs"),
    "pairs empty": body("pairs", []),
    "pair of a link with itself": body("pairs", [["one", "one", "checked", 0, 0]]),
    "pair of an unknown link": body("pairs", [["one", "three", "checked", 0, 0]]),
    "pair twice": body("pairs", [["one", "two", "checked", 0, 0], ["two", "one", "checked", 0, 0]]),
    "pair without numbers": body("pairs", [["one", "two", "checked"]]),
    "reason unknown": body("pairs", [["one", "two", "sometimes", 0, 0]]),
    "reason number": body("pairs", [["one", "two", 1, 0, 0]]),
}


def expect_refused(load, file):
    with pytest.raises(BundleError) as caught:
        load(file)
    message = str(caught.value)
    assert message.startswith(str(file)) and len(message) < 1000, message
    return message


@pytest.mark.parametrize("load", LOADERS, ids=["load_bundle", "Solver.load"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name, load, tmp_path):
    file = tmp_path / "bad.safetensors"
    parts = Parts()
    file.write_bytes(parts.bytes())
    load(file)  # it is the change that is refused
    parts = Parts()
    HOSTILE[name](parts)
    file.write_bytes(parts.bytes())
    assert "checksum" not in expect_refused(load, file)


@pytest.mark.parametrize("load", LOADERS, ids=["load_bundle", "Solver.load"])
@pytest.mark.parametrize("name", HOSTILE_V2)
def test_hostile_files_with_a_network_of_type_v2_are_refused(name, load, tmp_path):
    file = tmp_path / "bad.safetensors"
    parts = Parts("v2")
    file.write_bytes(parts.bytes())
    load(file)
    change, named = HOSTILE_V2[name]
    change(parts)
    file.write_bytes(parts.bytes())
    message = expect_refused(load, file)
    assert named in message and "checksum" not in message


@pytest.mark.parametrize("load", LOADERS, ids=["load_bundle", "Solver.load"])
@pytest.mark.parametrize("name", HOSTILE_BODY)
def test_hostile_files_with_a_body_are_refused(name, load, tmp_path):
    file = tmp_path / "bad.safetensors"
    parts = Parts()
    with_body(parts)
    file.write_bytes(parts.bytes())
    load(file)  # it is the change that is refused
    HOSTILE_BODY[name](parts)
    file.write_bytes(parts.bytes())
    message = expect_refused(load, file)
    assert "body" in message and "checksum" not in message


@pytest.mark.parametrize("load", LOADERS, ids=["load_bundle", "Solver.load"])
def test_damaged_and_foreign_files_are_refused(load, tmp_path):
    file = tmp_path / "bad.safetensors"
    good = GOLDEN.read_bytes()
    for bit in [*range(0, 8 * 200, 7), *range(1, 8 * len(good), 2003), 8 * len(good) - 1]:
        content = bytearray(good)
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        expect_refused(load, file)
    assert "checksum: expected" in expect_refused(load, file)
    for size in (0, 7, 8, 30, 41, 42, 1000, len(good) - 1):
        file.write_bytes(good[:size])
        expect_refused(load, file)
    file.write_bytes(b"\xff" * 100)
    assert "header length" in expect_refused(load, file)
    safetensors.torch.save_file({"a": torch.ones(1)}, file, metadata={"mfik": "{}"})  # as format version 1 began
    assert "version 1" in expect_refused(load, file)
    expect_refused(load, tmp_path / "none")


def test_huge_files_are_refused_unread(tmp_path):
    file = tmp_path / "huge.safetensors"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)  # takes no room on the disk
    tracemalloc.start()
    for load in LOADERS:
        assert "size: expected at most" in expect_refused(load, file)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_what_cpp_refuses_of_the_fuzzers_corpus_python_refuses(tmp_path):
    """Not the reverse: `load_bundle` also checks fields that PyTorch alone uses."""
    file, loaded = tmp_path / "model.safetensors", 0
    for entry in CORPUS:
        file.write_bytes(sealed(entry.read_bytes()))
        outcomes = []
        for load in LOADERS:
            try:
                load(file)
                outcomes.append(True)
            except BundleError:
                outcomes.append(False)
        python, cpp = outcomes
        assert cpp or not python, f"{entry.name}: refused by C++ only"
        loaded += python
    assert loaded >= 4 and len(CORPUS) - loaded > 80
