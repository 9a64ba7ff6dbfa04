"""Messages of the wire protocols with values at their limits."""

from __future__ import annotations

import random
from typing import Any

from dlavm.wire import CHAT, DEVICE
from dlavm.wire.protocol import Field, MessageType, Protocol

TEXTS = ("", "x", "no\0end", "größer", "語", "\U0010ffff\ud7ff\ue000", "a" * 65535)
BYTES = (b"", b"\0", bytes(range(256)))
DOUBLES = (0.0, -0.0, 1.0, 5e-324, -1.7976931348623157e308, float("inf"), float("nan"))

EVERY_MESSAGE = [(p, m) for p in (CHAT, DEVICE) for m in p.messages.values()]
MESSAGE_IDS = [f"{p.name}-{m.name}" for p, m in EVERY_MESSAGE]


def some_value(rng: random.Random, field: Field) -> Any:
    if field.enum:
        return rng.choice(list(field.labels))
    if field.type in ("u32s", "u64s"):
        largest = (1 << int(field.type[1:3])) - 1
        return [rng.choice((0, 1, largest, rng.randint(0, largest))) for _ in range(rng.choice((0, 1, 2, 9)))]
    if field.wire.largest is not None:
        return rng.choice((0, 1, field.wire.largest, rng.randint(0, field.wire.largest)))
    choices: dict[str, tuple[Any, ...]] = {"f64": DOUBLES, "text": TEXTS[:-1], "bytes": BYTES}
    return rng.choice(choices[field.type])


def some_fields(rng: random.Random, message: MessageType) -> dict[str, Any]:
    return {f.name: some_value(rng, f) for f in message.fields}


def some_frame(rng: random.Random, protocol: Protocol, sender: str) -> bytes:
    message = rng.choice([m for m in protocol.messages.values() if sender in m.senders])
    return protocol.encode(message.name, **some_fields(rng, message))
