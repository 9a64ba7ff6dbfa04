"""Reads a protocol from its YAML file and holds it against the rules; an error names the place in the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from dlavm.support.described import check_distinct, check_keys, check_range, read_yaml
from dlavm.support.errors import DlavmError
from dlavm.wire.protocol import SIDES, EnumType, Field, MessageType, Protocol
from dlavm.wire.types import WIRE_TYPES

NAME = re.compile(r"[a-z][a-z0-9_]*")
SENDERS = {"client": ("client",), "server": ("server",), "both": SIDES}
U16, U32 = (1 << 16) - 1, (1 << 32) - 1

# Key -> type of its value, of each kind of entry.
PROTOCOL_KEYS = {"name": str, "namespace": str, "title": str, "magic": int, "version": int, "max_message": int,
                 "doc": str, "enums": dict, "messages": dict}
MESSAGE_KEYS = {"number": int, "from": str, "doc": str, "fields": list}
FIELD_KEYS = {"name": str, "type": str, "doc": str}
VALUE_KEYS = {"number": int, "doc": str}


def load_protocol(name: str) -> Protocol:
    """The protocol of dlavm/wire/NAME.yaml."""
    return parse_protocol((files("dlavm.wire") / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")


def parse_protocol(text: str, source: str) -> Protocol:
    """The protocol that `text` describes. Raises DlavmError naming the place in `source`."""
    body = read_yaml(text, source)
    check_keys(source, body, PROTOCOL_KEYS)
    for key, most in (("magic", U32), ("version", U16), ("max_message", U32)):
        check_range(f"{source}: {key}", body[key], 1, most)
    _name(f"{source}: namespace", body["namespace"])
    enums = {label: _enum(f"{source}: enums.{label}", label, values) for label, values in body["enums"].items()}
    messages = {label: _message(f"{source}: {label}", label, entry, enums, body["max_message"])
                for label, entry in body["messages"].items()}
    check_distinct(f"{source}: messages", {label: m.number for label, m in messages.items()})
    heading = {key: body[key] for key in PROTOCOL_KEYS if key not in ("doc", "enums", "messages")}
    return Protocol(**heading, doc=body["doc"].strip(), enum_types=enums, messages=messages)


def _enum(place: str, name: str, values: Any) -> EnumType:
    _name(place, name)
    if not isinstance(values, dict) or not values:
        raise DlavmError(f"{place}: expected labels, got {values!r}")
    for label, value in values.items():
        _name(f"{place}.{label}", label)
        check_keys(f"{place}.{label}", value, VALUE_KEYS)
        check_range(f"{place}.{label}: number", value["number"], 0, U16)
    numbers = {label: value["number"] for label, value in values.items()}
    check_distinct(place, numbers)
    return EnumType(name, numbers, {label: value["doc"] for label, value in values.items()})


def _message(place: str, name: str, entry: Any, enums: Mapping[str, EnumType], max_message: int) -> MessageType:
    _name(place, name)
    check_keys(place, entry, MESSAGE_KEYS)
    check_range(f"{place}: number", entry["number"], 1, U16)
    if entry["from"] not in SENDERS:
        raise DlavmError(f"{place}: from: expected one of {', '.join(SENDERS)}, got {entry['from']!r}")
    fields = tuple(_field(f"{place}: field {i}", item, enums) for i, item in enumerate(entry["fields"]))
    for i, f in enumerate(fields):
        if f.name in [other.name for other in fields[:i]]:
            raise DlavmError(f"{place}: field {i}: expected a name of its own, got {f.name!r} again")
        if f.type == "bytes" and f is not fields[-1]:
            raise DlavmError(f"{place}.{f.name}: expected bytes as the last field only, got {fields[-1].name!r} behind")
    most = min(max_message, sum(f.wire.most for f in fields))
    return MessageType(name, entry["number"], SENDERS[entry["from"]], entry["doc"].strip(), fields, most)


def _field(place: str, entry: Any, enums: Mapping[str, EnumType]) -> Field:
    check_keys(place, entry, FIELD_KEYS, optional={"enum": str})
    _name(place, entry["name"])
    if entry["type"] not in WIRE_TYPES:
        raise DlavmError(f"{place}: type: expected one of {', '.join(WIRE_TYPES)}, got {entry['type']!r}")
    if "enum" not in entry:
        return Field(entry["name"], entry["type"], entry["doc"])
    if entry["enum"] not in enums:
        raise DlavmError(f"{place}: enum: expected one of {', '.join(enums) or '(none)'}, got {entry['enum']!r}")
    values, largest = enums[entry["enum"]].values, WIRE_TYPES[entry["type"]].largest
    if largest is None or max(values.values()) > largest:
        raise DlavmError(f"{place}: type: expected one that holds every {entry['enum']}, got {entry['type']!r}")
    return Field(entry["name"], entry["type"], entry["doc"], entry["enum"], {n: label for label, n in values.items()})


def _name(place: str, name: Any) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise DlavmError(f"{place}: expected a name of small letters, digits and _, got {name!r}")
