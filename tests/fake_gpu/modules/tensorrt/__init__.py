"""A stand-in for TensorRT 10.3's Python API: the same names and signatures, over ONNX Runtime.

An engine runs on a stream of the stand-in of the CUDA driver (`../../libcuda/driver.c`), so calls,
order, ownership and release are those of a device. It proves no kernel and no speed. Only what
edge_mil uses is here; a name that 10.3 lacks, or that 11 removed, is not.

Faults come from the environment, so that the builder's process meets them too:
FAKE_TENSORRT_FAULTS is a list of names with commas; each is described where `_fault` asks for it.
`live` counts the objects that exist, `misuses` lists what a real device would not forgive.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import signal
import time
from collections import Counter
from typing import Any

import numpy as np

__version__ = "10.3.0"

if "import-error" in os.environ.get("FAKE_TENSORRT_FAULTS", ""):  # libraries of another driver
    raise RuntimeError("libnvinfer.so.10: undefined symbol")

MIB = 1 << 20
ALIGNMENT = 256
"""Of every tensor's address, as TensorRT asks for."""
ACTIVATION_BYTES = 64 << 10
"""Device memory of a context for each row of its largest batch."""
TIMINGS_MAGIC = b"fake timings"

live: Counter[str] = Counter()
misuses: list[str] = []


class DataType(enum.IntEnum):
    """Types of a tensor, with the numbers of 10.3."""

    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64 = range(9)


_NUMPY = {
    DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT8: np.int8,
    DataType.INT32: np.int32, DataType.BOOL: np.bool_, DataType.UINT8: np.uint8,
    DataType.INT64: np.int64,
}  # fmt: skip
_ONNX = {
    "tensor(float)": DataType.FLOAT, "tensor(float16)": DataType.HALF,
    "tensor(uint8)": DataType.UINT8, "tensor(int64)": DataType.INT64,
}  # fmt: skip


def nptype(trt_type: DataType) -> Any:
    """Return the NumPy type of a tensor's type."""
    return _NUMPY[trt_type]


class TensorIOMode(enum.IntEnum):
    """Whether a tensor is an input or an output."""

    NONE, INPUT, OUTPUT = range(3)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    """Flags of a network."""

    EXPLICIT_BATCH, STRONGLY_TYPED = range(2)


class MemoryPoolType(enum.IntEnum):
    """Pools whose size can be limited."""

    WORKSPACE = 0


class ILogger:
    """Base of loggers; a subclass must call this `__init__`."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        self.ready = True

    def log(self, severity: int, msg: str) -> None:
        """Take one message."""
        raise NotImplementedError


class IProgressMonitor:
    """Base of monitors; a subclass must call this `__init__`."""

    def __init__(self) -> None:
        self.ready = True


class ITimingCache:
    """Timings of kernels."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytearray:
        """Return the timings as host memory."""
        return bytearray(self.data or TIMINGS_MAGIC)


class IHostMemory(bytearray):
    """Memory of the host, by the buffer protocol."""

    @property
    def nbytes(self) -> int:
        """Its length."""
        return len(self)


class _Tensor:
    def __init__(self, name: str, shape: tuple[int, ...], dtype: DataType) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype


class INetworkDefinition:
    """A network that a parser fills."""

    def __init__(self) -> None:
        self.inputs: list[_Tensor] = []
        self.model = b""

    @property
    def num_inputs(self) -> int:
        """How many inputs it has."""
        return len(self.inputs)

    def get_input(self, index: int) -> _Tensor:
        """Return an input."""
        return self.inputs[index]


class _ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        """Return what is wrong."""
        return self._text

    def node_name(self) -> str:
        """Return the node."""
        return "node_7"

    def node_operator(self) -> str:
        """Return its operator."""
        return "Conv"


class OnnxParser:
    """Reads an ONNX graph into a network; a real one refuses more."""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._errors = network, list[str]()

    @property
    def num_errors(self) -> int:
        """How many errors the last graph had."""
        return len(self._errors)

    def get_error(self, index: int) -> _ParserError:
        """Return an error."""
        return _ParserError(self._errors[index])

    def parse(self, model: bytes, path: str | None = None) -> bool:
        """Read a graph; False where it is refused."""
        if _fault("parse-refused"):  # an operator that this release does not know
            self._errors.append("Assertion failed: the operator is not supported")
            return False
        session = _session(bytes(model))
        self._network.model = bytes(model)
        self._network.inputs = [
            _Tensor(found.name, _shape(found), _ONNX[found.type]) for found in session.get_inputs()
        ]
        return True


class IOptimizationProfile:
    """Smallest, usual and largest shape of each input."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(
        self,
        input: str,
        min: Any,
        opt: Any,
        max: Any,  # 10.3 names them so
    ) -> None:
        """Set the three shapes of an input."""
        self.shapes[input] = tuple(min), tuple(opt), tuple(max)


class IBuilderConfig:
    """Settings of a build."""

    def __init__(self) -> None:
        self.progress_monitor: Any = None
        self.builder_optimization_level = 3
        self.profiles: list[IOptimizationProfile] = []
        self.pools: dict[MemoryPoolType, int] = {}
        self._timings: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        """Limit a pool."""
        self.pools[pool] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        """Add a profile; -1 where it is not valid."""
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        """Read timings; None, as pybind gives a null pointer, where they are damaged."""
        data = bytes(serialized_timing_cache)
        if data and _fault("timings-crash"):  # a file of another release that ends the process
            os.kill(os.getpid(), signal.SIGSEGV)
        return ITimingCache(data) if not data or data.startswith(TIMINGS_MAGIC) else None

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        """Use timings; False where they are of another device."""
        if cache is None:
            raise TypeError("set_timing_cache(): incompatible function arguments.")
        self._timings = cache
        return not _fault("timings-foreign")  # of another device

    def get_timing_cache(self) -> ITimingCache | None:
        """Return the timings that a build left."""
        return self._timings


class Builder:
    """Builds plans; a real one needs a GPU."""

    def __init__(self, logger: ILogger) -> None:
        if _fault("no-builder") or not _gpu_answers():  # the library and the driver do not fit
            logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        """Return an empty network."""
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        """Return settings with their defaults."""
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        """Return a profile without shapes."""
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        """Return a plan; None where the build failed."""
        level = config.builder_optimization_level
        if _fault("build-killed", level):  # the system ends the process when memory runs out
            os.kill(os.getpid(), signal.SIGKILL)
        if _fault("build-crash", level):
            os.kill(os.getpid(), signal.SIGSEGV)
        if _fault("build-raise", level):
            raise RuntimeError("an exception that nobody foresaw")
        if _fault("build-memory", level):  # the GPU's memory is full
            self._logger.log(ILogger.ERROR, "[virtualMemoryBuffer] OutOfMemory (no further info)")
            return None
        if _fault("build-none", level):  # no kernel for this GPU
            self._logger.log(ILogger.ERROR, "Could not find any implementation for node Conv_7")
            return None
        if _fault("build-hang", level):
            time.sleep(3600)
        monitor, steps = config.progress_monitor, 4
        if monitor is not None:
            monitor.phase_start("Build", None, steps)
            for step in range(steps):
                if not monitor.step_complete("Build", step):
                    return None
            monitor.phase_finish("Build")
        (profile,) = config.profiles
        text = json.dumps(profile.shapes).encode()
        return IHostMemory(len(text).to_bytes(4, "little") + text + network.model)


class Runtime:
    """Reads plans."""

    def __init__(self, logger: ILogger) -> None:
        if _fault("no-runtime"):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.logger = logger
        live["runtime"] += 1

    def __del__(self) -> None:
        _freed("runtime", hasattr(self, "logger"))

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        """Return the engine of a plan; None where the plan is not of this device."""
        if _fault("deserialize-none"):
            self.logger.log(ILogger.ERROR, "The engine plan file is not compatible")
            return None
        return ICudaEngine(self, bytes(serialized_engine))


class ICudaEngine:
    """A plan that is loaded; it keeps its runtime alive."""

    def __init__(self, runtime: Runtime, plan: bytes) -> None:
        self.runtime = runtime
        length = int.from_bytes(plan[:4], "little")
        self.profile = json.loads(plan[4 : 4 + length])
        self.session = _session(plan[4 + length :])
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.inputs = [found.name for found in inputs]
        self.outputs = [found.name for found in outputs]
        self._types = {found.name: _ONNX[found.type] for found in [*inputs, *outputs]}
        self._shapes = {found.name: _shape(found) for found in [*inputs, *outputs]}
        live["engine"] += 1

    def __del__(self) -> None:
        _freed("engine", hasattr(self, "_shapes"))

    @property
    def num_io_tensors(self) -> int:
        """How many inputs and outputs it has."""
        return len(self._types)

    def get_tensor_name(self, index: int) -> str:
        """Return the name of an input or output."""
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Return whether a tensor is an input or an output."""
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, -1 where it varies."""
        return self._shapes[name]

    def get_tensor_dtype(self, name: str) -> DataType:
        """Return the type of a tensor."""
        return self._types[name]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        """Return the smallest, the usual and the largest shape of an input."""
        return [tuple(shape) for shape in self.profile[name]]

    def create_execution_context(self) -> IExecutionContext | None:
        """Return a context; None where the device has no memory for it."""
        if _fault("context-none"):
            self.runtime.logger.log(ILogger.ERROR, "Requested amount of GPU memory (1 byte)")
            return None
        memory = ctypes.c_uint64()
        rows = next(iter(self.profile.values()))[2][0]
        if _cuda().cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(rows * ACTIVATION_BYTES)):
            self.runtime.logger.log(ILogger.ERROR, "[defaultAllocator] OutOfMemory")
            return None
        return IExecutionContext(self, memory)


class IExecutionContext:
    """Runs an engine; it keeps the engine alive."""

    def __init__(self, engine: ICudaEngine, memory: ctypes.c_uint64) -> None:
        self.engine, self._memory = engine, memory
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._under_way: list[Any] = []
        live["context"] += 1

    def __del__(self) -> None:
        _freed("context", hasattr(self, "_under_way"))
        if hasattr(self, "_under_way"):
            _cuda().fakecuda_wait_idle(b"a context")
            _cuda().cuMemFree_v2(self._memory)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Set the shape of the next run's input; False beyond the profile."""
        if _fault("shape-false"):
            return False
        smallest, _, largest = self.engine.profile[name]
        self._shapes[name] = tuple(shape)
        return all(a <= b <= c for a, b, c in zip(smallest, shape, largest, strict=True))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Set where a tensor lies on the device."""
        if memory % ALIGNMENT:
            misuses.append(f"{name} lies at an address that is not aligned")
        self._addresses[name] = memory
        return not _fault("address-false")

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Queue a run on a stream; False where it cannot be queued."""
        if _fault("execute-false"):
            self.engine.runtime.logger.log(ILogger.ERROR, "Cuda Runtime (unspecified failure)")
            return False
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        rows = next(iter(shapes.values()))[0]
        # The work holds none of these objects: they would live on in a cycle with their callback.
        session, inputs, outputs = self.engine.session, self.engine.inputs, self.engine.outputs
        types = {name: self.engine.get_tensor_dtype(name) for name in [*inputs, *outputs]}

        def work(_: object) -> None:
            feed = {name: _array(addresses[name], shapes[name], types[name]) for name in inputs}
            for name, value in zip(outputs, session.run(outputs, feed), strict=True):
                found = -value if _fault("wrong-numbers") else value
                _array(addresses[name], (rows, *found.shape[1:]), types[name])[:] = found

        callback = _CALLBACK(work)
        # ctypes frees a callback that nobody holds; a few runs are under way at once.
        self._under_way = [*self._under_way[-7:], callback]
        return _cuda().cuLaunchHostFunc(ctypes.c_void_p(int(stream_handle)), callback, None) == 0


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _fault(name: str, level: int = 0) -> bool:
    """Return whether a fault is asked for; "NAME@2" means builds at level 2 and above."""
    for fault in os.environ.get("FAKE_TENSORRT_FAULTS", "").split(","):
        wanted, _, least = fault.partition("@")
        if wanted == name and level >= int(least or 0):
            return True
    return False


def _cuda() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _gpu_answers() -> bool:
    try:
        return bool(_cuda().cuInit(0) == 0)
    except OSError:
        return False


def _freed(what: str, made: bool) -> None:
    """Count an object that goes; a device wants its context current then."""
    if not made:
        return
    live[what] -= 1
    current = ctypes.c_void_p()
    _cuda().cuCtxGetCurrent(ctypes.byref(current))
    if not current.value:
        misuses.append(f"{what} was freed by a thread without a current context")


def _session(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _shape(found: Any) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in found.shape)


def _array(address: int, shape: tuple[int, ...], dtype: DataType) -> Any:
    """Return memory of the device as an array."""
    wanted = np.dtype(nptype(dtype))
    size = int(np.prod(shape)) * wanted.itemsize
    return (
        np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        .view(wanted)
        .reshape(shape)
    )
