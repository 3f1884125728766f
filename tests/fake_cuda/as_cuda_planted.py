"""Test of the test: what a GPU would not bear is planted, and found."""

import re

import pytest
import torch
from as_cuda_training import make_source, take_steps, trainer
from device import CaptureError, DeviceError, FakeCuda

from mfik import ops
from mfik.robots import load_robot
from mfik.train.v1 import step as step_module
from mfik.train.v1 import trainer as trainer_module

PANDA = load_robot("panda")


def plant(monkeypatch, error):
    """Make every loss take an error along; return what the steps of a run raise, and where they waited."""
    meanflow_loss = trainer_module.meanflow_loss

    def planted(model, batch, *args):
        output = meanflow_loss(model, batch, *args)
        return output._replace(loss=output.loss + 0 * error(output.loss, batch))

    monkeypatch.setattr(step_module, "_WARMUP_STEPS", 1)
    monkeypatch.setattr(trainer_module, "meanflow_loss", planted)
    with FakeCuda() as cuda:
        run, source = trainer("v1", "cuda", use_amp=False), make_source("file", "cuda")
        take_steps(run, run._captured, source, 1)
        waits = [wait.operator for wait in cuda.waits if "TrainingStep.__call__" in wait.functions]
        try:
            take_steps(run, run._captured, source, 1)
        except CaptureError as caught:
            return caught, waits
        return None, waits


NUMBER = torch.ones(3)


@pytest.mark.parametrize(
    ("operator", "error"),
    [
        ("_local_scalar_dense", lambda loss, batch: loss.item()),
        ("_local_scalar_dense", lambda loss, batch: 1.0 if loss > 0 else 0.0),
        ("_to_copy", lambda loss, batch: max(batch.r.flatten().detach().tolist())),
        ("nonzero", lambda loss, batch: batch.r.nonzero().sum()),
        ("index", lambda loss, batch: batch.q[batch.r.flatten() > 0.5].sum()),
        ("_to_copy", lambda loss, batch: batch.q[[0, 1]].sum()),
        ("_to_copy", lambda loss, batch: loss.new_tensor([1.0, 2.0]).sum()),
        ("_to_copy", lambda loss, batch: NUMBER.to(loss.device).sum()),
        ("_to_copy", lambda loss, batch: loss.detach().cpu().to(loss.device)),
        ("equal", lambda loss, batch: torch.equal(batch.r, batch.t)),
        ("_linalg_check_errors", lambda loss, batch: torch.linalg.inv(torch.eye(3, device=loss.device)).sum()),
        ("synchronize", lambda loss, batch: torch.cuda.synchronize() or 0),
    ],
)  # fmt: skip
def test_what_waits_is_seen_and_refused_in_a_graph(monkeypatch, operator, error):
    caught, waits = plant(monkeypatch, error)
    assert operator in waits
    assert "while a graph is captured; in CapturedStep.__call__ > MeanFlowTrainer._advance" in str(caught)


@pytest.mark.parametrize(
    "error",
    [
        lambda loss, batch: (batch.q + torch.ones(7)).sum(),
        lambda loss, batch: torch.cat((batch.q, torch.zeros(1, 7))).sum(),
        lambda loss, batch: (batch.q @ torch.ones(7)).sum(),
        lambda loss, batch: torch.stack((loss.detach(), torch.zeros(()))).sum(),
        lambda loss, batch: ops.adaptive_weight.__globals__["launch"](
            "adaptive_weight", batch.q, NUMBER.data_ptr(), batch.q.data_ptr(), batch.q.data_ptr(), 1, 3, 1e-4, 0.5
        ),
    ],
)
def test_a_constant_of_the_host_is_found(monkeypatch, error):
    with pytest.raises(DeviceError, match=re.escape("_advance")):
        plant(monkeypatch, error)


def test_a_scalar_of_the_host_is_as_good_as_a_number(monkeypatch):
    assert plant(monkeypatch, lambda loss, batch: (batch.q * torch.tensor(2.0)).sum()) == (None, [])


def test_a_generator_that_a_graph_does_not_know_is_refused(monkeypatch):
    def draw(loss, batch):
        return torch.rand(3, device=loss.device, generator=torch.Generator("cuda")).sum()

    caught, _ = plant(monkeypatch, draw)
    assert "a generator that the graph does not know" in str(caught)


def test_work_of_another_stream_is_refused(monkeypatch):
    def elsewhere(loss, batch):
        with torch.cuda.stream(torch.cuda.Stream()):
            return batch.q.sum()

    caught, _ = plant(monkeypatch, elsewhere)
    assert "work of another stream" in str(caught)


def test_a_capture_executes_nothing_and_a_replay_has_the_numbers_of_the_capture():
    with FakeCuda():
        x, graph, gain = torch.ones(3, device="cuda"), torch.cuda.CUDAGraph(), 2.0
        with torch.cuda.graph(graph):
            y = gain * x
            x[1:].add_(1)
            z = torch.empty_like(x).copy_(x)
        assert x.tolist() == [1, 1, 1]
        gain = 5.0
        graph.replay()
        assert (x.tolist(), y.tolist(), z.tolist()) == ([1, 2, 2], [2, 2, 2], [1, 2, 2])
        x.fill_(4)
        graph.replay()
        assert (x.tolist(), y.tolist(), z.tolist()) == ([4, 5, 5], [8, 8, 8], [4, 5, 5])
        assert torch.empty(3, device="cuda").isnan().all(), "memory that nobody wrote to has to show"


def test_a_kernel_that_cuda_lacks_is_not_there():
    assert not torch.cuda.is_available()
    with FakeCuda():
        assert torch.cuda.is_available()
        assert ops.has_kernel("solve", torch.device("cuda")) and not ops.has_kernel("geometry", torch.device("cuda"))
