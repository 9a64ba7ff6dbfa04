"""A tokenizer.json and what belongs beside it, made from the metadata of a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from dlavm.frontend.gguf_metadata import Metadata
from dlavm.support.errors import DlavmError

MODEL, PRE, TOKENS = ".tokenizer.ggml.model", ".tokenizer.ggml.pre", ".tokenizer.ggml.tokens"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # types of tokens; others are unused ones (5) and bytes (6)
SPACE = "\u2581"  # how a SentencePiece vocabulary writes a space
_CASES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = rf"{_CASES}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_LLAMA3, _QWEN2 = _WORDS.replace("{}", "{1,3}"), _WORDS.replace("{}", "")
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CASES}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CASES}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)


@dataclass(frozen=True)
class Splitting:
    """How text is cut before byte-level BPE: by a pattern, or by GPT-2's, which the library has built in. `whole`: a
    piece that is a token is not cut, whatever the merges say; `bos`: texts begin with it unless the file denies it."""

    pattern: str = ""
    digits: bool = False  # each apart
    whole: bool = False
    bos: bool = False


# By tokenizer.ggml.pre, of the families that are read. Patterns are those that the models' authors published.
SPLITTINGS = {
    "gpt-2": Splitting(),
    **dict.fromkeys(("smollm", "starcoder", "refact"), Splitting(digits=True)),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3"), Splitting(_LLAMA3, whole=True, bos=True)),
    **dict.fromkeys(("dbrx", "smaug-bpe"), Splitting(_LLAMA3)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), Splitting(_QWEN2)),
    "tekken": Splitting(_TEKKEN, whole=True, bos=True),
    "gpt-4o": Splitting(_GPT4O),
}


def tokenizer_files(meta: Metadata) -> dict[str, str]:
    """tokenizer.json and tokenizer_config.json, by name, as text.

    Raises DlavmError naming the key for metadata that are wrong, and for tokenizers of other kinds.
    """
    if not meta.has(MODEL):
        raise meta.error(MODEL, "a tokenizer in the metadata")
    maker = MAKERS.get(meta.text(MODEL))
    if maker is None:
        raise meta.error(MODEL, f"one of {tuple(MAKERS)!r}")
    vocabulary = _Vocabulary(meta)
    try:
        tokenizer, bos = maker(meta, vocabulary)
        text = tokenizer.to_str(pretty=False)
        Tokenizer.from_str(text)
    except DlavmError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        shown = " ".join(str(error).split())
        expectation = "tokenizer expected one that the tokenizers library takes"
        raise DlavmError(f"{meta.path}: {expectation}, got {shown!r}") from None
    config = json.dumps(_config(meta, vocabulary, bos), indent=1) + "\n"
    return {"tokenizer.json": text, "tokenizer_config.json": config}


class _Vocabulary:
    """Texts by id, the ids of texts, and what kind of token each is."""

    def __init__(self, meta: Metadata) -> None:
        self.tokens = meta.texts(TOKENS)
        self.ids: dict[str, int] = {}
        for number, token in enumerate(self.tokens):
            if self.ids.setdefault(token, number) != number:
                raise DlavmError(f"{meta.path}: {meta.key(TOKENS)} expected tokens once, got {token[:80]!r} twice")
        kinds, count = ".tokenizer.ggml.token_type", len(self.tokens)
        self.kinds = meta.numbers(kinds, count, "iu").tolist() if meta.has(kinds) else [NORMAL] * count

    def of_kind(self, *kinds: int) -> Iterable[str]:
        return (token for token, kind in zip(self.tokens, self.kinds, strict=True) if kind in kinds)


def _with_added(tokenizer: Tokenizer, vocabulary: _Vocabulary) -> Tokenizer:
    """Control tokens are special; those that users defined stay whole wherever they stand in a text."""
    special = [AddedToken(t, normalized=False, special=True) for t in vocabulary.of_kind(CONTROL, UNKNOWN) if t]
    plain = [AddedToken(t, normalized=False, special=False) for t in vocabulary.of_kind(USER_DEFINED) if t]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(plain)
    return tokenizer


def _byte_level(meta: Metadata, vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    splitting = SPLITTINGS.get(meta.text(PRE, ""))
    if splitting is None:
        raise meta.error(PRE, f"one of {tuple(SPLITTINGS)!r}")
    merges = []
    for number, merge in enumerate(meta.texts(".tokenizer.ggml.merges")):
        left, space, right = merge.partition(" ")
        if not space or not left or not right:
            raise DlavmError(f"{meta.path}: merge {number} expected two tokens and a space, got {merge[:80]!r}")
        merges.append((left, right))
    tokenizer = Tokenizer(BPE(vocab=vocabulary.ids, merges=merges, ignore_merges=splitting.whole))
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if splitting.digits else []
    if splitting.pattern:
        steps.append(pre_tokenizers.Split(Regex(splitting.pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not splitting.pattern))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return _with_added(tokenizer, vocabulary), splitting.bos


def _sentence_piece(meta: Metadata, vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    """SentencePiece BPE: of all neighbours whose text is a token, those of the best score become one first. The library
    wants that as a list of merges: every way to cut a token in two that are tokens, in the order of the scores."""
    scores = meta.numbers(".tokenizer.ggml.scores", len(vocabulary.tokens), "f").tolist()
    prefix = meta.flag(".tokenizer.ggml.add_space_prefix", True)
    unknown = next(iter(vocabulary.of_kind(UNKNOWN)), None)
    tokenizer = Tokenizer(
        BPE(vocab=vocabulary.ids, merges=_merges(vocabulary, scores), unk_token=unknown, fuse_unk=True,
            byte_fallback=True)
    )  # fmt: skip
    spaces = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefix else spaces
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return _with_added(tokenizer, vocabulary), True


def _merges(vocabulary: _Vocabulary, scores: list[float]) -> list[tuple[str, str]]:
    found = []
    for number, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True)):
        if kind != NORMAL:
            continue
        for cut in range(1, len(token)):
            left, right = vocabulary.ids.get(token[:cut]), vocabulary.ids.get(token[cut:])
            if left is not None and right is not None:
                found.append((-scores[number], number, left, right))
    tokens = vocabulary.tokens
    return [(tokens[left], tokens[right]) for _, _, left, right in sorted(found)]


MAKERS: dict[str, Callable[[Metadata, _Vocabulary], tuple[Tokenizer, bool]]] = {
    "gpt2": _byte_level,
    "llama": _sentence_piece,
}


def _config(meta: Metadata, vocabulary: _Vocabulary, bos: bool) -> dict[str, Any]:
    config: dict[str, Any] = {"add_bos_token": meta.flag(".tokenizer.ggml.add_bos_token", bos)}
    for name, key in (("bos_token", "bos_token_id"), ("eos_token", "eos_token_id"), ("unk_token", "unknown_token_id")):
        number = token_id(meta, key)
        if number is not None:
            config[name] = vocabulary.tokens[number]
    config["add_bos_token"] = config["add_bos_token"] and "bos_token" in config
    if meta.has(".tokenizer.chat_template"):
        config["chat_template"] = meta.text(".tokenizer.chat_template")
    return config


def token_id(meta: Metadata, key: str) -> int | None:
    """The id under tokenizer.ggml.`key`, None where there is none. Raises DlavmError for one past the vocabulary."""
    name = f".tokenizer.ggml.{key}"
    if not meta.has(name):
        return None
    number = meta.count(name, least=0)
    if meta.has(TOKENS) and number >= len(meta.texts(TOKENS)):
        raise meta.error(name, f"an id below {len(meta.texts(TOKENS))}")
    return number
