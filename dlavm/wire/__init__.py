"""The wire protocols: chat (a client and a model's server) and device (an engine on another machine). doc/protocol.md.

`CHAT.encode(name, **fields)` gives a frame, a `FrameReader` gives the messages of the other side.
"""

from dlavm.wire.frames import FrameReader
from dlavm.wire.load import load_protocol
from dlavm.wire.protocol import Message, Protocol, WireError

CHAT = load_protocol("chat")
DEVICE = load_protocol("device")

__all__ = ["CHAT", "DEVICE", "FrameReader", "Message", "Protocol", "WireError"]
