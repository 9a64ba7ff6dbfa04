"""What an artifact carries of a model's tokenizer and generation defaults, and whether it can be used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from dlavm.support.errors import DlavmError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
MAX_TOP_K = (1 << 31) - 1


def read_text(path: Path) -> str:
    """The text of a file. Raises DlavmError naming it if it is not readable or not UTF-8."""
    try:
        return path.read_bytes().decode()  # line ends as they are
    except (OSError, UnicodeDecodeError) as error:
        raise DlavmError(f"{path}: expected a readable UTF-8 text, got {str(error)!r}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, of generation_config.json with usable values. Raises DlavmError naming the file."""
    return parse_object(path.name, read_text(path), str(path))


def parse_object(name: str, text: str, where: str) -> dict[str, Any]:
    """The JSON object in the text of the file `name`. Raises DlavmError as `read_object` does, from `where` on."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DlavmError(f"{where}: expected JSON, got a text that is not ({error})") from None
    if not isinstance(value, dict):
        raise DlavmError(f"{where}: expected a JSON object, got {type(value).__name__!r}")
    if name == "generation_config.json":
        check_sampling({k: v for k, v in value.items() if v is not None}, where)
    return value


def tokenizer_texts(source: Path | Mapping[str, str]) -> dict[str, str]:
    """Those of `TOKENIZER_FILES` that a directory holds, or that are given by name.

    Raises DlavmError naming the file that a run could not use.
    """
    found = {}
    for name in TOKENIZER_FILES:
        where = str(source / name) if isinstance(source, Path) else name
        if not isinstance(source, Path):
            text = source.get(name)
        else:
            text = read_text(source / name) if (source / name).is_file() else None
        if text is None:
            continue
        if name == "tokenizer.json":
            load_core(text, where)
        elif name.endswith(".json"):
            parse_object(name, text, where)
        found[name] = text
    return found


def load_core(text: str, where: str) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json. Raises DlavmError that begins with `where`."""
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exceptions
        shown = " ".join(str(error).split())
        raise DlavmError(f"{where}: expected a tokenizer that the tokenizers library loads, got {shown!r}") from None


def template_of(config: Mapping[str, Any]) -> str | None:
    """The Jinja text of the (default) chat template in a tokenizer_config.json."""
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def check_sampling(values: Mapping[str, Any], where: str) -> None:
    """Checks temperature, top_p, top_k and do_sample as far as `values` has them. Raises DlavmError naming the key."""
    if "temperature" in values and not (_finite(values["temperature"]) and values["temperature"] >= 0):
        raise DlavmError(f"{where}: temperature: expected a finite number of at least 0, got {values['temperature']!r}")
    if "top_p" in values and not (_finite(values["top_p"]) and 0 < values["top_p"] <= 1):
        raise DlavmError(f"{where}: top_p: expected a number above 0 and at most 1, got {values['top_p']!r}")
    if "top_k" in values:
        check_count("top_k", values["top_k"], MAX_TOP_K, where)
    if not isinstance(values.get("do_sample", False), bool):
        raise DlavmError(f"{where}: do_sample: expected true or false, got {values['do_sample']!r}")


def check_count(name: str, value: Any, limit: int, where: str) -> None:
    """Raises DlavmError unless `value` is an integer in 0..limit."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise DlavmError(f"{where}: {name}: expected an integer in 0..{limit}, got {value!r}")


def _finite(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False
