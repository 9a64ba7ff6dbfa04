"""A device server in a thread of this process, a raw client of its protocol, and what tests of transports share."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import Any

import pytest

from dlavm.sim.device import DeviceError
from dlavm.sim.native import DeviceServer, NativeDevice
from dlavm.target.isa import Instr, encode_program
from dlavm.target.spec import TargetSpec
from dlavm.wire import DEVICE, FrameReader, Message


class Serving:
    """`url` of a server that a thread drives. A context manager; `log` has its lines."""

    def __init__(self, device: str = "sim:", **limits: Any) -> None:
        self.server = DeviceServer(device, **limits)
        self.port = self.server.port
        self.url = f"tcp:127.0.0.1:{self.port}"
        self.log: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._drive, daemon=True)

    def __enter__(self) -> Serving:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self.server.close()

    def _drive(self) -> None:
        while not self._over.is_set():
            self.log += self.server.poll(20)


class RawClient:
    """Frames to and from a server; reads time out after 20 s. A context manager."""

    def __init__(self, serving: Serving) -> None:
        self.port = serving.port
        self.connect()

    def connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        self.reader = FrameReader(DEVICE, sender="server")
        self.messages: list[Message] = []

    def reconnect(self) -> None:
        self.socket.close()
        self.connect()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.socket.close()

    def send(self, name: str, /, **fields: Any) -> None:
        self.socket.sendall(DEVICE.encode(name, **fields))

    def receive(self) -> Message | None:
        """The next message, None at the end of the connection."""
        while not self.messages:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.messages += self.reader.feed(data)
        return self.messages.pop(0)

    def ask(self, name: str, /, **fields: Any) -> Message:
        self.send(name, **fields)
        answer = self.receive()
        assert answer is not None
        return answer

    def open(self, spec: TargetSpec, **changes: Any) -> Message:
        return self.ask("open", **(open_fields(spec) | changes))


def open_fields(spec: TargetSpec) -> dict[str, Any]:
    """The fields of open for a target, with what the simulator needs of it."""
    limits = (spec.limits[n] for n in ("scalar_registers", "semaphores", "loop_depth", "call_depth", "act_slots"))
    buffers = (spec.board.activation_elements, spec.board.accumulators, spec.weight_format_mask)
    mask = [0] * 4
    for command in spec.commands.values():
        mask[command.opcode // 64] |= 1 << command.opcode % 64
    memories = [n for m in spec.board.memories.values() for n in (m.base, m.capacity, m.channels, m.port_bytes)]
    numbers = [2, int(spec.hash[:8], 16), spec.header_words, *limits, *buffers]
    return {"magic": DEVICE.magic, "version": DEVICE.version, "secret": "", "numbers": numbers,
            "opcode_mask": mask, "memories": memories}  # fmt: skip


def fails(code: str, *words: str) -> pytest.RaisesExc[DeviceError]:
    """An error of this code whose text holds the words."""
    return pytest.RaisesExc(DeviceError, check=lambda e: e.code == code and all(word in str(e) for word in words))


def open_soon(spec: TargetSpec, url: str) -> NativeDevice:
    """The device as soon as the server has noticed that its client left."""
    for _ in range(1000):
        try:
            return NativeDevice(spec, url)
        except DeviceError as error:
            if "busy" not in str(error) and "is lost" not in str(error):
                raise
            time.sleep(0.01)
    raise AssertionError("the server kept the device")


def endless(spec: TargetSpec) -> list[int]:
    """A program that never ends by itself."""
    inner = [Instr("LOOP", {"rd": 1, "count": 0x7FFFFFFF, "body": 2}), Instr("ENDLOOP")]
    outer = Instr("LOOP", {"rd": 2, "count": 0x7FFFFFFF, "body": len(encode_program(spec, inner)) + 2})
    return encode_program(spec, [outer, *inner, Instr("ENDLOOP"), Instr("END")])
