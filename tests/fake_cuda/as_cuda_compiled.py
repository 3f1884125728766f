"""What `torch.compile` makes of the networks for a device that is not there: one graph each, on the device alone.

Tensors have no numbers here (PyTorch's FakeTensorMode): Dynamo and AOTAutograd trace network, tangents and backward
pass as they do for Inductor, whose code needs a GPU.
"""

from unittest import mock

import pytest
import torch
from as_cuda_training import network
from torch._functorch.aot_autograd import aot_module_simplified, make_boxed_func
from torch._subclasses.fake_tensor import FakeTensorMode

from mfik.ops import Batch
from mfik.train.v1.loss import VelocityAndDerivative

ROWS = 16


def places(graph):
    """Return the devices of what a graph computes, scalars left out, and its operators."""
    values = [node.meta["val"] for node in graph.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    operators = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    return {value.device.type for value in values if value.dim()}, operators


# Tangents of v2 come from torch.func.jvp, at which Dynamo ends a graph: they are launched one by one.
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("name", "num_jvp"), [("v1", 0), ("v1", 4), ("v2", 0)])
def test_the_network_compiles_to_graphs_on_the_device(name, num_jvp, dtype, monkeypatch):
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    def backend(graph, inputs):
        return aot_module_simplified(graph, inputs, fw_compiler=keep, bw_compiler=keep)

    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    torch._dynamo.reset()
    model = network(name)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model = VelocityAndDerivative(model.to_empty(device="meta"))
        for module in model.modules():
            for key, value in [*module._parameters.items(), *module._buffers.items()]:
                fake = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                kept = module._parameters if key in module._parameters else module._buffers
                kept[key] = torch.nn.Parameter(fake) if key in module._parameters else fake
        columns = [torch.empty(ROWS, n, device="cuda") for n in (7, 7, 7, 1, 1, 7, 1)]
        assert mode is not None
        compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=False)
        with autocast(dtype):
            u, derivative = compiled(Batch(*columns), columns[5][:num_jvp])
        assert u.device.type == "cuda" and u.dtype == torch.float32 and derivative.shape == (num_jvp, 7)
        u.square().sum().backward()
    assert len(graphs) == 2, "forward and backward pass"
    for graph in graphs:
        devices, operators = places(graph)
        assert devices == {"cuda"}
        assert not any("device_put" in op or "_local_scalar" in op or "nonzero" in op for op in operators)


def autocast(dtype):
    """Return the context in which the trainer evaluates networks on CUDA."""
    with mock.patch.multiple(torch.cuda, is_available=lambda: True, is_bf16_supported=lambda: True):
        return torch.autocast("cuda", dtype=dtype, enabled=dtype is not None)
