"""Devices, dtypes, robots and tolerances of the op tests."""

import math

import pytest
import torch

from mfik import robots
from mfik.kinematics import Chain
from mfik.ops import _backend

# A few roundings of numbers below 10 that kernel and reference may order differently (fused multiply-add on CUDA),
# times 100 for lines whose velocity was divided by MIN_REMAINING.
TOLERANCE = {torch.float32: dict(rtol=1e-5, atol=1e-4), torch.float64: dict(rtol=1e-14, atol=1e-12)}


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
        ),
    ]
)
def device(request):
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(params=["kernel", "fallback"])
def backend(request, monkeypatch):
    """Run a test with the native kernels and without the extension."""
    if request.param == "fallback":
        monkeypatch.setattr(_backend, "native", None)
    elif _backend.native is None:
        pytest.skip("mfik._native is not built")
    return request.param


@pytest.fixture
def native():
    """The extension, for tests of the kernels themselves."""
    if _backend.native is None:
        pytest.skip("mfik._native is not built")
    return _backend.native


@pytest.fixture
def tolerance(dtype):
    return TOLERANCE[dtype]


def mixed_robot() -> robots.Robot:
    """A chain of every joint kind with arbitrary origins."""
    generator = torch.Generator().manual_seed(5)
    kinds = ("revolute", "prismatic", "continuous", "revolute", "prismatic", "continuous", "revolute", "revolute")
    origins = torch.randn(len(kinds) + 1, 3, 4, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(origins[..., :3])
    origins[..., :3] = rotation * torch.linalg.det(rotation)[:, None, None]
    origins[..., 3] *= 0.3
    limit = torch.tensor([{"revolute": 2.5, "prismatic": 0.4, "continuous": math.pi}[kind] for kind in kinds]).double()
    limit[[2, 5]] = math.pi
    names = tuple(f"joint{j}" for j in range(len(kinds)))
    return robots.Robot("mixed", "base", "tool", Chain(origins, kinds), names, -limit, limit)


@pytest.fixture(params=["panda", "ur10", "mixed"])
def robot(request):
    return mixed_robot() if request.param == "mixed" else robots.load_robot(request.param)


@pytest.fixture
def set_threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
