"""The C++ library over cffi, without a compiler: NativeDevice (clib/include/dlavm/device.h), DeviceServer
(device_server.h)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from cffi import FFI

from dlavm.sim.device import Counters, DeviceError
from dlavm.support.errors import DlavmError
from dlavm.support.native import load
from dlavm.target.spec import Memory, TargetSpec

ABI_VERSION = 2
MAX_MEMORIES = 4
RESET = 2  # CONTROL

_CDEF = """
typedef struct { uint64_t base, capacity; uint32_t channels, port_bytes; } dlavm_memory_config;
typedef struct {
    uint32_t abi_version, id, header_words;
    uint32_t scalar_registers, semaphores, loop_depth, call_depth, act_slots;
    uint32_t memory_count;
    dlavm_memory_config memories[4];
    uint64_t opcode_mask[4];
    uint32_t activation_elements, accumulators, weight_formats;
} dlavm_config;
typedef struct { uint64_t cycles, commands, bytes_read, bytes_written; } dlavm_counters;
typedef struct { const char *engine, *simd; uint32_t threads, abi_version; } dlavm_device_info;
typedef struct dlavm_device dlavm_device;
int dlavm_open(const char *url, const dlavm_config *config, dlavm_device **out);
void dlavm_close(dlavm_device *device);
const char *dlavm_error(const dlavm_device *device);
int dlavm_info(const dlavm_device *device, dlavm_device_info *out);
int dlavm_set_option(dlavm_device *device, const char *name, const char *value);
int dlavm_mem_read(dlavm_device *device, uint64_t address, void *buffer, uint64_t bytes);
int dlavm_mem_write(dlavm_device *device, uint64_t address, const void *buffer, uint64_t bytes);
int dlavm_mem_map(dlavm_device *device, uint64_t address, uint32_t channel, const char *path, uint64_t bytes);
int dlavm_csr_read(dlavm_device *device, uint32_t offset, uint32_t *value);
int dlavm_csr_write(dlavm_device *device, uint32_t offset, uint32_t value);
int dlavm_run(dlavm_device *device, uint64_t max_commands, uint64_t *executed);
int dlavm_counters_read(dlavm_device *device, dlavm_counters *out);
typedef struct dlavm_server dlavm_server;
typedef struct { const char *secret_file; uint64_t max_memory; uint32_t greeting_ms, stall_ms; } dlavm_server_options;
int dlavm_server_open(const char *device_url, const char *listen, const dlavm_server_options *options,
                      dlavm_server **out);
uint16_t dlavm_server_port(const dlavm_server *server);
int dlavm_server_poll(dlavm_server *server, uint32_t timeout_ms);
const char *dlavm_server_log(dlavm_server *server);
void dlavm_server_close(dlavm_server *server);
const char *dlavm_build_info(void);
"""

# Names of DeviceError.code where the call itself was wrong; the core's own errors have the names of the ISA.
_MISUSE = {-1: "bad_argument", -2: "bad_address", -3: "bad_register", -4: "not_found", -5: "system"}


def _library() -> tuple[FFI, Any]:
    return load(_CDEF)


def build_info() -> str:
    """One line: how the native library was built. Raises DlavmError where it is missing."""
    ffi, lib = _library()
    return str(ffi.string(lib.dlavm_build_info()).decode())


class NativeDevice:
    """A device of the native library by URL (doc/devices.md); see the Device protocol. `threads` None: its own number.

    Raises DeviceError with a name of the ISA's error enum where the core stopped, and with bad_argument, bad_address,
    bad_register, not_found or system where the call itself was wrong.
    """

    def __init__(self, spec: TargetSpec, url: str = "sim:", threads: int | None = None) -> None:
        self._ffi, self._lib = _library()
        self._handle: Any = None
        self._errors = {number: name for name, number in spec.enums["error"].items()}
        self._control = spec.registers["CONTROL"].offset
        self._may_wait = not url.startswith("sim:")  # long, for something that is not this processor's work
        out = self._ffi.new("dlavm_device **")
        self._check(self._lib.dlavm_open(url.encode(), _config(self._ffi, spec), out))
        self._handle = out[0]
        if threads is not None:
            self.set_option("threads", threads)

    def mem_read(self, address: int, count: int) -> bytes:
        buffer = bytearray(count)
        self._check(self._lib.dlavm_mem_read(self._open(), _u64(address), self._ffi.from_buffer(buffer), count))
        return bytes(buffer)

    def mem_read_into(self, address: int, out: Any) -> None:
        """Reads out.nbytes bytes into a C-contiguous numpy array."""
        if not isinstance(out, np.ndarray) or not out.flags.c_contiguous or not out.flags.writeable:
            raise DlavmError(f"mem_read_into: expected a writable C-contiguous array, got {type(out).__name__}")
        buffer = self._ffi.from_buffer(out.reshape(-1).view(np.uint8)) if out.nbytes else self._ffi.NULL
        self._check(self._lib.dlavm_mem_read(self._open(), _u64(address), buffer, out.nbytes))

    def mem_write(self, address: int, data: Any) -> None:
        buffer = self._ffi.from_buffer(np.ascontiguousarray(data) if isinstance(data, np.ndarray) else data)
        self._check(self._lib.dlavm_mem_write(self._open(), _u64(address), buffer, self._ffi.sizeof(buffer)))

    def mem_map(self, address: int, channel: int, path: str | Path, nbytes: int) -> None:
        """Maps the first `nbytes` of a file (never copied) as one channel's part of memory from `address` on."""
        name = str(path).encode()
        self._check(self._lib.dlavm_mem_map(self._open(), _u64(address), _u32(channel), name, _u64(nbytes)))

    def csr_read(self, offset: int) -> int:
        value = self._ffi.new("uint32_t *")
        self._check(self._lib.dlavm_csr_read(self._open(), _u32(offset), value))
        return int(value[0])

    def csr_write(self, offset: int, value: int) -> None:
        self._check(self._lib.dlavm_csr_write(self._open(), _u32(offset), value & 0xFFFFFFFF))

    def run(self, max_commands: int | None = None) -> int:
        """As Device. Ctrl-C stops and resets a device that is not the simulator, and raises KeyboardInterrupt."""
        if max_commands is not None and max_commands <= 0:
            return 0
        executed, handle, most = self._ffi.new("uint64_t *"), self._open(), _u64(max_commands or 0)

        def call() -> None:
            self._check(self._lib.dlavm_run(handle, most, executed))

        if self._may_wait and threading.current_thread() is threading.main_thread():
            self._interruptible(call)
        else:
            call()
        return int(executed[0])

    def _interruptible(self, call: Callable[[], None]) -> None:
        """Makes a call in another thread: Python sees no signal while this one is in the library."""
        errors: list[BaseException] = []
        over = threading.Event()  # Python 3.11: after an interrupted join() a thread counts as ended

        def work() -> None:
            try:
                call()
            except BaseException as error:
                errors.append(error)
            finally:
                over.set()

        threading.Thread(target=work, daemon=True).start()
        try:
            over.wait()
        except KeyboardInterrupt:
            # What fails here would hide that the user wanted the call to end.
            self._lib.dlavm_csr_write(self._handle, self._control, RESET)
            over.wait()
            raise
        if errors:
            raise errors[0]

    def counters(self) -> Counters:
        c = self._ffi.new("dlavm_counters *")
        self._check(self._lib.dlavm_counters_read(self._open(), c))
        return Counters(int(c.cycles), int(c.commands), int(c.bytes_read), int(c.bytes_written))

    def info(self) -> dict[str, Any]:
        """engine, simd (path of the inner loops), threads."""
        info = self._ffi.new("dlavm_device_info *")
        self._check(self._lib.dlavm_info(self._open(), info))
        text = {name: self._ffi.string(getattr(info, name)).decode() for name in ("engine", "simd")}
        return {**text, "threads": int(info.threads)}

    def set_option(self, name: str, value: str | int) -> None:
        """The options of the engine (doc/devices.md)."""
        self._check(self._lib.dlavm_set_option(self._open(), name.encode(), str(value).encode()))

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._lib.dlavm_close(handle)

    def __enter__(self) -> NativeDevice:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _open(self) -> Any:
        if self._handle is None:
            raise DlavmError("device: expected an open device, got one that was closed")
        return self._handle

    def _check(self, status: int) -> None:
        _raise_if(status, self._errors)


class DeviceServer:
    """Serves a device of this machine to `tcp:` engines, one client at a time (doc/devices.md). A context manager.

    Listens from the start at `listen`, HOST:PORT; port 0 is a free one. `secret_file`: its text is what clients have to
    know. Limits of 0 have the defaults of device_server.h. Raises DeviceError as NativeDevice does.
    """

    def __init__(self, device: str = "sim:", listen: str = "127.0.0.1:0", secret_file: str | Path | None = None,
                 max_memory: int = 0, greeting_ms: int = 0, stall_ms: int = 0) -> None:
        self._handle: Any = None
        ffi, self._lib = _library()
        secret = ffi.NULL if secret_file is None else ffi.new("char[]", str(secret_file).encode())
        options = ffi.new("dlavm_server_options *", (secret, _u64(max_memory), _u32(greeting_ms), _u32(stall_ms)))
        out = ffi.new("dlavm_server **")
        _raise_if(self._lib.dlavm_server_open(device.encode(), listen.encode(), options, out))
        self._handle = out[0]

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._lib.dlavm_server_port(self._open()))

    def poll(self, timeout_ms: int) -> list[str]:
        """Handles what comes, at most for this time; returns earlier after a signal. What there is to log."""
        _raise_if(self._lib.dlavm_server_poll(self._open(), _u32(timeout_ms)))
        ffi, lines = _library()[0], []
        while line := self._lib.dlavm_server_log(self._handle):
            lines.append(ffi.string(line).decode(errors="replace"))
        return lines

    def close(self) -> None:
        """Stops what runs, closes the device and every connection."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._lib.dlavm_server_close(handle)

    def _open(self) -> Any:
        if self._handle is None:
            raise DlavmError("device server: expected an open server, got one that was closed")
        return self._handle

    def __enter__(self) -> DeviceServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _raise_if(status: int, core_errors: Mapping[int, str] = MappingProxyType({})) -> None:
    """Raises the DeviceError of the thread's last call if `status` is not 0; `core_errors` names positive codes."""
    if status != 0:
        ffi, lib = _library()
        text = ffi.string(lib.dlavm_error(ffi.NULL)).decode(errors="replace")
        raise DeviceError(_MISUSE.get(status) or core_errors.get(status, str(status)), text)


def _config(ffi: FFI, spec: TargetSpec) -> Any:
    """dlavm_config of a target on its board."""
    memories = _memories(spec)
    config = ffi.new("dlavm_config *")
    config.abi_version = ABI_VERSION
    config.id = int(spec.hash[:8], 16)
    config.header_words = spec.header_words
    for name in ("scalar_registers", "semaphores", "loop_depth", "call_depth", "act_slots"):
        setattr(config, name, spec.limits[name])
    config.memory_count = len(memories)
    for slot, m in zip(config.memories, memories, strict=False):
        slot.base, slot.capacity, slot.channels, slot.port_bytes = m.base, m.capacity, m.channels, m.port_bytes
    for opcode in spec.opcodes:
        config.opcode_mask[opcode // 64] |= 1 << opcode % 64
    config.activation_elements = spec.board.activation_elements
    config.accumulators = spec.board.accumulators
    config.weight_formats = spec.weight_format_mask
    return config


def _memories(spec: TargetSpec) -> list[Memory]:
    memories = list(spec.board.memories.values())
    if not 1 <= len(memories) <= MAX_MEMORIES:
        raise DlavmError(f"board {spec.board.name}: expected 1..{MAX_MEMORIES} memories, got {len(memories)}")
    return memories


def _u64(value: int) -> int:
    if not 0 <= value < 1 << 64:
        raise DlavmError(f"device: expected an unsigned 64-bit number, got {value!r}")
    return value


def _u32(value: int) -> int:
    if not 0 <= value < 1 << 32:
        raise DlavmError(f"device: expected an unsigned 32-bit number, got {value!r}")
    return value
