"""A conversation at the terminal or over a pipe, with a model here or on a server."""

from dlavm.runtime.chat.conversation import Conversation
from dlavm.runtime.chat.repl import Repl, Script
from dlavm.runtime.chat.saved import SavedChat, Turn, read_chat, write_chat
from dlavm.runtime.chat.terminal import history, line_reader, prompt_reader, status

__all__ = [
    "Conversation", "Repl", "SavedChat", "Script", "Turn", "history", "line_reader", "prompt_reader", "read_chat",
    "status", "write_chat",
]  # fmt: skip
