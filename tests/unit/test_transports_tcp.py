"""The engine `tcp:` and the device server: equal to the engine itself, whoever comes, vanishes or sends garbage."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.sim.device import DeviceError
from dlavm.sim.native import DeviceServer, NativeDevice
from dlavm.support.errors import DlavmError
from dlavm.target.isa import Instr, encode_program
from dlavm.wire import DEVICE
from tests.unit.fake_board import FakeBoard
from tests.unit.native_helpers import DATA, PROGRAM, copy, nano, register, run, scale, start, units
from tests.unit.transport_helpers import RawClient, Serving, endless, fails, open_fields, open_soon

SPEC = nano()
HBM = SPEC.board.memories["hbm"]
CONTROL, STATUS = register(SPEC, "CONTROL"), register(SPEC, "STATUS")
END = Instr("END")
MAX = DEVICE.max_message
BAD_ARGUMENT, SYSTEM = (1 << 32) - 1, (1 << 32) - 5  # statuses on the wire


@pytest.fixture
def serving() -> Iterator[Serving]:
    with Serving() as serving:
        yield serving


@pytest.fixture
def hasty() -> Iterator[Serving]:
    """A server that waits shortly."""
    with Serving(stall_ms=400, greeting_ms=400) as serving:
        yield serving


@pytest.fixture
def remote(serving: Serving) -> Iterator[NativeDevice]:
    with NativeDevice(SPEC, serving.url) as remote:
        yield remote


@pytest.fixture
def client(serving: Serving) -> Iterator[RawClient]:
    """A raw client that has the device."""
    with RawClient(serving) as client:
        opened = client.open(SPEC)
        assert (opened.name, opened["engine"], opened["version"]) == ("opened", "sim", 1)
        yield client


class TestEqualToTheEngine:
    @pytest.fixture
    def sim(self) -> Iterator[NativeDevice]:
        with NativeDevice(SPEC, threads=1) as sim:
            yield sim

    def test_memory(self, remote: NativeDevice, sim: NativeDevice) -> None:
        rng = np.random.default_rng(1)
        for count in (1, 16, 70001, MAX // 2, MAX // 2 + 1, 2 * MAX + 77):
            at = int(rng.integers(0, 100000))
            data = rng.integers(0, 256, count, np.uint8)
            for device in (remote, sim):
                device.mem_write(at, data)
            assert remote.mem_read(at, count) == data.tobytes()
            assert remote.mem_read(0, count) == sim.mem_read(0, count)
        assert remote.mem_read(5, 0) == b""

    @pytest.mark.parametrize("nbytes", [16, 5000, MAX + 4096])
    def test_images(self, nbytes: int, tmp_path: Path, remote: NativeDevice, sim: NativeDevice) -> None:
        path, at = tmp_path / "ch1.bin", 4096 * HBM.channels
        image = np.random.default_rng(2).integers(0, 256, nbytes + 3, np.uint8)
        path.write_bytes(image.tobytes())
        for device in (remote, sim):
            device.mem_write(at, bytes([7]) * 20000)
            device.mem_map(at, 1, path, nbytes)
            device.mem_write(at + 32, b"xyz")
        assert remote.mem_read(at, 2 * nbytes + 20000) == sim.mem_read(at, 2 * nbytes + 20000)
        assert path.read_bytes() == image.tobytes()

    def test_programs(self, remote: NativeDevice, sim: NativeDevice) -> None:
        values = np.arange(8, dtype=np.float16)
        results = []
        for device in (remote, sim):
            device.set_option("threads", 1)
            device.set_option("simd", "portable")
            device.mem_write(DATA, values)
            executed = run(device, SPEC, [scale(DATA, DATA + 4096), copy(DATA, DATA + 8192)], args=[5, 6])
            registers = [device.csr_read(r.offset) for n, r in SPEC.registers.items() if n != "CONTROL"]
            results.append((executed, registers, device.counters(), device.mem_read(DATA, 9000), device.info()))
        assert results[0] == results[1]
        assert results[0][0] == 3

    def test_pieces_of_a_run(self, remote: NativeDevice, sim: NativeDevice) -> None:
        program = encode_program(SPEC, [*(copy(DATA + 64 * i, DATA + 4096 + 64 * i) for i in range(5)), END])
        for device in (remote, sim):
            start(device, SPEC, program)
            assert [device.run(2), device.run(3), device.run(), device.run()] == [2, 3, 1, 0]

    def test_register_driven_targets(self) -> None:
        spec = nano("v1")
        with Serving() as serving, NativeDevice(spec, serving.url) as remote:
            with fails("illegal_opcode", "LAUNCH"):
                remote.csr_write(register(spec, "LAUNCH"), 0x7F)
            assert remote.csr_read(register(spec, "STATUS")) == 4

    @pytest.mark.parametrize(
        "call",
        [
            lambda d: d.mem_write(HBM.capacity - 4, b"12345"),
            lambda d: d.mem_read(HBM.capacity - 100, 2 * MAX),
            lambda d: d.mem_map(16, 0, "/nonexistent", 16),
            lambda d: d.mem_map(0, 2, "/nonexistent", 16),
            lambda d: d.mem_map(0, 0, "/nonexistent", 16),
            lambda d: d.mem_map(0, 0, "/proc/self/status", 1 << 20),
            lambda d: d.csr_write(STATUS, 1),
            lambda d: d.csr_read(0xFFFC),
            lambda d: d.set_option("threads", "x"),
            lambda d: d.set_option("colour", 1),
            lambda d: run(d, SPEC, [Instr("COPY", {"src": 0xFFFFFFF, "rows_o": 1, "rows_i": 1, "dim": 8})]),
            lambda d: run(d, SPEC, [copy(DATA, DATA + 16), scale(DATA + 16, DATA)]),
        ],
    )
    def test_errors(self, call: Callable[[Any], object], remote: NativeDevice, sim: NativeDevice) -> None:
        with pytest.raises(DeviceError) as ours:
            call(remote)
        with pytest.raises(DeviceError) as theirs:
            call(sim)
        assert (ours.value.code, str(ours.value)) == (theirs.value.code, str(theirs.value))
        assert remote.mem_read(0, 16) == sim.mem_read(0, 16)  # the connection goes on

    def test_a_configuration_that_no_engine_takes(self, serving: Serving) -> None:
        wrong = dataclasses.replace(SPEC, limits={**SPEC.limits, "scalar_registers": 99})
        texts = []
        for url in (serving.url, "sim:"):
            with pytest.raises(DeviceError) as caught:
                NativeDevice(wrong, url)
            texts.append((caught.value.code, str(caught.value)))
        assert texts[0] == texts[1]

    def test_a_card_behind_a_server(self, tmp_path: Path) -> None:
        with (
            FakeBoard(tmp_path, SPEC, 8 << 20) as board,
            Serving(board.url) as serving,
            NativeDevice(SPEC, serving.url) as remote,
        ):
            remote.mem_write(DATA, bytes(range(16)))
            assert run(remote, SPEC, [copy(DATA, DATA + 4096)]) == 2
            assert remote.mem_read(DATA + 4096, 16) == bytes(range(16))
            assert remote.info()["engine"] == "xdma"
            board.hang = True
            with fails("not_found", "timeout_ms, got 'threads'"):
                remote.set_option("threads", 1)
            remote.set_option("timeout_ms", 30)
            with fails("system", "did not finish within 30 ms"):
                run(remote, SPEC, [])


class TestStop:
    def test_a_reset_of_another_thread_ends_a_run(self, remote: NativeDevice) -> None:
        for _ in range(3):
            start(remote, SPEC, endless(SPEC))
            executed: list[int] = []
            runner = threading.Thread(target=lambda: executed.append(remote.run()))  # noqa: B023
            runner.start()
            time.sleep(0.02)
            remote.csr_write(CONTROL, 2)
            runner.join(20)
            assert not runner.is_alive() and len(executed) == 1
            assert remote.csr_read(STATUS) == 0
        assert run(remote, SPEC, []) == 1

    def test_stop_is_answered_by_the_run(self, client: RawClient) -> None:
        self.begin(client)
        client.send("stop")
        answer = client.receive()
        assert answer is not None and (answer.name, answer["status"]) == ("result", 0) and answer["value"] > 0
        client.send("stop")  # nothing runs: nothing comes
        assert client.ask("csr_read", offset=STATUS)["value"] == 0

    def test_anything_else_during_a_run_ends_the_connection(self, serving: Serving, client: RawClient) -> None:
        self.begin(client)
        answer = client.ask("counters")
        assert answer["status"] == BAD_ARGUMENT and "expected stop" in answer["text"]
        assert client.receive() is None
        open_soon(SPEC, serving.url).close()

    @pytest.mark.parametrize("how", ["close", "reset", "half"])
    def test_a_client_that_leaves_ends_its_run(self, how: str, serving: Serving, client: RawClient) -> None:
        self.begin(client)
        if how == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if how == "half":
            client.socket.shutdown(socket.SHUT_WR)
        else:
            client.socket.close()
        with open_soon(SPEC, serving.url) as device:
            assert run(device, SPEC, []) == 1
        assert any("opened sim:" in line for line in serving.log)

    def test_a_server_that_closes_ends_a_run(self) -> None:
        serving = Serving()
        with serving, NativeDevice(SPEC, serving.url) as remote:
            start(remote, SPEC, endless(SPEC))
            errors: list[DeviceError] = []
            runner = threading.Thread(target=lambda: errors.append(error_of(remote.run)))
            runner.start()
            time.sleep(0.05)
            serving.stop()
            runner.join(20)
            assert errors and errors[0].code == "system"
            for call in (remote.counters, lambda: remote.mem_read(0, 1), remote.run, remote.info):
                assert str(error_of(call)) == str(errors[0])
            assert f"{serving.url}: the connection is lost: the server closed it" in str(errors[0])

    def begin(self, client: RawClient) -> None:
        words = np.array(endless(SPEC), "<u4").tobytes()
        assert client.ask("write", address=PROGRAM, bytes=words)["status"] == 0
        values = {"PROGRAM": units(PROGRAM), "PROGRAM_WORDS": len(words) // 4, "CONTROL": 1}
        for name, value in values.items():
            assert client.ask("csr_write", offset=register(SPEC, name), value=value)["status"] == 0
        client.send("run", max_commands=0)


def error_of(call: Callable[[], object]) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        call()
    return caught.value


class TestOneClient:
    def test_the_second_is_told(self, serving: Serving, remote: NativeDevice) -> None:
        for _ in range(3):
            with fails("system", "busy: the device serves another client"):
                NativeDevice(SPEC, serving.url)
        assert run(remote, SPEC, []) == 1
        remote.close()
        open_soon(SPEC, serving.url).close()

    def test_memory_starts_anew(self, serving: Serving) -> None:
        for _ in range(2):
            with open_soon(SPEC, serving.url) as device:
                assert device.mem_read(0, 4) == bytes(4)
                device.mem_write(0, b"1234")

    def test_many_that_say_nothing(self, hasty: Serving) -> None:
        with open_soon(SPEC, hasty.url) as remote:
            silent = [socket.create_connection(("127.0.0.1", hasty.port), timeout=20) for _ in range(200)]
            assert run(remote, SPEC, []) == 1  # the client is not the one to go
        open_soon(SPEC, hasty.url).close()
        for connection in silent:
            with connection:
                assert connection.recv(1) == b""
        assert any("no first message in time" in line for line in hasty.log)

    def test_secrets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        right, wrong = tmp_path / "right", tmp_path / "wrong"
        right.write_text("schlüssel\n")
        wrong.write_text("schlüssem\n")
        with Serving(secret_file=right) as serving:
            for path in (None, wrong):
                if path:
                    monkeypatch.setenv("DLAVM_DEVICE_SECRET_FILE", str(path))
                with fails("system", "open: the secret is not the server's"):
                    NativeDevice(SPEC, serving.url)
            monkeypatch.setenv("DLAVM_DEVICE_SECRET_FILE", str(right))
            with NativeDevice(SPEC, serving.url) as device:
                assert run(device, SPEC, []) == 1
        with Serving() as serving:
            NativeDevice(SPEC, serving.url).close()  # a server that asks for none

    @pytest.mark.parametrize(("content", "word"), [(None, "read"), (b"", "got 0"), (b"\n", "got 0"),
                                                   (b"a" * 1025, "got 1025"), (b"\xff", "UTF-8")])  # fmt: skip
    def test_files_that_hold_no_secret(
        self, content: bytes | None, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "secret"
        if content is not None:
            path.write_bytes(content)
        code = "not_found" if content is None else "bad_argument"
        with fails(code, str(path), word):
            DeviceServer(secret_file=path)
        monkeypatch.setenv("DLAVM_DEVICE_SECRET_FILE", str(path))
        with Serving() as serving, fails(code, str(path), word):
            NativeDevice(SPEC, serving.url)


FRAMES = {
    "open": {"magic": 1, "version": 1, "secret": "ab", "numbers": [1, 2], "opcode_mask": [3], "memories": [4]},
    "option": {"name": "threads", "value": "1"},
    "read": {"address": 0, "count": 16},
    "write": {"address": 0, "bytes": b"1234"},
    "map": {"address": 0, "channel": 0, "total": 16},
    "image": {"bytes": bytes(16)},
    "csr_read": {"offset": 0},
    "csr_write": {"offset": 0x20, "value": 1},
    "run": {"max_commands": 1},
    "counters": {},
    "info": {},
    "stop": {},
}


class TestUntrustedBytes:
    @pytest.mark.parametrize("opened", [False, True])
    def test_every_message_cut_at_every_byte(self, opened: bool, serving: Serving) -> None:
        for name, fields in FRAMES.items():
            frame = DEVICE.encode(name, **fields)
            for length in {1, 4, 7, 8, 9, len(frame) // 2, len(frame) - 1} & set(range(1, len(frame))):
                with RawClient(serving) as client:
                    if opened:
                        self.become_client(client)
                    client.socket.sendall(frame[:length])
                    client.socket.shutdown(socket.SHUT_WR)
                    assert client.receive() is None
        open_soon(SPEC, serving.url).close()

    @pytest.mark.parametrize("opened", [False, True])
    @pytest.mark.parametrize(
        ("frame", "words"),
        [
            (b"\0\0\0\x80\4\0\0\0", "expected at most 4194304 bytes, got 2147483648"),
            (b"\xff\xff\xff\xff\4\0\0\0", "expected at most 4194304"),
            (b"\0\0\0\0\0\0\1\0", "expected zero in the last two bytes"),
            (b"\0\0\0\0\xe7\3\0\0", "number of a message from the client, got 999"),
            (b"\0\0\0\0\x41\0\0\0", "number of a message from the client, got 65"),
            (b"\5\0\0\0\3\0\0\0", "read: expected 12..12 bytes, got 5"),
            (b"GET / HTTP/1.1\r\nHost: board\r\n\r\n", "expected zero"),
            (DEVICE.encode("option", name="abc", value="")[:-4] + b"\xff\xff\xff\xff", "option"),
        ],
    )
    def test_what_is_no_message(self, opened: bool, frame: bytes, words: str, serving: Serving) -> None:
        with RawClient(serving) as client:
            if opened:
                self.become_client(client)
            client.socket.sendall(frame)
            answer = client.receive()
            assert answer is not None and answer["status"] == BAD_ARGUMENT
            assert "malformed" in answer["text"] and (words in answer["text"] or not opened)
            assert client.receive() is None
        open_soon(SPEC, serving.url).close()

    @pytest.mark.parametrize("name", [name for name in FRAMES if name != "open"])
    def test_another_first_message(self, name: str, serving: Serving) -> None:
        with RawClient(serving) as client:
            assert f"expected open first, got {name}" in client.ask(name, **FRAMES[name])["text"]
            assert client.receive() is None

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"magic": 7}, "magic"),
            ({"version": 0}, "version"),
            ({"numbers": [1] * 10}, "expected 11 numbers"),
            ({"numbers": [3] + [0] * 10}, "expected ABI version 2, got 3"),
            ({"opcode_mask": [1] * 5}, "4 words"),
            ({"memories": [1] * 5}, "4 numbers a memory"),
            ({"memories": [0, 4096, 1, 16] * 5}, "4 numbers a memory"),
            ({"memories": []}, "memory_count"),
            ({"memories": [0, 4096, 1 << 32, 16]}, "2^32"),
            ({"memories": [0, 4096, 1, 17]}, "port"),
            ({"memories": [0, 1 << 36, 1, 16, 1 << 37, 3 << 35, 1, 16]}, "this server's limit"),
            ({"memories": [0, 1 << 36, 1, 16, 1 << 37, (1 << 64) - 1, 1, 16]}, "this server's limit"),
            ({"secret": "a" * 65535, "numbers": [0] * 20000}, "first message of at most"),
        ],
    )
    def test_configurations(self, change: dict[str, Any], words: str, serving: Serving) -> None:
        with RawClient(serving) as client:
            answer = client.open(SPEC, **change)
            assert answer.name == "result" and answer["status"] >= SYSTEM and words in answer["text"]
            assert client.receive() is None
        open_soon(SPEC, serving.url).close()

    def test_open_twice(self, client: RawClient) -> None:
        answer = client.open(SPEC)
        assert answer["status"] == BAD_ARGUMENT and client.receive() is None

    def test_a_later_version_gets_ours(self, serving: Serving) -> None:
        with RawClient(serving) as client:
            assert client.open(SPEC, version=9)["version"] == 1

    def test_random_bytes(self, serving: Serving) -> None:
        rng = np.random.default_rng(7)
        frames = [DEVICE.encode(name, **fields) for name, fields in FRAMES.items()]
        for turn in range(60):
            stream = bytearray(b"".join(frames[i] for i in rng.integers(0, len(frames), 20)))
            for place in rng.integers(0, len(stream), 3):
                stream[place] ^= 1 << int(rng.integers(0, 8))
            with RawClient(serving) as client:
                if turn % 3:
                    self.become_client(client)
                client.socket.sendall(rng.bytes(300) if turn % 5 == 0 else bytes(stream))
                client.socket.shutdown(socket.SHUT_WR)
                while client.receive():
                    pass
        with open_soon(SPEC, serving.url) as device:
            assert run(device, SPEC, []) == 1

    def test_half_a_message_ends_after_a_while(self, hasty: Serving) -> None:
        with RawClient(hasty) as client:
            self.become_client(client)
            client.socket.sendall(DEVICE.encode("write", address=0, bytes=bytes(1000))[:500])
            assert client.receive() is None
        open_soon(SPEC, hasty.url).close()
        assert any("stalled" in line for line in hasty.log)

    def test_a_client_that_never_reads(self, hasty: Serving) -> None:
        with RawClient(hasty) as client:
            self.become_client(client)
            client.socket.sendall(DEVICE.encode("read", address=0, count=MAX) * 20)  # more than buffers hold
            open_soon(SPEC, hasty.url).close()
        assert any("stalled" in line for line in hasty.log)

    def test_reads_of_the_longest_and_of_more(self, client: RawClient) -> None:
        assert len(client.ask("read", address=0, count=MAX)["bytes"]) == MAX
        answer = client.ask("read", address=0, count=MAX + 1)
        assert answer["status"] == BAD_ARGUMENT and str(MAX) in answer["text"]
        assert client.ask("read", address=0, count=0)["bytes"] == b""

    def test_images_out_of_turn(self, client: RawClient) -> None:
        def status(name: str, **fields: Any) -> int:
            return int(client.ask(name, **fields)["status"])

        assert status("image", bytes=b"1") == BAD_ARGUMENT
        assert status("map", address=0, channel=0, total=16) == 0
        assert status("image", bytes=bytes(17)) == BAD_ARGUMENT
        assert status("image", bytes=bytes(16)) == BAD_ARGUMENT  # the upload is over
        assert status("map", address=0, channel=0, total=16) == 0
        assert status("image", bytes=b"") == 0
        assert status("csr_read", offset=STATUS) == 0
        assert status("image", bytes=bytes(16)) == BAD_ARGUMENT  # another request gives it up
        assert status("map", address=0, channel=0, total=0) == 0
        assert status("map", address=16, channel=0, total=16) == 0
        answer = client.ask("image", bytes=bytes(16))
        assert "not a beat" in answer["text"]

    def test_images_are_limited_by_the_memory(self, client: RawClient) -> None:
        total = sum(m.capacity for m in SPEC.board.memories.values())
        assert "may still map" in client.ask("map", address=0, channel=0, total=total + 1)["text"]
        assert client.ask("map", address=0, channel=0, total=total - 5)["status"] == 0
        assert "the 5 bytes" in client.ask("map", address=0, channel=0, total=6)["text"]

    def become_client(self, client: RawClient) -> None:
        for _ in range(1000):
            client.send("open", **open_fields(SPEC))
            answer = client.receive()
            if answer is not None and answer.name == "opened":
                return
            client.reconnect()
        raise AssertionError("the server kept the device")


class TestClient:
    """What stands at the other end is not trusted either."""

    def serve_once(self, *frames: bytes) -> tuple[str, threading.Thread]:
        """The URL of a server that answers each request by the next of `frames`, then closes."""
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            connection = listener.accept()[0]
            with listener, connection:
                for frame in frames:
                    connection.recv(1 << 20)
                    connection.sendall(frame)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        return f"tcp:127.0.0.1:{listener.getsockname()[1]}", thread

    opened = DEVICE.encode("opened", version=1, engine="sim", simd="none", threads=1)

    @pytest.mark.parametrize(
        ("frame", "words"),
        [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not what a device server sends: header: expected zero"),
            (DEVICE.encode("counted", cycles=0, commands=0, bytes_read=0, bytes_written=0), "message 67 where 64"),
            (DEVICE.encode("result", status=0, value=0, text=""), "message 65 where 64"),
            (DEVICE.encode("result", status=(1 << 32) - 6, value=0, text=""), "status -6"),
            (DEVICE.encode("opened", version=2, engine="", simd="", threads=1), "version 2"),
            (opened[:-3], "the server closed it"),
            (b"", "the connection is lost"),
        ],
    )
    def test_servers_of_another_kind(self, frame: bytes, words: str) -> None:
        url, thread = self.serve_once(frame)
        with fails("system", url, words):
            NativeDevice(SPEC, url)
        thread.join(20)

    @pytest.mark.parametrize(
        ("frame", "words"),
        [
            (DEVICE.encode("data", bytes=bytes(15)), "data of another length"),
            (DEVICE.encode("data", bytes=bytes(17)), "data of another length"),
            (DEVICE.encode("read", address=0, count=1), "message from the server, got 3"),
            (DEVICE.encode("data", bytes=bytes(16))[:-1], "the server closed it"),
            (DEVICE.encode("result", status=0, value=0, text=""), "message 65 where 66"),
        ],
    )
    def test_answers_that_do_not_fit(self, frame: bytes, words: str) -> None:
        url, thread = self.serve_once(self.opened, frame)
        with NativeDevice(SPEC, url) as device:
            first = error_of(lambda: device.mem_read(0, 16))
            assert first.code == "system" and words in str(first)
            thread.join(20)
            for call in (lambda: device.mem_read(0, 16), device.run, device.counters):
                assert str(error_of(call)) == str(first)

    def test_a_core_error_where_no_core_runs(self) -> None:
        url, thread = self.serve_once(self.opened, DEVICE.encode("result", status=3, value=0, text="x"))
        with NativeDevice(SPEC, url) as device, fails("system", "status 3"):
            device.mem_write(0, b"1")
        thread.join(20)

    @pytest.mark.parametrize(
        "address", ["", "host", "host:", ":1", "::1:80", "[::1]", "[::1:80", "host:99999", "host:-1", "host:8x", "[]:1"]
    )
    def test_addresses(self, address: str) -> None:
        with fails("bad_argument", "expected HOST:PORT", address):
            NativeDevice(SPEC, f"tcp:{address}")
        with fails("bad_argument", "listen: expected HOST:PORT", address):
            DeviceServer(listen=address)

    def test_nobody_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with fails("system", f"tcp:127.0.0.1:{port}: cannot connect: Connection refused"):
            NativeDevice(SPEC, f"tcp:127.0.0.1:{port}")
        with fails("not_found", "host 'no-such-host.invalid'"):
            NativeDevice(SPEC, "tcp:no-such-host.invalid:1")

    @pytest.mark.parametrize("host", ["localhost", "[::1]"])
    def test_names_and_ipv6(self, host: str) -> None:
        try:
            serving = Serving(listen=f"{host}:0")
        except DeviceError as error:
            pytest.skip(str(error))
        with serving, NativeDevice(SPEC, f"tcp:{host}:{serving.port}") as device:
            assert run(device, SPEC, []) == 1

    def test_a_closed_server(self) -> None:
        server = DeviceServer()
        server.close()
        with pytest.raises(DlavmError, match="closed"):
            server.poll(1)

    def test_servers_that_cannot_be(self) -> None:
        with Serving() as serving:
            with fails("system", "cannot listen: Address already in use"):
                DeviceServer(listen=f"127.0.0.1:{serving.port}")
            with fails("not_found", "sim:, timed:, rtl:, tcp:, xdma:"):
                DeviceServer("gpu:")
