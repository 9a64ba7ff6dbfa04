"""Seeds of the fuzz targets: valid conversations, and one input for each way to go wrong. Deterministic.

An input is a sequence of operations, each four bytes (code, place, u16 number) and what follows them: see
tests/native/fuzz_service.cpp and fuzz_device_server.cpp, whose tables have the same order as the names here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dlavm.wire import CHAT, DEVICE, Protocol

SECRET = "sesame"
BIG = 0xFFFF


@dataclass(frozen=True)
class Script:
    """Writes operations. `places`: connections; a place of `client + places * variant` chooses a variant too."""

    protocol: Protocol
    operations: tuple[str, ...]
    places: int

    def do(self, name: str, client: int = 0, number: int = 0, variant: int = 0) -> bytes:
        place = client + self.places * variant
        return struct.pack("<BBH", self.operations.index(name), place, number)

    def raw(self, data: bytes, client: int = 0) -> bytes:
        return self.do("send_bytes", client, len(data)) + data

    def frame(self, name: str, client: int = 0, /, **fields: Any) -> bytes:
        """A message whose header the target writes, so that a changed payload still has the right length."""
        frame = self.protocol.encode(name, **fields)
        return self.do("send_frame", client, len(frame) - 8) + frame[4:5] + frame[8:]


CHATS = Script(CHAT, ("open", "send_bytes", "send_frame", "hello", "generate", "load", "data", "read_some", "turns",
                      "hold", "fail", "clock", "close", "ask_witness", "shutdown"), 6)  # fmt: skip
DEVICES = Script(DEVICE, ("connect", "send_bytes", "send_frame", "open", "write", "image", "read", "poll", "crowd",
                          "clock", "shut", "close"), 4)  # fmt: skip

HELLO = {"magic": CHAT.magic, "version": 1, "secret": "", "client": "seed"}
ASK = {"keep": 0, "max_tokens": 5, "ignore_end": 0, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 1,
       "counter": 0, "ids": [5, 6, 7]}  # fmt: skip
SLOW = 4  # a client that reads only when told to
BLOCK = 32  # tokens of a cache's block
BAD_ASKS: tuple[dict[str, Any], ...] = (
    {"keep": 9}, {"max_tokens": 0}, {"ignore_end": 2}, {"ids": []}, {"ids": [1 << 31]}, {"ids": [5] * 97},
    {"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 2.0}, {"top_k": 1 << 31},
)  # fmt: skip


def limits(
    connections: int = 8, conversations: int = 4, max_tokens: int = 100, times: int = 0, secret: int = 0
) -> bytes:
    """The first bytes of an input. `times`: two bits each for message, stall, idle, answer: no limit, 50, 1000,
    10000 ms."""
    return bytes((connections - 1, conversations - 1, max_tokens - 1, times, secret))


def service_seeds(model_id: str, block_bytes: int) -> dict[str, bytes]:
    """By name. `block_bytes`: of a state of BLOCK tokens."""
    do, frame, raw = CHATS.do, CHATS.frame, CHATS.raw
    come = do("open") + do("hello")
    first, turns = frame("generate", **ASK), do("turns", number=99)
    state = {"model_id": model_id, "kv_len": BLOCK, "bytes": block_bytes}
    seeds = {
        "talk": limits() + do("open") + frame("hello", **HELLO) + first + turns
        + frame("generate", **ASK | {"keep": 3, "temperature": 0.9, "top_p": 0.9, "top_k": 40, "ignore_end": 1})
        + do("turns", number=2) + frame("ping", nonce=3) + frame("stats") + frame("cancel") + frame("reset", keep=2)
        + frame("save") + turns + frame("reset", keep=0) + frame("save") + frame("cancel") + frame("goodbye")
        + do("close"),
        "long prompt": limits(max_tokens=20) + come + frame("generate", **ASK | {"ids": [9] * 70})
        + do("turns", number=1) + frame("cancel") + do("generate", 0, 63 << 5 | 31 << 11) + turns + turns,
        "context": limits() + come + frame("generate", **ASK | {"ids": [3] * 90, "max_tokens": 50, "ignore_end": 1})
        + turns + frame("generate", **ASK | {"keep": 96}),
        "end token": limits() + come + frame("generate", **ASK | {"max_tokens": 90}) + turns,
        "no bytes to load": limits() + come + frame("load", **state | {"kv_len": 0, "bytes": 0}) + frame("stats"),
        "byte by byte": limits() + do("open") + b"".join(raw(bytes([b])) for b in CHAT.encode("hello", **HELLO)),
        "many in one": limits() + do("open") + raw(b"".join((
            CHAT.encode("hello", **HELLO), CHAT.encode("generate", **ASK), CHAT.encode("ping", nonce=1) * 3,
            CHAT.encode("stats"), CHAT.encode("cancel"), CHAT.encode("reset", keep=0)))) + turns,
        "secret": limits(secret=1) + come + do("open", 1) + frame("hello", 1, **HELLO | {"secret": SECRET})
        + do("open", 2) + frame("hello", 2, **HELLO | {"secret": "other!"}) + do("ask_witness", number=200) + turns,
    }  # fmt: skip
    return seeds | _states(state) | _crowds() | _ends() | _mistakes()


def _states(state: dict[str, Any]) -> dict[str, bytes]:
    do, frame = CHATS.do, CHATS.frame
    come, turns = do("open") + do("hello"), do("turns", number=9)
    half = do("data", number=state["bytes"] // 4)
    return {
        "load": limits() + come + frame("load", **state) + half + turns + half + turns + frame("stats")
        + frame("generate", **ASK | {"keep": BLOCK}) + turns,
        "load in odd pieces": limits() + come + do("load", number=3 * BLOCK) + do("data", 0, 9999, 1) * 2 + turns
        + do("data", 0, BIG) * 3 + turns,
        "refused load": limits() + come + frame("load", **state | {"model_id": "x"}) + half * 2 + frame("ping", nonce=1)
        + frame("load", **state | {"kv_len": 200}) + half * 2 + frame("load", **state | {"bytes": 2})
        + frame("data", bytes=b"12") + frame("load", **state | {"bytes": 1 << 62}),
        "not finite": limits() + come + frame("load", **state) + do("data", 0, 100, 2) + turns,
        "too many data": limits() + come + frame("load", **state | {"bytes": 2}) + frame("data", bytes=b"123"),
        "failed load": limits() + come + frame("load", **state) + half + do("fail") + turns + half + frame("stats"),
        "failed save": limits() + come + frame("generate", **ASK) + turns + frame("save") + do("fail") + turns,
        "slow save": limits(times=0b0100) + do("open", SLOW) + do("hello", SLOW) + frame("generate", SLOW, **ASK)
        + turns + frame("save", SLOW) + turns + frame("ping", SLOW, nonce=1) + do("read_some", SLOW, 300)
        + do("clock", 0, 40) + do("read_some", SLOW, BIG) + turns + do("clock", 0, 51) + turns,
        "late data": limits(times=0b01) + come + frame("load", **state) + half + turns + do("clock", 0, 51),
    }  # fmt: skip


def _crowds() -> dict[str, bytes]:
    do, frame = CHATS.do, CHATS.frame
    everyone = b"".join(do("open", c) + do("hello", c) for c in range(4))
    asked = b"".join(do("generate", c, 100 * c + 2000, c) for c in range(4))
    return {
        "in turns": limits() + everyone + do("ask_witness", number=3000) + asked + do("turns", number=30)
        + do("ask_witness", number=1) + do("turns", number=100),
        "no cache": limits(conversations=1, times=0b100000) + everyone + asked + do("turns", number=4)
        + frame("load", 1, model_id="", kv_len=0, bytes=0) + frame("reset", 0, keep=0) + asked,
        "no connection": limits(connections=2) + everyone + do("ask_witness"),
        "left in a turn": limits(conversations=2) + everyone + do("ask_witness", number=9000) + do("hold")
        + asked + do("hold") * 2 + do("close", 0) + do("hold") * 2 + frame("goodbye", 1) + do("hold") * 2
        + frame("cancel", 2) + do("hold") * 2 + do("turns", number=100),
        "device fails": limits() + everyone + do("ask_witness", number=9000) + asked + do("turns", number=3)
        + do("fail", number=1) + do("turns", number=20) + do("fail") + do("turns", number=20)
        + do("ask_witness", number=9000) + do("turns", number=20),
    }  # fmt: skip


def _ends() -> dict[str, bytes]:
    do, frame, raw = CHATS.do, CHATS.frame, CHATS.raw
    come, wait = do("open") + do("hello"), do("clock", 0, 51)
    return {
        "no hello": limits(times=0b01) + do("open") + wait + do("clock", 0, 3000),
        "half a message": limits(times=0b01) + come + raw(CHAT.encode("ping", nonce=1)[:9]) + wait,
        "idle": limits(times=0b010000) + come + frame("generate", **ASK) + do("turns", number=99) + wait,
        "slow answer": limits(times=0b01000000) + come + frame("generate", **ASK) + do("turns", number=1) + wait
        + frame("generate", **ASK) + do("hold") + wait + do("hold") + do("ask_witness", number=1) + wait,
        "never reads": limits(times=0b0100) + do("open", SLOW) + do("hello", SLOW) + wait,
        "shutdown": limits() + come + do("open", 1) + do("open", 2) + do("hello", 2) + do("load", 2, 9)
        + do("open", 3) + do("hello", 3) + do("generate", 3, 2000) + frame("generate", **ASK) + do("hold")
        + do("shutdown", 0, BIG) + do("hold") + do("open", 1) + do("hello", 1) + do("clock", 0, 3000),
    }  # fmt: skip


def _mistakes() -> dict[str, bytes]:
    do, frame, raw = CHATS.do, CHATS.frame, CHATS.raw
    come = do("open") + do("hello")
    answering = come + do("generate", 0, 5000)
    load = frame("load", model_id="", kv_len=0, bytes=8)
    broken = {
        "too large": struct.pack("<IHH", 1 << 31, 2, 0), "reserved": struct.pack("<IHH", 8, 8, 1),
        "unknown": struct.pack("<IHH", 0, 99, 0), "short": struct.pack("<IHH", 7, 8, 0),
        "server": CHAT.encode("pong", nonce=1), "http": b"GET / HTTP/1.1\r\n\r\n",
        "counts": struct.pack("<IHH", 49, 2, 0) + bytes(45) + struct.pack("<I", 1 << 30),
        "text": struct.pack("<IHH", 16, 6, 0) + struct.pack("<H", 4) + b"\xff\xfe\xfd\xfc" + bytes(10),
    }  # fmt: skip
    hellos: dict[str, dict[str, Any]] = {
        "magic": {"magic": 1}, "version": {"version": 0}, "later": {"version": 99}, "long": {"client": "x" * 5000},
        "name": {"client": "\x07\u00fc" * 40},
    }  # fmt: skip
    seeds = {f"broken {name}": limits() + come + raw(data) for name, data in broken.items()}
    seeds |= {f"hello {name}": limits() + do("open") + frame("hello", **HELLO | change)
              for name, change in hellos.items()}  # fmt: skip
    return seeds | {
        "no values": limits() + come + b"".join(frame("generate", **ASK | change) for change in BAD_ASKS)
        + frame("reset", keep=5) + frame("load", model_id="", kv_len=0, bytes=0),
        "hello twice": limits() + come + do("hello"),
        "ping first": limits() + do("open") + frame("ping", nonce=1),
        "data without load": limits() + come + frame("data", bytes=b"1"),
        "empty data": limits() + come + load + frame("data", bytes=b""),
        **{f"{name} while answering": limits() + answering + do("turns", number=2) + request
           for name, request in {"reset": frame("reset", keep=0), "save": frame("save"), "load": load,
                                 "generate": frame("generate", **ASK)}.items()},
    }  # fmt: skip


OPEN: dict[str, Any] = {
    "magic": DEVICE.magic, "version": 1, "secret": "", "numbers": [2, 7, 2, 32, 32, 8, 8, 4, 8192, 4096, 0xFFFFFFFF],
    "opcode_mask": [(1 << 64) - 1, 0, 0, 0], "memories": [0, 1 << 20, 2, 16, 1 << 21, 1 << 20, 1, 32],
}  # fmt: skip
BAD_OPENS: dict[str, dict[str, Any]] = {
    "magic": {"magic": 1}, "version 0": {"version": 0}, "later version": {"version": 9}, "secret": {"secret": "other"},
    "few numbers": {"numbers": [2] * 10}, "no mask": {"opcode_mask": []}, "half a memory": {"memories": [0, 1, 2]},
    "five memories": {"memories": [0] * 20}, "no channels": {"memories": [0, 4096, 0, 16]},
    "no port": {"memories": [0, 4096, 1, 0]}, "odd capacity": {"memories": [0, 4097, 2, 16]},
    "many channels": {"memories": [0, 4096, 1 << 32, 16]}, "channels": {"memories": [0, 4096, (1 << 32) - 1, 1 << 31]},
    "overlap": {"memories": [0, 4096, 1, 16] * 2}, "at the end": {"memories": [(1 << 64) - 16, 4096, 1, 16]},
    "large": {"memories": [0, 1 << 40, 1, 16]}, "sum": {"memories": [0, 1 << 63, 1, 16] * 2},
    "no memory": {"memories": []},
}  # fmt: skip
PAGE = 4096


def device_seeds(launch: int, control: int) -> dict[str, bytes]:
    """By name. `launch`, `control`: offsets of these registers."""
    do, frame, raw = DEVICES.do, DEVICES.frame, DEVICES.raw
    come = do("connect") + do("open") + do("poll", 0, 3)
    wait, read = do("poll", 0, 3), do("read")
    seeds = {
        "talk": do("connect") + frame("open", **OPEN) + do("poll", 0, 3) + read + frame("info")
        + frame("option", name="threads", value="2") + frame("write", address=64, bytes=b"12345678")
        + frame("read", address=60, count=20) + frame("csr_read", offset=0) + frame("csr_write", offset=0x20, value=1)
        + frame("run", max_commands=2) + wait + frame("run", max_commands=3) + wait + frame("counters") + read
        + do("close"),
        "image": come + frame("map", address=0, channel=1, total=2 * PAGE) + do("image", 0, PAGE) * 2
        + frame("read", address=0, count=100) + frame("map", address=0, channel=0, total=0)
        + frame("map", address=1, channel=9, total=1) + frame("image", bytes=b"1") + read,
        "image out of turn": come + frame("image", bytes=b"1") + frame("map", address=0, channel=0, total=2)
        + frame("image", bytes=b"123") + frame("map", address=0, channel=0, total=9) + frame("info")
        + frame("image", bytes=b"1") + read,
        "images without end": come + frame("map", address=0, channel=0, total=1 << 21) * 2 + read,
        "stop": come + frame("run", max_commands=0) + do("poll", 0, 4) + frame("stop") + wait + frame("stop")
        + frame("info") + read,
        "reset": come + frame("csr_write", offset=control, value=2) + frame("run", max_commands=0) + wait + read,
        "request in a run": come + frame("run", max_commands=0) + frame("info") + wait + read,
        "left in a run": come + frame("run", max_commands=0) + do("poll", 0, 3) + do("close"),
        "closed in a run": come + frame("run", max_commands=0) + do("poll", 0, 3) + do("shut") + do("close", 0, 0, 1),
        "launch": do("connect") + do("open", 0, 0, 1) + frame("csr_write", offset=launch, value=1) + wait
        + frame("csr_write", offset=launch, value=2) + wait + read,
        "busy": come + do("connect", 1) + do("open", 1) + do("poll", 0, 3) + do("read", 1) + do("close")
        + do("connect", 2) + do("open", 2) + do("poll", 0, 3) + do("read", 2),
        "late": do("connect") + do("poll") + do("clock", 0, 5001) + do("poll", 0, 2) + come
        + raw(DEVICE.encode("info")[:5]) + do("clock", 0, 10001) + do("poll", 0, 2),
        "never reads": come + frame("read", address=0, count=1 << 20) * 9 + do("clock", 0, 9999) + do("poll")
        + do("clock", 0, 10001) + do("poll", 0, 2),
        "outside": come + frame("read", address=1 << 60, count=1) + frame("read", address=0, count=BIG << 16)
        + frame("write", address=(1 << 64) - 1, bytes=b"12") + frame("csr_read", offset=3)
        + frame("csr_write", offset=0xFFFFFFFC, value=1) + do("write", 0, 60000, 3) + do("write", 0, 60000, 60) + read,
        "secret": b"\1" + come + do("connect", 1) + frame("open", 1, **OPEN | {"secret": SECRET})
        + do("connect", 2) + frame("open", 2, **OPEN | {"secret": "other"}) + do("poll", 0, 3) + do("read", 2),
        "crowd": come + do("crowd", 0, BIG) + frame("info") + read,
        "long first message": do("connect") + raw(struct.pack("<IHH", 1 << 18, 1, 0)) + read,
        "open twice": come + do("open"),
        "info first": do("connect") + frame("info") + do("read"),
        "garbage": do("connect") + raw(b"GET / HTTP/1.1\r\n\r\n") + do("poll", 0, 2) + do("clock", 0, 2001),
        "too large": come + raw(struct.pack("<IHH", 1 << 31, 4, 0)) + read,
        "of a server": come + raw(DEVICE.encode("data", bytes=b"1")) + read,
        "byte by byte": do("connect") + b"".join(raw(bytes([b])) for b in DEVICE.encode("open", **OPEN)) + read,
    }  # fmt: skip
    seeds |= {f"open {name}": do("connect") + frame("open", **OPEN | change) + do("poll", 0, 3) + read
              for name, change in BAD_OPENS.items()}  # fmt: skip
    return {name: (b"" if name == "secret" else b"\0") + seed for name, seed in seeds.items()}


def dictionary(words: Sequence[bytes]) -> str:
    """Of libFuzzer, a word a line."""
    return "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words)


def service_words(model_id: str) -> list[bytes]:
    doubles = [struct.pack("<d", number) for number in (1.0, 0.5, float("nan"), float("inf"))]
    return [struct.pack("<I", CHAT.magic), model_id.encode(), SECRET.encode(), b"\xff" * 4, b"\0\x7c", *doubles]


def device_words() -> list[bytes]:
    numbers = struct.pack("<11I", *OPEN["numbers"])
    return [struct.pack("<I", DEVICE.magic), SECRET.encode(), numbers, struct.pack("<Q", 1 << 20), b"\xff" * 8]
