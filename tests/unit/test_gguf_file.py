"""GGUF files: what their header may say, and that nothing of it is believed."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from dlavm.formats import FORMATS, Grid
from dlavm.frontend.gguf_blocks import BLOCK_TYPES, OTHER_TYPES
from dlavm.frontend.gguf_file import GgufFile
from dlavm.frontend.gguf_source import GgufSource, Place, open_files
from dlavm.support.errors import DlavmError
from tests.unit.gguf_files import ARRAY, F32, STRING, UINT32, entry, info, random_blocks, raw_file, text, write

HUGE = (1 << 64) - 1
Kind = gguf.GGMLQuantizationType
QUANTISED = [Kind(number) for number, kind in BLOCK_TYPES.items() if kind.elements > 1]


def test_types_are_those_of_ggml() -> None:
    assert {n: (k.name, k.elements, k.bytes) for n, k in BLOCK_TYPES.items()} == {
        n: (Kind(n).name, *gguf.GGML_QUANT_SIZES[Kind(n)]) for n in BLOCK_TYPES
    }
    others = {kind.value: kind.name for kind in Kind if kind.value not in BLOCK_TYPES}
    assert others.items() >= OTHER_TYPES.items()


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_blocks_are_the_numbers_of_ggml(kind: Kind) -> None:
    blocks = random_blocks(kind, 300)
    values = BLOCK_TYPES[kind.value].values(blocks)
    expected = gguf.quants.dequantize(blocks, kind).reshape(values.shape)
    np.testing.assert_array_equal(values, expected)
    assert values.dtype == np.float32 and np.isfinite(values).all() and len(np.unique(values)) > 100


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16], ids=lambda kind: kind.name)
def test_float_types(kind: Kind, tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal((3, 40)).astype(np.float32)
    path = write(tmp_path / "a.gguf", "llama", {}, {"w": (values, kind)})
    source = GgufSource([GgufFile(path)], {"w": Place("w", (3, 40))})
    expected = gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind)
    assert source.dtype("w") == kind.name and source.grid("w") is None and source.note("w") == ""
    assert source.get("w").dtype == (np.float16 if kind == Kind.F16 else np.float32)
    np.testing.assert_array_equal(source.get("w").astype(np.float32), expected)
    np.testing.assert_array_equal(source.get("w", slice(1, 2)).astype(np.float32), expected[1:2])


@pytest.mark.parametrize(("kind", "format"), [(Kind.Q4_0, "int4g32"), (Kind.Q8_0, "int8g32")])
def test_grids_that_formats_hold(kind: Kind, format: str, tmp_path: Path) -> None:
    blocks = random_blocks(kind, 7 * 3).reshape(7, -1)
    path = write(tmp_path / "a.gguf", "llama", {}, {"w": (blocks, kind)})
    source = GgufSource([GgufFile(path)], {"w": Place("w", (7, 96))})
    assert (source.dtype("w"), source.note("w")) == (format, "")
    grid = source.grid("w", slice(2, 6))
    assert isinstance(grid, Grid) and grid.format == FORMATS[format] and grid.shape == (4, 96)
    expected = gguf.quants.dequantize(blocks, kind).reshape(7, 96)
    np.testing.assert_array_equal(grid.values(), expected[2:6])
    np.testing.assert_array_equal(source.get("w"), expected)
    assert (grid.scale < 0).any()  # as Q4_0 often has them


def test_nibbles_of_q4_0(tmp_path: Path) -> None:
    """The low ones are elements 0 .. 15."""
    block = struct.pack("<e", 1.0) + bytes(16 * (15 - i) + i for i in range(16))
    path = write(tmp_path / "a.gguf", "llama", {}, {"w": (np.frombuffer(block, np.uint8)[None], Kind.Q4_0)})
    grid = GgufSource([GgufFile(path)], {"w": Place("w", (1, 32))}).grid("w")
    assert grid is not None and grid.codes.tolist() == [[*range(16), *range(15, -1, -1)]]


def test_other_types_say_why(tmp_path: Path) -> None:
    tensors = {kind.name: (random_blocks(kind, 4), kind) for kind in QUANTISED}
    path = write(tmp_path / "a.gguf", "llama", {}, tensors)
    file = GgufFile(path)
    source = GgufSource([file], {name: Place(name, file.tensors[name].shape) for name in tensors})
    for name in source.names():
        exact = name in ("Q4_0", "Q8_0")
        assert (source.dtype(name) == "F32") != exact and source.note(name).startswith("" if exact else f"{name}: ")
        assert (source.grid(name) is None) != exact
        assert (source.nearest(name) in FORMATS) != exact


def test_metadata_of_every_type(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    kinds = {"uint8": 200, "int8": -100, "uint16": 65000, "int16": -3, "uint32": 1 << 31, "int32": -5, "float32": 1e-5,
             "bool": True, "string": "é", "uint64": 1 << 63, "int64": -1, "float64": 1e-300}  # fmt: skip
    for kind, value in kinds.items():
        getattr(writer, f"add_{kind}")(kind, value)
    writer.add_array("texts", ["a", "", "▁b"])
    writer.add_array("floats", [0.5, -2.0])
    writer.add_array("bools", [True, False])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = GgufFile(tmp_path / "a.gguf").metadata
    assert {kind: found[kind] for kind in kinds} == kinds and type(found["bool"]) is bool
    assert found["texts"] == ["a", "", "▁b"]
    assert found["floats"].tolist() == [0.5, -2.0] and found["bools"].tolist() == [True, False]


def test_version_2_and_another_alignment(tmp_path: Path) -> None:
    data = np.arange(4, dtype="<f4").tobytes()
    alignment = entry("general.alignment", UINT32, struct.pack("<I", 128))
    path = tmp_path / "a.gguf"
    path.write_bytes(
        raw_file([alignment], [info("w"), info("v", offset=128)], data.ljust(128, b"\0") + data, 128, version=2)
    )
    file = GgufFile(path)
    assert file.tensors["w"].offset % 128 == 0 and file.tensors["v"].offset == file.tensors["w"].offset + 128
    np.testing.assert_array_equal(file.rows("v").view("<f4"), [[0, 1, 2, 3]])


U32 = struct.pack("<I", 7)
LIES = {
    "an empty file": (b"", "expected a readable GGUF file"),
    "three bytes": (b"GGU", "magic expected 4 bytes at byte 0, got '3 before the end of the file'"),
    "another magic": (raw_file([], [], magic=b"GGML"), "magic expected b'GGUF'"),
    "version 1": (raw_file([], [], version=1), r"version expected one of \(2, 3\), little-endian, got 1"),
    "big-endian": (raw_file([], [], version=3 << 24), "little-endian, got '3, big-endian'"),
    "more entries than there are": (raw_file([], [], b"", entry_count=9), "key of metadata 0 expected"),
    "more tensors than there are": (raw_file([], [info("w")], b"", tensor_count=2), "name of tensor 1 expected"),
    "endless entries": (raw_file([], [], entry_count=HUGE), "metadata_kv_count expected at most 65536, got 18446"),
    "endless tensors": (raw_file([], [], tensor_count=HUGE), "tensor_count expected at most 65536, got 18446"),
    "an endless key": (raw_file([struct.pack("<Q", HUGE)], []), "key of metadata 0 expected a text of 1..65535"),
    "a key past the end": (raw_file([struct.pack("<Q", 65000)], []), "key of metadata 0 expected 65000 bytes"),
    "an endless text": (raw_file([entry("k", STRING, struct.pack("<Q", HUGE))], []), "k expected a text of 0"),
    "a text past the end": (raw_file([entry("k", STRING, struct.pack("<Q", 9999))], []), "k expected 9999 bytes"),
    "a text in no encoding": (raw_file([entry("k", STRING, text(b"\xff\xfe"))], []), "k expected UTF-8"),
    "an unknown value type": (raw_file([entry("k", 13, U32)], []), "k expected a value type of 0..12, got 13"),
    "a bool of 2": (raw_file([entry("k", 7, b"\2")], []), "k expected bools of 0 or 1, got 2"),
    "an endless array": (
        raw_file([entry("k", ARRAY, struct.pack("<IQ", UINT32, HUGE))], []), f"k expected {4 * HUGE} bytes"),
    "endless texts": (
        raw_file([entry("k", ARRAY, struct.pack("<IQ", STRING, HUGE))], []), "k expected at most 2097152, got 184"),
    "arrays in an array": (
        raw_file([entry("k", ARRAY, struct.pack("<IQ", ARRAY, 1))], []), "k expected an array of numbers or texts"),
    "a key twice": (raw_file([entry("k", UINT32, U32)] * 2, []), "metadata expected keys once, got 'k twice'"),
    "a name twice": (raw_file([], [info("w"), info("w", offset=32)]), "tensors expected names once, got 'w twice'"),
    "a long name": (raw_file([], [info("w" * 65)]), "name of tensor 0 expected a text of 1..64 bytes, got 65"),
    "no axes": (raw_file([], [info("w", ())]), "w: axes expected 1..4, got 0"),
    "endless axes": (raw_file([], [info("w", axes=(1 << 32) - 1)]), "w: axes expected 1..4, got 4294967295"),
    "an extent of 0": (raw_file([], [info("w", (0, 4))]), "w: shape expected positive extents"),
    "an endless extent": (raw_file([], [info("w", (4, HUGE, HUGE))]), "w: offset expected"),
    "half a block": (raw_file([], [info("w", (48,), 8)]), r"the last a multiple of 32 \(Q8_0\), got \[48\]"),
    "a type that is not read": (raw_file([], [info("w", (256,), 19)]), "w: type expected one of F32, F16.*'IQ1_S'"),
    "a type that is none": (raw_file([], [info("w", (256,), 999)]), "w: type expected one of .*, got 999"),
    "data past the end": (raw_file([], [info("w", (17,))]), "w: offset expected 68 bytes within the 128 of the file"),
    "an offset past the end": (raw_file([], [info("w", offset=1 << 40)]), "w: offset expected 16 bytes within"),
    "an offset that wraps": (raw_file([], [info("w", offset=HUGE - 31)]), "w: offset expected 16 bytes within"),
    "an offset between": (raw_file([], [info("w", offset=4)]), "w: offset expected a multiple of 32, got 4"),
    "tensors that overlap": (
        raw_file([], [info("w", (12,)), info("v", offset=32)]), "v: offset expected behind w, which ends at byte 1"),
    "an alignment of 0": (
        raw_file([entry("general.alignment", UINT32, bytes(4))], []), "general.alignment expected a power of two"),
    "an alignment of 24": (
        raw_file([entry("general.alignment", UINT32, struct.pack("<I", 24))], []), "expected a power of two.*got 24"),
    "an alignment in words": (raw_file([entry("general.alignment", STRING, text("32"))], []), "expected a power"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_lies(lie: str, tmp_path: Path) -> None:
    content, complaint = LIES[lie]
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(DlavmError, match=complaint) as caught:
        GgufFile(path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 400


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    fields = {".texts": ["a", "bc"], "x": 3, ".y": "text", ".z": [1.0, 2.0], ".flag": True}
    whole = write(tmp_path / "a.gguf", "llama", fields, {"w": np.ones((2, 32), np.float32)}).read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole)
    assert GgufFile(path).tensors["w"].bytes == 256
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DlavmError, match="cut.gguf: "):
            GgufFile(path)


def test_not_a_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(DlavmError, match="expected a GGUF file, got none"):
            GgufFile(path)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    block = np.zeros((1, 34), np.uint8)
    block[0, :2] = np.frombuffer(struct.pack("<e", float("inf")), np.uint8)
    tensors = {"q": (block, Kind.Q8_0), "f": np.array([[1, np.nan]], np.float32)}
    path = write(tmp_path / "a.gguf", "llama", {}, tensors)
    source = GgufSource([GgufFile(path)], {"q": Place("q", (1, 32)), "f": Place("f", (1, 2))})
    for read in (lambda: source.get("q"), lambda: source.get("f"), lambda: source.grid("q")):
        with pytest.raises(DlavmError, match=r"a.gguf: [qf] expected finite"):
            read()
    with pytest.raises(DlavmError, match="expected a tensor of the checkpoint, got 'other'"):
        source.get("other")


def shards(folder: Path, count: int, **fields: int) -> Path:
    for index in range(1, count + 1):
        keys = {".split.no": index - 1, ".split.count": count, **{f".{k}": v for k, v in fields.items()}}
        tensors = {f"w{index}": np.full((1, 4), index, np.float32)}
        write(folder / f"m-{index:05}-of-{count:05}.gguf", "llama", keys, tensors)
    return folder / f"m-00001-of-{count:05}.gguf"


def test_shards(tmp_path: Path) -> None:
    first = shards(tmp_path, 3)
    files = open_files(first)
    source = GgufSource(files, {f"w{i}": Place(f"w{i}", (1, 4)) for i in (1, 2, 3)})
    assert [source.get(name)[0, 0] for name in source.names()] == [1, 2, 3]
    with pytest.raises(DlavmError, match="the first of 3 files, called NAME-00001-of-00003.gguf, got 'm-00002"):
        open_files(tmp_path / "m-00002-of-00003.gguf")
    last = tmp_path / "m-00003-of-00003.gguf"
    last.write_bytes(first.read_bytes())
    with pytest.raises(DlavmError, match="00003.gguf: expected tensors once, got 'w1'"):
        open_files(first)
    last.unlink()
    with pytest.raises(DlavmError, match="00003.gguf: expected a GGUF file, got none"):
        open_files(first)


def test_the_writer_of_these_tests(tmp_path: Path) -> None:
    """That lies are lies, not mistakes of `raw_file`: what it writes otherwise is read."""
    path = tmp_path / "a.gguf"
    path.write_bytes(raw_file([entry("k", UINT32, U32)], [info("w", (4,), F32), info("v", offset=32)]))
    file = GgufFile(path)
    assert file.metadata == {"k": 7} and [t.shape for t in file.tensors.values()] == [(4,), (4,)]
