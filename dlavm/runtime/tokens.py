"""Text to token ids and back, with the tokenizer and the chat template that the artifact carries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from dlavm.pack.artifact import TOKENIZER, Artifact
from dlavm.pack.tokenizer import load_core, parse_object, read_object, read_text, template_of
from dlavm.support.atomic import sha256_file
from dlavm.support.errors import DlavmError

Message = Mapping[str, str]  # role, content

TOKENIZER_JSON = "tokenizer.json"
SEARCH = ("", "*/", "output/*/")  # folders of artifacts
INCOMPLETE = "\ufffd"  # how a decoder shows bytes that are not (yet) a character


class Tokenizer:
    """A tokenizer.json (its text) with its tokenizer_config.json and the Jinja text of the chat template."""

    def __init__(
        self, text: str, config: Mapping[str, Any], template: str | None = None, where: str = "tokenizer"
    ) -> None:
        self.where = where
        self.config = config
        self.template = template
        self._core = load_core(text, where)
        self._core.no_truncation()
        self._core.no_padding()

    @property
    def bos_token(self) -> str:
        return _token_text(self.config.get("bos_token"))

    @property
    def eos_token(self) -> str:
        return _token_text(self.config.get("eos_token"))

    @property
    def vocab_size(self) -> int:
        """Ids that the tokenizer knows; a model may have more (padding)."""
        return int(self._core.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids of `text`.

        With `special` they begin as the model expects a document to begin: with the bos token if tokenizer_config says
        `add_bos_token`, without if it denies it, and as tokenizer.json itself says if the key is missing.
        """
        add_bos = self.config.get("add_bos_token")
        by_itself = special and add_bos is None
        try:
            ids = list(self._core.encode(text, add_special_tokens=by_itself).ids)
        except (TypeError, UnicodeEncodeError):
            raise DlavmError(f"{self.where}: expected a text of Unicode characters, got {text[:80]!r}") from None
        return self._bos_ids() + ids if special and add_bos else ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of `ids`; bytes that form no character become U+FFFD."""
        return str(self._core.decode(list(ids), skip_special_tokens=skip_special))

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The conversation as one text, by the chat template. Raises DlavmError without one or where it refuses."""
        if self.template is None:
            raise DlavmError(f"{self.where}: expected a chat template, got none; use the raw prompt")
        try:
            compiled = _environment().from_string(self.template)
            return compiled.render(messages=list(messages), add_generation_prompt=add_generation_prompt,
                                   bos_token=self.bos_token, eos_token=self.eos_token)
        except Exception as error:  # a template is a program of the model's authors: it can raise anything
            raise DlavmError(f"{self.where}: chat template: {error}") from None

    def chat_ids(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
        """Token ids of the rendered conversation; the template itself writes the special tokens."""
        return self.encode(self.render(messages, add_generation_prompt), special=False)

    def prompt_ids(self, text: str, raw: bool = False) -> list[int]:
        """Ids of a single prompt: as a user's turn if there is a chat template and not `raw`, else the text itself."""
        if raw or self.template is None:
            return self.encode(text)
        return self.chat_ids([{"role": "user", "content": text}])

    def _bos_ids(self) -> list[int]:
        token = self._core.token_to_id(self.bos_token)
        if token is None:
            raise DlavmError(f"{self.where}: bos_token: expected a token of tokenizer.json, got {self.bos_token!r}")
        return [int(token)]


class StreamDecoder:
    """Turns ids into text one by one; a character whose bytes are spread over several tokens comes out whole."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._ids: list[int] = []
        self._start = 0  # tokens before it do not influence the text after `_done`
        self._done = 0  # tokens whose text was handed out

    def push(self, token: int) -> str:
        """The text that `token` completes, possibly none."""
        self._ids.append(token)
        text = self._pending()
        if text.endswith(INCOMPLETE):
            return ""
        # The tokens of the last piece stay as context: a decoder strips the space of the first token that it sees.
        if text:
            self._start = self._done
        self._done = len(self._ids)
        return text

    def flush(self) -> str:
        """What is left at the end, with U+FFFD for a character that never was completed."""
        text = self._pending()
        self._start = self._done = len(self._ids)
        return text

    def _pending(self) -> str:
        known = self._tokenizer.decode(self._ids[self._start : self._done], self._skip_special)
        return self._tokenizer.decode(self._ids[self._start :], self._skip_special)[len(known) :]


def load_tokenizer(artifact: Artifact) -> Tokenizer | None:
    """The tokenizer of an artifact, or None for a model that came without one (it takes and gives ids only)."""
    path = artifact.tokenizer_path
    if path is None:
        return None
    return Tokenizer(read_text(path), artifact.tokenizer_config, artifact.chat_template, str(path))


def folder_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder with tokenizer.json and what belongs to it."""
    config, template = _object(folder / "tokenizer_config.json"), folder / "chat_template.jinja"
    text = read_text(template) if template.is_file() else template_of(config)
    path = folder / TOKENIZER_JSON
    return Tokenizer(read_text(path), config, text, str(path))


def text_tokenizer(files: Mapping[str, str], where: str) -> Tokenizer:
    """The tokenizer of the texts of these files, by name."""
    name = "tokenizer_config.json"
    config = parse_object(name, files.get(name, "{}"), where)
    return Tokenizer(files[TOKENIZER_JSON], config, files.get("chat_template.jinja", template_of(config)), where)


def folder_defaults(folder: Path) -> Mapping[str, Any]:
    """generation_config.json of such a folder; empty where there is none."""
    return _object(folder / "generation_config.json")


def find_tokenizer(tokenizer_id: str, folder: Path | None = None) -> Path:
    """The folder whose tokenizer.json has the SHA-256 `tokenizer_id`.

    It is looked for in `folder` (an artifact, or where tokenizer.json itself is), else in the artifacts here and in
    ./output. Raises DlavmError if it is not there: with another one, the same tokens would be other texts.
    """
    if folder is not None:
        found = next((p for p in (folder / TOKENIZER, folder) if (p / TOKENIZER_JSON).is_file()), None)
        if found is None:
            raise DlavmError(f"--tokenizer {folder}: expected an artifact or a folder with {TOKENIZER_JSON}, got none")
        got = sha256_file(found / TOKENIZER_JSON)
        if tokenizer_id and got != tokenizer_id:
            raise DlavmError(f"--tokenizer {folder}: expected {TOKENIZER_JSON} with SHA-256 {tokenizer_id}, which the "
                             f"server's model was built with, got {got!r}")
        return found
    if not tokenizer_id:
        raise DlavmError("tokenizer: expected a server's model with one, got one without; --tokenizer DIR names one")
    for pattern in SEARCH:
        for path in sorted(Path().glob(f"{pattern}{TOKENIZER}/{TOKENIZER_JSON}")):
            if sha256_file(path) == tokenizer_id:
                return path.parent
    raise DlavmError(f"tokenizer: expected the artifact of the server's model here or in ./output (tokenizer.json with "
                     f"SHA-256 {tokenizer_id[:64]}), got none; --tokenizer DIR names it")


def _object(path: Path) -> Mapping[str, Any]:
    return read_object(path) if path.is_file() else {}


def _token_text(value: Any) -> str:
    """A special token of tokenizer_config: a text, or an object with its `content`."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _environment() -> ImmutableSandboxedEnvironment:
    """As transformers sets it up, which is what templates are written for."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = _raise_exception
    environment.filters["tojson"] = _tojson
    return environment


def _raise_exception(message: str) -> None:
    raise ValueError(message)


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
