"""Where a manifest puts things: held against the target's memories and against each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dlavm.pack.manifest import Image, Manifest
from dlavm.support.errors import DlavmError
from dlavm.target.spec import TargetSpec


@dataclass(frozen=True, order=True)
class Span:
    """The linear addresses from `start` up to `end` that a key of the manifest claims."""

    start: int
    end: int
    key: str

    def holds(self, other: Span) -> bool:
        return self.start <= other.start and other.end <= self.end

    def __str__(self) -> str:
        return f"0x{self.start:x}..0x{self.end:x}"


def check_places(manifest: Manifest, spec: TargetSpec, where: str) -> None:
    """Raises DlavmError, beginning with `where` and the key, for the first place that cannot be.

    Images cover every channel of the weights' memory alike; a program is one blob; weights lie in the images, tables
    in blobs, caches in KV regions; what is loaded, read or computed does not overlap, and all lies in a memory.
    """
    for key, problem in _problems(manifest, spec):
        raise DlavmError(f"{where}: {key}: {problem}")


def _problems(m: Manifest, spec: TargetSpec) -> Iterator[tuple[str, str]]:
    yield from _image_problems(m.images, spec.space("weights").channels)
    yield from _blob_problems(m)
    images, blobs = _images(m.images), [Span(b.address, b.address + b.bytes, f"blobs.{b.file}") for b in m.blobs]
    kv = [Span(k.address, k.address + k.bytes, f"kv.{k.name}") for k in m.kv]
    yield from _tensor_problems(m, {"weights": images, "tables": blobs, "kv": kv})
    spans = sorted([*images, *blobs, *kv, *_further(m, kv), *_ports(m), *_activations(m)])
    for one, other in zip(spans, spans[1:], strict=False):
        if other.start < one.end:
            yield one.key, f"expected a place of its own, got {one}, which {other.key} at {other} overlaps"
    yield from _memory_problems([*spans, *_tensors(m)], spec)


def _image_problems(images: tuple[Image, ...], channels: int) -> Iterator[tuple[str, str]]:
    if images and sorted(i.channel for i in images) != list(range(channels)):
        yield "images", f"expected one for each of {channels} channels, got {[i.channel for i in images]!r}"
    if len({(i.address, i.bytes) for i in images}) > 1:
        got = sorted({f"{i.bytes} bytes at 0x{i.address:x}" for i in images})
        yield "images", f"expected one address and one size in every channel, got {', '.join(got[:3])}"
    if len({i.file for i in images}) < len(images):
        yield "images", f"expected a file for each of {len(images)} channels, got {len({i.file for i in images})}"


def _images(images: tuple[Image, ...]) -> list[Span]:
    """The range that the channels' equal parts make together."""
    return [Span(images[0].address, images[0].address + sum(i.bytes for i in images), "images")] if images else []


def _blob_problems(m: Manifest) -> Iterator[tuple[str, str]]:
    for name, program in m.programs.items():
        expected = [(program.address, 4 * program.words)] if program.words else []
        found = [(b.address, b.bytes) for b in m.blobs if b.file == program.file]
        if found != expected:
            yield f"programs.{name}", f"expected {program.file} to be one blob, {expected!r}, got {found!r}"


def _tensor_problems(m: Manifest, homes: dict[str, list[Span]]) -> Iterator[tuple[str, str]]:
    what = {"weights": "the images", "tables": "a blob", "kv": "a KV region"}
    for tensor, span in zip(m.tensors, _tensors(m), strict=True):
        if tensor.role in homes and not any(home.holds(span) for home in homes[tensor.role]):
            yield span.key, f"expected to lie in {what[tensor.role]}, got {span}"


def _tensors(m: Manifest) -> list[Span]:
    return [Span(t.address, t.address + t.bytes, f"tensors.{t.name}") for t in m.tensors]


def _activations(m: Manifest) -> list[Span]:
    """One range: tensors that do not live at the same time share places in it."""
    spans = [s for t, s in zip(m.tensors, _tensors(m), strict=True) if t.role == "activations" and t.bytes]
    return [Span(min(s.start for s in spans), max(s.end for s in spans), "activations")] if spans else []


def _further(m: Manifest, kv: list[Span]) -> list[Span]:
    """One range: the caches of all sequences but the first."""
    count, stride = m.sequences.count, m.sequences.stride
    first = min((k.start for k in kv), default=0)
    return [Span(first + stride, first + count * stride, "sequences")] if kv and count > 1 else []


def _ports(m: Manifest) -> Iterator[Span]:
    """Those of all entries; what entries have in common once."""
    spans: dict[tuple[int, int, str], Span] = {}
    for name, entry in m.entries.items():
        for label, port in {**entry.inputs, **entry.outputs}.items():
            end = port.address + port.rows * port.stride
            spans.setdefault((port.address, end, label), Span(port.address, end, f"entries.{name}.{label}"))
    yield from spans.values()


def _memory_problems(spans: list[Span], spec: TargetSpec) -> Iterator[tuple[str, str]]:
    memories = [Span(m.base, m.base + m.capacity, name) for name, m in spec.board.memories.items()]
    for span in spans:
        if not any(memory.holds(span) for memory in memories):
            known = ", ".join(f"{memory.key} at {memory}" for memory in memories)
            yield span.key, f"expected to lie in a memory of {spec.board.name}, {known}, got {span}"
