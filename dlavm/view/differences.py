"""What changed between two artifacts, section by section, as objects of JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlavm.pack.artifact import Artifact
from dlavm.pack.manifest import TensorInfo
from dlavm.pack.unpack import channel_bytes, read_weight, weight_tensors
from dlavm.report.stream import histogram
from dlavm.support.progress import progress
from dlavm.task import Launch, parse_program, walk

Fields = Mapping[str, Any]
# Of the manifest, by keys: what other sections have, and what follows from the rest.
OTHERS = ("tensors", "images", "blobs", "programs", "kv", "memory", "files")
FOLLOWING = ("program", "inputs", "outputs", "tables")  # of an entry


@dataclass(frozen=True)
class Change:
    """A thing of one name; None where one of the two has it not."""

    name: str
    a: Fields | None
    b: Fields | None

    @property
    def kind(self) -> str:
        return "added" if self.a is None else "removed" if self.b is None else "changed"

    def plain(self) -> dict[str, Any]:
        return {"name": self.name, "change": self.kind, "a": self.a, "b": self.b}


def differences(a: Artifact, b: Artifact) -> dict[str, list[Change]]:
    """The changes of each section; all are empty for equal artifacts and only for them.

    Raises DlavmError for a file that cannot be read.
    """
    found = {name: changes(section(a), section(b)) for name, section in SECTIONS.items()}
    found["graph"] = _matched(found["graph"])
    found["weights"] = _weights(a, b)
    if not any(found.values()) and a.manifest != b.manifest:
        found["build"] = changes(*({"manifest": {"value": _hash(x.manifest.canonical().encode())}} for x in (a, b)))
    return found


def changes(a: Mapping[str, Fields], b: Mapping[str, Fields]) -> list[Change]:
    """The names of which `a` and `b` have different fields, in the order of `a`, then of `b`."""
    return [Change(n, a.get(n), b.get(n)) for n in dict.fromkeys((*a, *b)) if a.get(n) != b.get(n)]


def _build(artifact: Artifact) -> dict[str, Fields]:
    """What was built for what: the manifest without places and contents."""
    raw = {key: value for key, value in json.loads(artifact.manifest.canonical()).items() if key not in OTHERS}
    raw["entries"] = {name: {key: value for key, value in entry.items() if key not in FOLLOWING}
                      for name, entry in raw["entries"].items()}  # fmt: skip
    return {key: {"value": value} for key, value in _flat("", raw)}


def _flat(key: str, value: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield key, value
        return
    for name, item in value.items():
        yield from _flat(f"{key}.{name}" if key else name, item)


def _graph(artifact: Artifact) -> dict[str, Fields]:
    """The statements of the graph's text by what they define."""
    found: dict[str, Fields] = {}
    for line in artifact.file("graph.txt").read_text(encoding="utf-8").splitlines():
        head, _, text = line.partition(" ")
        if not line.startswith("%"):
            name, _, text = text.partition(" ")
            found[f"{head} {name}"] = {"text": text.removeprefix(": ").removeprefix("= ")}
            continue
        text, _, where = text.removeprefix("= ").partition(' @ "')
        found[head] = {"text": text, "where": where.removesuffix('"')}
    return found


def _matched(found: list[Change]) -> list[Change]:
    """A node that went and one that came at the same place in the model are one that changed its name."""
    gone, come = ({} for _ in range(2))  # type: dict[str, list[Change]], dict[str, list[Change]]
    for change in found:
        fields = change.a or change.b or {}
        if change.kind != "changed" and fields.get("where"):
            (gone if change.kind == "removed" else come).setdefault(fields["where"], []).append(change)
    pairs = {gone[w][0].name: come[w][0] for w in gone if w in come and len(gone[w]) == len(come[w]) == 1}
    taken = {change.name for change in pairs.values()}
    renamed = [Change(f"{c.name} -> {pairs[c.name].name}", c.a, pairs[c.name].b) if c.name in pairs else c
               for c in found]  # fmt: skip
    return [change for change in renamed if change.name not in taken]


def _instructions(artifact: Artifact) -> dict[str, Fields]:
    """Commands and bytes of each program by opcode; of a register program, statements by kind."""
    found: dict[str, Fields] = {}
    for name, program in artifact.manifest.programs.items():
        if program.words:
            words = np.fromfile(artifact.file(program.file), dtype="<u4").tolist()
            kinds = {k.name: (k.commands, 4 * k.words) for k in histogram(artifact.target, words)}
        else:
            text = artifact.file(program.file).read_text(encoding="utf-8")
            kinds = _statements(text, artifact)
        kinds["all"] = (sum(n for n, _ in kinds.values()), sum(size for _, size in kinds.values()))
        found |= {f"{name} {kind}": {"commands": n, "bytes": size} for kind, (n, size) in kinds.items()}
    return found


def _statements(text: str, artifact: Artifact) -> dict[str, tuple[int, int]]:
    kinds: dict[str, int] = {}
    for _, stmt in walk(parse_program(text, artifact.target)):
        kind = stmt.op if isinstance(stmt, Launch) else type(stmt).__name__
        kinds[kind] = kinds.get(kind, 0) + 1
    return {kind: (count, 0) for kind, count in kinds.items()}


def _memory(artifact: Artifact) -> dict[str, Fields]:
    """Extents of the roles, and the sums that a build prints."""
    roles: dict[str, list[TensorInfo]] = {}
    for tensor in artifact.manifest.tensors:
        roles.setdefault(tensor.role, []).append(tensor)
    found: dict[str, Fields] = {}
    for role, tensors in roles.items():
        start, end = min(t.address for t in tensors), max(t.address + t.bytes for t in tensors)
        found[role] = {"buffers": len(tensors), "address": start, "bytes": end - start}
    use = json.loads(artifact.manifest.canonical())["memory"]
    return found | {name: {"bytes": value} for name, value in use.items()}


def _files(artifact: Artifact) -> dict[str, Fields]:
    files = sorted(artifact.manifest.files.items())
    return {name: {"bytes": artifact.file(name).stat().st_size, "sha256": digest} for name, digest in files}


SECTIONS: dict[str, Callable[[Artifact], Mapping[str, Fields]]] = {
    "build": _build,
    "graph": _graph,
    "instructions": _instructions,
    "memory": _memory,
    "weights": lambda artifact: {},  # compared in pairs, by `_weights`
    "files": _files,
}


def _weights(a: Artifact, b: Artifact) -> list[Change]:
    """Tensors of another format, size or content. Contents are read where the files differ."""
    is_read = _images(a) != _images(b)
    is_packed_alike = a.target.space("weights") == b.target.space("weights")
    names = {t.name for t in weight_tensors(a)} & {t.name for t in weight_tensors(b)}
    count = 2 * len(names) if is_read else 0
    with progress("comparing weights", count) as bar:

        def fields(artifact: Artifact, tensor: TensorInfo) -> Fields:
            found: dict[str, Any] = {"format": tensor.dtype, "shape": list(tensor.shape), "bytes": tensor.bytes}
            if is_read and tensor.name in names:
                found["sha256"] = _content(artifact, tensor, is_packed_alike)
                bar.advance()
            return found

        tables = [{t.name: fields(artifact, t) for t in weight_tensors(artifact)} for artifact in (a, b)]
    return changes(*tables)


def _images(artifact: Artifact) -> list[object]:
    """Where weights lie and what the files hold that have them."""
    manifest = artifact.manifest
    return [[(t.name, t.address) for t in weight_tensors(artifact)],
            [(i.channel, i.address, manifest.files[i.file]) for i in manifest.images]]  # fmt: skip


def _content(artifact: Artifact, tensor: TensorInfo, is_packed_alike: bool) -> str:
    """Of the packed bytes; of the numbers in them where the boards pack differently."""
    if is_packed_alike:
        return _hash(channel_bytes(artifact, tensor, artifact.target.space("weights")).tobytes())
    return _hash(read_weight(artifact, tensor).tobytes())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
