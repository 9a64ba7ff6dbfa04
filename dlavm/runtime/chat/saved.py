"""A conversation in a file: a zip with chat.json (turns, tokens in the cache, sampling) and kv.bin (the cache).

Nothing in it is compressed, so a file is never larger in memory than on disk.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlavm.runtime.backend import ModelFacts
from dlavm.runtime.sampling import Sampler
from dlavm.support.errors import DlavmError

FORMAT = "dlavm chat"
VERSION = 1
CHAT, STATE = "chat.json", "kv.bin"
MAX_CHAT_BYTES = 1 << 26
BROKEN = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile)  # what zipfile raises


@dataclass(frozen=True)
class Turn:
    """A user's text and the answer. `ids` are the tokens of both for a model without a chat template, else none."""

    text: str
    answer: str
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class SavedChat:
    """Everything of a conversation but the bytes of the cache, which hold `ids`."""

    model: str
    model_id: str
    system: str
    turns: tuple[Turn, ...]
    ids: tuple[int, ...]
    sampler: Sampler
    max_tokens: int


def write_chat(path: Path, chat: SavedChat, state: bytes) -> None:
    """Writes the file, private to the user, whole or not at all; the same bytes for the same conversation.

    Raises DlavmError where it cannot be written, and for a path at which something else than a saved chat is.
    """
    final = Path(os.path.realpath(path.expanduser()))
    if final.exists() and not _is_chat(final):
        raise DlavmError(f"{path}: expected a free name or a saved chat to replace, got something else")
    text = json.dumps({"format": FORMAT, "version": VERSION, **asdict(chat)}, indent=1)
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{final.name}.", dir=final.parent)
        with os.fdopen(descriptor, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(zipfile.ZipInfo(CHAT), text)  # ZipInfo: without the time of day
                archive.writestr(zipfile.ZipInfo(STATE), state)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)
    except OSError as error:
        raise DlavmError(f"{path}: expected a file that can be written, got {error.strerror!r}") from None
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def read_chat(path: Path, model: ModelFacts) -> tuple[SavedChat, bytes]:
    """A saved chat with this model, and the state of its cache.

    Raises DlavmError for a file that is none, is damaged, or belongs to another model.
    """
    try:
        with _open(path.expanduser()) as archive:
            _check_members(archive, path)
            raw = json.loads(archive.read(CHAT))
            chat = _chat_of(raw, model, str(path))
            return chat, archive.read(STATE)
    except DlavmError:
        raise
    except (*BROKEN, RecursionError) as error:
        shown = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise DlavmError(f"{path}: expected a chat that /save wrote, got {shown!r}") from None


def _open(path: Path) -> zipfile.ZipFile:
    """Raises one of BROKEN. What has no length is not read: zipfile looks for the end of it, and may find none."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ValueError("no regular file")
    return zipfile.ZipFile(path)


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    names = sorted(member.filename for member in members)
    if names != [CHAT, STATE]:
        raise DlavmError(f"{path}: expected a zip of {CHAT} and {STATE}, got {', '.join(names)[:80] or 'an empty one'}")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise DlavmError(f"{path}: {member.filename}: expected bytes that are not compressed, got compressed ones")
        if member.filename == CHAT and member.file_size > MAX_CHAT_BYTES:
            raise DlavmError(f"{path}: {CHAT}: expected at most {MAX_CHAT_BYTES} bytes, got {member.file_size}")


def _is_chat(path: Path) -> bool:
    try:
        with _open(path) as archive:
            _check_members(archive, path)
            return bool(json.loads(archive.read(CHAT))["format"] == FORMAT)
    except (*BROKEN, DlavmError, RecursionError, TypeError, KeyError):
        return False


# Reading chat.json: every key, its type and range.


def _chat_of(raw: Any, model: ModelFacts, where: str) -> SavedChat:
    where = f"{where}: {CHAT}"
    if not isinstance(raw, dict) or (raw.get("format"), raw.get("version")) != (FORMAT, VERSION):
        got = (raw.get("format"), raw.get("version")) if isinstance(raw, dict) else type(raw).__name__
        raise DlavmError(f"{where}: expected format {FORMAT!r} version {VERSION}, got {got!r}")
    name, model_id = _text(raw, "model", where), _text(raw, "model_id", where)
    if model_id != model.model_id:
        raise DlavmError(f"{where}: expected a chat with {model.name} (model {model.model_id[:12]}), got one with "
                         f"{name[:40]!r} (model {model_id[:12]!r})")  # fmt: skip
    turns = _list(raw, "turns", where)
    if not all(isinstance(turn, dict) for turn in turns):
        raise DlavmError(f"{where}: turns: expected objects, got others")
    ids = _ids(raw, "ids", model.vocab_size, where)
    if len(ids) > model.context:
        raise DlavmError(f"{where}: ids: expected at most {model.context} tokens, got {len(ids)}")
    return SavedChat(
        name, model_id, _text(raw, "system", where),
        tuple(Turn(_text(t, "text", where), _text(t, "answer", where), _ids(t, "ids", model.vocab_size, where))
              for t in turns),
        ids, _sampler(raw.get("sampler"), where), _count(raw.get("max_tokens"), f"{where}: max_tokens"),
    )  # fmt: skip


def _sampler(raw: Any, where: str) -> Sampler:
    keys = set(asdict(Sampler()))
    if not isinstance(raw, dict) or set(raw) != keys:
        raise DlavmError(f"{where}: sampler: expected the keys {', '.join(sorted(keys))}, got {str(raw)[:80]}")
    try:
        return Sampler(**raw)
    except DlavmError as error:
        raise DlavmError(f"{where}: {error}") from None


def _text(raw: Any, key: str, where: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str):
        raise DlavmError(f"{where}: {key}: expected a text, got {str(value)[:40]!r}")
    return value


def _list(raw: Any, key: str, where: str) -> Sequence[Any]:
    value = raw.get(key)
    if not isinstance(value, list):
        raise DlavmError(f"{where}: {key}: expected a list, got {str(value)[:40]!r}")
    return value


def _ids(raw: Any, key: str, vocab_size: int, where: str) -> tuple[int, ...]:
    ids = _list(raw, key, where)
    for token in ids:
        if type(token) is not int or not 0 <= token < vocab_size:
            raise DlavmError(f"{where}: {key}: expected tokens in 0..{vocab_size - 1}, got {str(token)[:40]!r}")
    return tuple(ids)


def _count(value: Any, where: str) -> int:
    if type(value) is not int or value < 1:
        raise DlavmError(f"{where}: expected at least 1, got {str(value)[:40]!r}")
    return value
