"""Devices, dtypes, robots and tolerances of the op tests."""

import pytest
import torch
from random_robot import mixed_robot

from mfik import robots
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


@pytest.fixture(params=["panda", "ur10", "mixed"])
def robot(request):
    return mixed_robot() if request.param == "mixed" else robots.load_robot(request.param)


@pytest.fixture
def set_threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
