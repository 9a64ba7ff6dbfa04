"""The tokenizer of a checkpoint directory: tokenizer.json, or one made of vocab.json and merges.txt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from dlavm.frontend.jsonfile import read_json
from dlavm.support.errors import DlavmError

TOKENIZER, VOCAB, MERGES, SENTENCEPIECE = "tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model"
BESIDE = ("tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "chat_template.jinja")
IDS_ONLY = "without a tokenizer, so that it takes and gives ids only"
# How Qwen2 cuts texts, from transformers/convert_slow_tokenizer.py.
QWEN2_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "additional_special_tokens")


def tokenizer_of(directory: Path, family: str = "") -> tuple[Path | Mapping[str, str] | None, tuple[str, ...]]:
    """The directory, if it holds a tokenizer.json, or the texts of one that is made of its files; otherwise None, and
    where there are other files of a tokenizer a note that says what is missing. `family` is the model_type: it tells
    how texts are cut where no file does."""
    if (directory / TOKENIZER).is_file():
        return directory, ()
    if not any((directory / name).is_file() for name in (VOCAB, MERGES, SENTENCEPIECE)):
        return None, ()
    try:
        return _converted(directory, family), ()
    except DlavmError as error:
        return None, (f"{IDS_ONLY}: {error}",)


def _converted(directory: Path, family: str) -> Mapping[str, str]:
    vocab, merges = directory / VOCAB, directory / MERGES
    if not (vocab.is_file() and merges.is_file()):
        raise DlavmError(f"{directory}: expected {TOKENIZER}, or {VOCAB} and {MERGES}, got {_found(directory)}")
    config = _object(directory / "tokenizer_config.json")
    kind = str(config.get("tokenizer_class", FAMILIES.get(family, ""))).removesuffix("Fast")
    if kind not in KINDS:
        raise DlavmError(f"{directory}: tokenizer_class expected one of {list(KINDS)!r} to make {TOKENIZER} of "
                         f"{VOCAB} and {MERGES}, got {kind!r}; {_advice(directory)}")  # fmt: skip
    try:
        core = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    except Exception as error:  # the library raises bare Exceptions
        shown = " ".join(str(error).split())
        raise DlavmError(f"{vocab}: expected a vocabulary that fits {MERGES}, got {shown!r}") from None
    KINDS[kind](core, bool(config.get("add_prefix_space", False)))
    core.decoder, core.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    _add_tokens(core, directory, config)
    return {TOKENIZER: core.to_str(), **_texts(directory)}


def _gpt2(core: Tokenizer, prefix_space: bool) -> None:
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)


def _qwen2(core: Tokenizer, prefix_space: bool) -> None:
    core.normalizer = normalizers.NFC()
    pieces = pre_tokenizers.Split(Regex(QWEN2_PIECES), behavior="isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([pieces, letters])


KINDS: dict[str, Callable[[Tokenizer, bool], None]] = {
    "GPT2Tokenizer": _gpt2,
    "CodeGenTokenizer": _gpt2,
    "Qwen2Tokenizer": _qwen2,
}
FAMILIES = {
    "gpt2": "GPT2Tokenizer",
    "gptj": "GPT2Tokenizer",
    "codegen": "CodeGenTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "qwen3_moe": "Qwen2Tokenizer",
}


def _add_tokens(core: Tokenizer, directory: Path, config: Mapping[str, Any]) -> None:
    """Tokens beyond the vocabulary in the order of their ids, and which of all are special."""
    added: dict[int, AddedToken] = {}
    decoder = config.get("added_tokens_decoder")
    for number, token in (decoder if isinstance(decoder, dict) else {}).items():
        if not number.isdigit() or not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise DlavmError(f"{directory}: added_tokens_decoder expected tokens by id, got {number!r}: {token!r}")
        flags = {name: bool(token.get(name, False)) for name in ("lstrip", "rstrip", "single_word", "normalized")}
        added[int(number)] = AddedToken(token["content"], special=bool(token.get("special", False)), **flags)
    for content, number in _object(directory / "added_tokens.json").items():
        if not isinstance(number, int):
            raise DlavmError(f"{directory}: added_tokens.json expected ids, got {content!r}: {number!r}")
        added.setdefault(number, AddedToken(content, special=True, normalized=False))
    for number, token in sorted(added.items()):
        core.add_tokens([token])
        if core.token_to_id(token.content) != number:
            raise DlavmError(
                f"{directory}: added token {token.content!r} expected the next free id, "
                f"{core.token_to_id(token.content)}, got {number}"
            )
    special = {**_object(directory / "special_tokens_map.json"), **config}
    names = [name for key in SPECIAL for name in _contents(special.get(key))]
    known = [name for name in names or ["<|endoftext|>"] if core.token_to_id(name) is not None]
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in known])


def _contents(value: object) -> list[str]:
    if isinstance(value, list):
        return [name for one in value for name in _contents(one)]
    if isinstance(value, dict):
        value = value.get("content")
    return [value] if isinstance(value, str) else []


def _texts(directory: Path) -> dict[str, str]:
    return {name: (directory / name).read_text(encoding="utf-8") for name in BESIDE if (directory / name).is_file()}


def _object(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _found(directory: Path) -> str:
    if (directory / SENTENCEPIECE).is_file():
        return f"{SENTENCEPIECE}; {_advice(directory)}"
    found = [name for name in (VOCAB, MERGES) if (directory / name).is_file()]
    return f"{found[0]} alone"


def _advice(directory: Path) -> str:
    return (f"transformers makes one: AutoTokenizer.from_pretrained({str(directory)!r})"
            f".save_pretrained({str(directory)!r})")  # fmt: skip
