"""Tables that people write as YAML: read, and held against what is expected; an error names the place in the file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import yaml

from dlavm.support.errors import DlavmError

Kind = type | tuple[type, ...]
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where PyYAML has it


class _Loader(_Base):
    """Refuses a key that comes twice, where YAML lets the last one win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(problem=f"the key {key.value!r} comes twice",
                                                        problem_mark=key.start_mark)
            seen.add(key.value)
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made


def read_yaml(text: str, place: str) -> Any:
    """What the text says, as a fresh object. Raises DlavmError for what is no YAML and for a key that comes twice."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise DlavmError(f"{place}: expected YAML, got {' '.join(str(problem).split())}") from None


def check_keys(place: str, entry: Any, needed: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> None:
    """Every needed key and no unknown one, each with a value of its type."""
    known = {**needed, **(optional or {})}
    if not isinstance(entry, dict) or not set(needed) <= set(entry) <= set(known):
        got = ", ".join(map(str, entry)) if isinstance(entry, dict) else repr(entry)
        raise DlavmError(f"{place}: expected the keys {', '.join(needed)}, got {got}")
    for key, value in entry.items():
        check_type(f"{place}: {key}", value, known[key])


def check_type(place: str, value: Any, kind: Kind) -> None:
    """A value of exactly one of these types: True is no int."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds:
        raise DlavmError(f"{place}: expected {' or '.join(k.__name__ for k in kinds)}, got {value!r}")


def check_range(place: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise DlavmError(f"{place}: expected {least}..{most}, got {value}")


def check_distinct(place: str, numbers: Mapping[str, int]) -> None:
    """A number of its own for each name."""
    seen: dict[int, str] = {}
    for name, number in numbers.items():
        if number in seen:
            raise DlavmError(f"{place}.{name}: expected a number of its own, got {number} as {seen[number]} has")
        seen[number] = name
