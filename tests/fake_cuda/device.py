"""A CUDA device that is not there: tensors on "cuda" whose numbers lie in the host's memory.

`FakeCuda` is a context in which PyTorch finds one CUDA device. Operators on its tensors run on the CPU, one by one, and
the kernels of `mfik._native` by their CPU counterparts, so that a program computes what it would compute there. What a
GPU would not bear fails, as it does there:

- operators and kernels that are given tensors of several devices (DeviceError);
- inside a captured graph, whatever waits for the device or belongs to another stream (CaptureError).

What makes the host wait for the device is written down in `waits`, with the functions of mfik that asked for it. A
graph is captured and replayed as CUDA does it: capture executes nothing, and a replay executes operators and kernels on
the same memory with the numbers that the host had at capture. New memory holds NaN, so that what is read before it is
written shows.

It takes `runtime.cpp`, loaded before PyTorch, and so a process of its own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from mfik.kinematics import chain, tensors
from mfik.ops import _backend
from mfik.robots import robot

ROOT = Path(__file__).parents[2]
DEVICE = torch.device("cuda", 0)
HOST = torch.device("cpu")
# Kernels that CUDA has, by what the bindings say, and how many of the arrays they are given lie on the host.
KERNELS = re.findall(r'm\.def\(\s*"(\w+)_cuda"', (ROOT / "csrc/bindings/kernels.cpp").read_text())
HOST_ARRAYS = {"fk": 1, "jacobian": 1, "fk_error": 1, "draw_batch": 3, "refine": 3, "solve": 3}
PLAIN = {int, float, bool, str, type(None), torch.dtype, torch.memory_format}  # what operators take beside tensors
SMALLEST_ADDRESS = 1 << 32  # larger than any size or seed here

# Operators that look at numbers of the device before they return.
WAITING = {
    "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "bincount", "histc",
    "_unique2", "unique_dim", "unique_consecutive", "_linalg_check_errors",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
COPIES = {"_to_copy", "copy_", "_foreach_copy_", "copy"}  # between devices, by way of memory that is not pinned
EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class DeviceError(RuntimeError):
    """Tensors of several devices where a GPU takes those of one."""


class CaptureError(RuntimeError):
    """An operation that CUDA does not permit while a graph is captured."""


class Wait(NamedTuple):
    """What made the host wait: an operator, and the functions of mfik that were being called, outermost first."""

    operator: str
    functions: tuple[str, ...]


class CudaTensor(torch.Tensor):
    """A tensor on the device; `memory` is the CPU's tensor that holds its numbers."""

    memory: torch.Tensor

    @staticmethod
    def __new__(cls, memory: torch.Tensor) -> CudaTensor:
        self = torch.Tensor._make_wrapper_subclass(
            cls, memory.shape, memory.stride(), memory.storage_offset(), dtype=memory.dtype, device=DEVICE
        )
        self.memory = memory
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert FakeCuda.current is not None, "a tensor of the device is used where there is none"
        return FakeCuda.current.run(func, args, kwargs or {})

    def data_ptr(self) -> int:
        address = self.memory.data_ptr()
        FakeCuda.current.addresses.add(address)
        return address

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copied = self.detach().clone()
            is_parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad) if is_parameter else copied
        return memo[id(self)]

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().cpu().__reduce_ex__(protocol)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"CudaTensor({self.memory!r})"


def changed(value: Any, types: Any, change: Callable[[Any], Any]) -> Any:
    """Return nested tuples, lists and dictionaries with what is of some types changed; `pytree` takes long for that."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, types):
        return change(value)
    if isinstance(value, (tuple, list)):
        return type(value)([changed(x, types, change) for x in value])
    if isinstance(value, dict):
        return {name: changed(x, types, change) for name, x in value.items()}
    return value


class Generator(torch._C.Generator):
    """A random state of the device: that of the CPU under another name."""

    def __new__(cls, device: Any = "cpu") -> Any:
        self = super().__new__(cls, device="cpu")
        self.place = DEVICE if torch.device(device).type == "cuda" else HOST
        return self

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place


class Stream:
    """A queue of work; all of them run at once."""

    number = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        Stream.number += 1
        self.cuda_stream = Stream.number

    def wait_stream(self, other: Stream) -> None:
        FakeCuda.current.check_stream(self, other)

    def synchronize(self) -> None:
        FakeCuda.current.wait("synchronize")


class Graph:
    """What `torch.cuda.CUDAGraph` is: work that is written down once and replayed."""

    def __init__(self) -> None:
        self.work: list[Callable[[], Any]] = []
        self.stream: Stream | None = None
        self.own: set[int] = set()  # storages that were allocated in the capture
        self.before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # storages that it wrote to, and their numbers
        self.replays = 0

    def replay(self) -> None:
        assert self.stream is not None, "replayed before it was captured"
        if FakeCuda.current.graph is not None:
            raise CaptureError("replay inside a capture")
        self.replays += 1
        with _disable_current_modes(), torch.no_grad():
            for work in self.work:
                work()

    def write(self, target: torch.Tensor) -> None:
        """Keep the numbers of memory from outside the capture that is about to be written to."""
        storage = target.untyped_storage()
        key = storage.data_ptr()
        if key not in self.own and key not in self.before:
            whole = torch.empty(0, dtype=torch.uint8).set_(storage)
            self.before[key] = (whole, whole.clone())


class FakeCuda(TorchDispatchMode):
    """The context in which there is a CUDA device.

    Args:
        bf16: Whether the device has bfloat16.

    Attributes:
        waits: What made the host wait for the device so far.
        launches: Names of the kernels that were launched so far.
        graphs: Graphs that were captured so far.
        compiled: Modules that were asked to be compiled; they run as they are.
    """

    current: FakeCuda | None = None

    def __init__(self, bf16: bool = True) -> None:
        super().__init__()
        self.bf16 = bf16
        self.waits: list[Wait] = []
        self.launches: list[str] = []
        self.graphs: list[Graph] = []
        self.compiled: list[tuple[torch.nn.Module, dict[str, Any]]] = []
        self.addresses: set[int] = set()
        self.graph: Graph | None = None
        self.stream = Stream()

    # -- the context ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> FakeCuda:
        from torch.utils import _foreach_utils

        assert FakeCuda.current is None
        self._stack = ExitStack()
        patch = self._stack.enter_context
        for name, value in {
            "is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
            "is_initialized": lambda: True, "_lazy_init": lambda: None, "is_bf16_supported": lambda *_: self.bf16,
            "get_device_name": lambda *_: "a device that is not there", "synchronize": self.synchronize,
            "current_stream": lambda *_: self.stream, "stream": self.on_stream, "Stream": Stream,
            "device": self.on_device, "CUDAGraph": Graph, "graph": self.capture,
            "is_current_stream_capturing": lambda: self.graph is not None,
        }.items():  # fmt: skip
            patch(mock.patch.object(torch.cuda, name, value))
        patch(mock.patch.object(torch.backends.cuda, "is_built", lambda: True))
        patch(mock.patch.object(torch, "Generator", Generator))
        patch(mock.patch.object(torch.nn.Module, "compile", lambda module, **how: self.compiled.append((module, how))))
        patch(mock.patch.object(_foreach_utils, "_foreach_supported_types", [torch.Tensor, CudaTensor]))
        patch(mock.patch.object(_backend, "native", self.native()))
        # `module.to("cuda")` makes new parameters: one of the CPU cannot become one of the device in its place.
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        self._stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        patch(torch.autograd.set_multithreading_enabled(False))  # so that a wait of a backward pass has its callers
        for module in (chain, robot):
            patch(mock.patch.object(module, "keep", partial(self.keep, {})))
        # Numbers of the host come to the device by a copy that is seen.
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        FakeCuda.current = self
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        FakeCuda.current = None
        self._stack.close()

    @staticmethod
    def keep(kept: dict[Any, torch.Tensor], cache: Any, name: str, like: Any, make: Callable[[], torch.Tensor]) -> Any:
        """Stand for `mfik.kinematics.tensors.keep`, which keeps nothing but plain tensors."""
        if not isinstance(like, CudaTensor):
            return tensors.keep(cache, name, like, make)
        key = (id(cache), name, like.dtype)
        if key not in kept:
            kept[key] = make()
        return kept[key]

    # -- operators -----------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator on the device, or on the CPU if that is where its tensors are."""
        tensors: list[torch.Tensor] = []

        def on_host(value: Any) -> Any:
            """Return what the CPU's operator takes for a tensor or a device."""
            if isinstance(value, torch.device):
                return HOST
            tensors.append(value)
            return value.memory if isinstance(value, CudaTensor) else value

        given, arguments = (args, kwargs), changed((args, kwargs), (torch.Tensor, torch.device), on_host)
        any_on_device = any(isinstance(x, CudaTensor) for x in tensors)
        if func.namespace == "mfik" and any_on_device:
            with self.again():
                return func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), *args, **kwargs)
        device = kwargs.get("device")
        result_on_device = any_on_device if device is None else torch.device(device).type == "cuda"
        if any_on_device or result_on_device:
            self.check(func, tensors, any_on_device, result_on_device)
        if func is torch.ops.aten._efficientzerotensor.default:  # has no memory
            func = torch.ops.aten.zeros.default
        known = {id(x.memory): x for x in tensors if isinstance(x, CudaTensor)}
        args, kwargs = arguments
        out = self.execute(func, args, kwargs) if any_on_device or result_on_device else func(*args, **kwargs)
        if not result_on_device:
            return out
        if torch.Tag.inplace_view in func.tags:  # the wrapper's shape changes with that of its memory
            with torch._C._DisableTorchDispatch():
                func(*given[0], **given[1])
        return changed(out, torch.Tensor, lambda x: known[id(x)] if id(x) in known else CudaTensor(x))

    @contextmanager
    def again(self) -> Iterator[None]:
        """Let operators that an operator calls come here, too."""
        TorchDispatchMode.__enter__(self)
        try:
            yield
        finally:
            TorchDispatchMode.__exit__(self, None, None, None)

    def check(self, func: Any, tensors: list[torch.Tensor], on_device: bool, result_on_device: bool) -> None:
        """Refuse what a GPU refuses, and write down what makes the host wait."""
        name = func.overloadpacket.__name__
        on_host = [x for x in tensors if not isinstance(x, CudaTensor)]
        if name in COPIES:
            if on_host or on_device != result_on_device:
                self.wait(name)
            return
        if name in INDEXING and on_device:
            indices = [x for x in tensors[1:] if not isinstance(x, CudaTensor) or x.dtype == torch.bool]
            if any(x.dim() > 0 for x in indices):
                self.wait(name)
            return
        scalars_allowed = torch.Tag.pointwise in func.tags or name in ("fill_", "fill", "where", "masked_fill_")
        if on_device and any(x.dim() > 0 or not scalars_allowed for x in on_host):
            shapes = [f"{list(x.shape)} on {x.device}" for x in tensors]
            raise DeviceError(f"{func}: tensors of several devices, {', '.join(shapes)}; in {self.callers()}")
        if name in WAITING:
            self.wait(name)
        if name == "repeat_interleave" and on_device:
            self.wait(name)

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator on the memory, and write it down if a graph is captured."""
        if self.graph is None:
            return self.poisoned(func, func(*args, **kwargs))
        self.check_stream(self.stream)
        if isinstance(kwargs.get("generator"), torch._C.Generator):
            raise CaptureError(f"{func} with a generator that the graph does not know; in {self.callers()}")
        graph, schema = self.graph, func._schema
        written = [argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments]
        for value, write in zip(args, written, strict=False):
            if write:
                for x in pytree.tree_leaves(value):
                    graph.write(x)
        out = self.poisoned(func, func(*args, **kwargs))
        fresh = [x for x in pytree.tree_leaves(out) if isinstance(x, torch.Tensor)]
        if any(written):
            graph.work.append(lambda: func(*args, **kwargs))
        elif all(value.alias_info is None for value in schema.returns):
            graph.own |= {x.untyped_storage().data_ptr() for x in fresh}

            def again() -> None:
                new = pytree.tree_leaves(self.poisoned(func, func(*args, **kwargs)))
                for x, y in zip(fresh, [y for y in new if isinstance(y, torch.Tensor)], strict=True):
                    x.copy_(y)

            graph.work.append(again)
        else:
            graph.work.append(lambda kept=fresh: None)  # a view, whose memory has to stay
        return out

    @staticmethod
    def poisoned(func: Any, out: Any) -> Any:
        """Fill memory that an operator left as it found it."""
        if func.overloadpacket.__name__ in EMPTY and out.is_floating_point():
            out.fill_(torch.nan)
        return out

    # -- waiting, streams and graphs -----------------------------------------------------------------------------------

    def wait(self, operator: str) -> None:
        """Write down that the host waits for the device."""
        callers = self.callers()
        if self.graph is not None:
            raise CaptureError(f"{operator} while a graph is captured; in {' > '.join(callers)}")
        self.waits.append(Wait(operator, callers))

    @staticmethod
    def callers() -> tuple[str, ...]:
        """Return the functions of mfik that are being called, outermost first."""
        frame, names = sys._getframe(1), []
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module == "mfik" or module.startswith("mfik."):
                names.append(frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name)
            frame = frame.f_back
        return tuple(reversed(names))

    def synchronize(self, *_: Any) -> None:
        self.wait("synchronize")

    @contextmanager
    def on_device(self, device: Any) -> Iterator[None]:
        assert torch.device(device).type == "cuda"
        yield

    @contextmanager
    def on_stream(self, stream: Stream) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    def check_stream(self, *streams: Stream) -> None:
        if self.graph is not None and any(stream is not self.graph.stream for stream in streams):
            raise CaptureError(f"work of another stream while a graph is captured; in {self.callers()}")

    @contextmanager
    def capture(self, graph: Graph, stream: Stream | None = None) -> Iterator[None]:
        """Write down what is called; none of it has happened behind it."""
        assert self.graph is None
        graph.stream = stream or Stream()
        self.graph = graph
        try:
            with self.on_stream(graph.stream):
                yield
        finally:
            self.graph = None
            with _disable_current_modes(), torch.no_grad():
                for whole, numbers in graph.before.values():
                    whole.copy_(numbers)
        self.graphs.append(graph)

    # -- kernels -------------------------------------------------------------------------------------------------------

    def native(self) -> SimpleNamespace:
        """Return what stands for the extension: its kernels of the CPU, and those of CUDA by way of them."""
        real = _backend.native
        kernels = {f"{name}_cuda": self.kernel(name, getattr(real, f"{name}_cpu")) for name in KERNELS}
        own = {name: getattr(real, name) for name in dir(real) if name.endswith("_cpu")}
        return SimpleNamespace(**own, **kernels, cuda_problem=lambda: "")

    def kernel(self, name: str, on_cpu: Callable[..., Any]) -> Callable[..., None]:
        def launch(*args: Any) -> None:
            *args, stream = args
            assert stream == self.stream.cuda_stream, f"{name}: launched on another stream than the current one"
            arrays = [x for x in pytree.tree_leaves(args) if type(x) is int and x >= SMALLEST_ADDRESS]
            on_host = [x for x in arrays if x not in self.addresses]
            if len(on_host) != HOST_ARRAYS.get(name, 0):
                raise DeviceError(
                    f"{name}: expected {HOST_ARRAYS.get(name, 0)} arrays on the host, got {len(on_host)} of "
                    f"{len(arrays)}; in {self.callers()}"
                )
            self.launches.append(name)
            run = lambda: on_cpu(*args, 1)  # noqa: E731  # the host waits for nothing, so an index is not looked at
            run()
            if self.graph is not None:
                self.check_stream(self.stream)
                self.graph.work.append(run)

        return launch
