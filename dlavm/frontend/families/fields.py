"""Fields of a config.json in their types, with errors that name the place and the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlavm.support.errors import DlavmError

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
}
MAX_LAYERS = 10_000


class Fields:
    """Fields of a JSON object; absent and null ones take the default, where there is one."""

    def __init__(self, place: str, raw: Mapping[str, Any], prefix: str = "") -> None:
        """`place` is where errors say that the fields stand, `prefix` what they put before a field's name."""
        self.place, self.raw, self.prefix = place, raw, prefix

    def error(self, name: str, expectation: str) -> DlavmError:
        return DlavmError(f"{self.place}: {self.prefix}{name} expected {expectation}, got {self.raw.get(name)!r}")

    def with_defaults(self, defaults: Mapping[str, Any]) -> Fields:
        """The same, and these values for what is absent or null."""
        given = {name: value for name, value in self.raw.items() if value is not None}
        return Fields(self.place, {**defaults, **given}, self.prefix)

    def has(self, name: str) -> bool:
        return self.raw.get(name) is not None

    def count(self, name: str, default: int | None = None) -> int:
        value = self.raw.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.error(name, "a positive integer")
        return value

    def depth(self, name: str) -> int:
        """A number of layers, of a size for which there can be a list of them."""
        layers = self.count(name)
        if layers > MAX_LAYERS:
            raise self.error(name, f"at most {MAX_LAYERS} layers")
        return layers

    def real(self, name: str, default: float | None = None) -> float:
        value = self.raw.get(name)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(name, "a number")
        return float(value)

    def positive(self, name: str, default: float | None = None) -> float:
        value = self.real(name, default)
        if not 0 < value < float("inf"):
            raise self.error(name, "a number above 0")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.raw.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def text(self, name: str, default: str) -> str:
        value = self.raw.get(name)
        value = default if value is None else value
        if not isinstance(value, str):
            raise self.error(name, "a string")
        return value

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """A list of so many."""
        value = self.raw.get(name)
        plain = isinstance(value, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
        if not isinstance(value, list) or not plain or len(value) != count:
            raise self.error(name, f"a list of {count} numbers")
        return tuple(float(x) for x in value)

    def within(self, name: str) -> Fields | None:
        """The fields of an object within; None where it is absent."""
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(name, "an object or null")
        return Fields(self.place, value, f"{self.prefix}{name}.")

    def activation(self, name: str, default: str) -> str:
        """The op table's name of an activation."""
        value = self.text(name, default)
        if value not in ACTIVATIONS:
            raise self.error(name, f"one of {list(ACTIVATIONS)!r}")
        return ACTIVATIONS[value]

    def only(self, name: str, *supported: object) -> None:
        """Refuses a field with another value than those; absent ones pass, and null ones."""
        value = self.raw.get(name)
        if value is not None and value not in supported:
            raise self.error(name, " or ".join(repr(one) for one in supported) or "none")

    def divided(self, name: str, by: str, parts: int) -> int:
        """A size that is `parts` equal ones, of which it gives one."""
        whole = self.count(name)
        if whole % parts:
            place = f"{self.place}: {self.prefix}{name}"
            raise DlavmError(f"{place} expected a multiple of {by}, got {whole!r} and {parts!r}")
        return whole // parts

    def kinds(self, name: str, layers: int, choices: Sequence[str], default: Sequence[str]) -> list[str]:
        """One of the choices for each layer."""
        value = self.raw.get(name)
        if value is None:
            return list(default)
        if not isinstance(value, list) or len(value) < layers or any(kind not in choices for kind in value):
            raise self.error(name, f"one of {list(choices)!r} for each of {layers} layers")
        return [str(kind) for kind in value[:layers]]
