"""The artifact on disk: complete or absent, byte-identical, and every damage named."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from dlavm.pack.artifact import Artifact, ArtifactWriter
from dlavm.pack.manifest import Blob, KvRegion, Manifest, Program, Sequences, TensorInfo
from dlavm.support.errors import DlavmError
from tests.unit.fake_runtime import IDS, PROGRAM, WEIGHTS_OFFSET, manifest, spec, write

CHANNELS = ["weights/ch00.bin", "weights/ch01.bin"]
WEIGHTS_AT = spec().space("weights").base + WEIGHTS_OFFSET


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def attempt(path: Path, files: dict[str, Any], finish: Manifest | None = None) -> None:
    with ArtifactWriter(path) as writer:
        for name, content in files.items():
            writer.add_file(name, content)
        if finish:
            writer.finish(finish)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads((path / "manifest.json").read_text())
    change(raw)
    (path / "manifest.json").write_text(json.dumps(raw))


def test_two_writes_are_byte_identical(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert set(contents(tmp_path / "a")) == {"manifest.json", "tables.bin", "program/step.bin", *CHANNELS}


def test_manifest_text_reads_back(tmp_path: Path) -> None:
    artifact = write(tmp_path / "a")
    text = (tmp_path / "a" / "manifest.json").read_text()
    assert artifact.manifest.to_json() == text
    assert str(tmp_path) not in text
    assert artifact.manifest == dataclasses.replace(manifest(), files=artifact.manifest.files)
    assert artifact.manifest.model.extra == {"rope_theta": 10000.0}
    assert json.loads(text)["model"]["rope_theta"] == 10000.0
    assert json.loads(text)["entries"]["step"]["outputs"]["next"] == {"address": 0x8000, "dtype": "u32", "rows": 16}


def test_a_failed_write_leaves_the_old_artifact(tmp_path: Path) -> None:
    write(tmp_path / "a")
    before = contents(tmp_path / "a")
    with pytest.raises(ZeroDivisionError):
        attempt(tmp_path / "a", {"tables.bin": lambda file: 1 // 0})
    with pytest.raises(DlavmError, match="finish"):
        attempt(tmp_path / "a", {"tables.bin": b"other"})
    assert contents(tmp_path / "a") == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a//b", "a/./b", "manifest.json", "tables.bin", "tables.bin/x"])
def test_names_that_a_writer_refuses(tmp_path: Path, name: str) -> None:
    with ArtifactWriter(tmp_path / "a") as writer:
        writer.add_file("tables.bin", bytes(64))
        with pytest.raises(DlavmError, match="artifact"):
            writer.add_file(name, b"2")
        for file in CHANNELS:
            writer.add_file(file, bytes(1024))
        writer.add_file("program/step.bin", bytes(32))
        writer.finish(manifest())
        with pytest.raises(DlavmError, match="open writer"):
            writer.add_file("late.bin", b"2")
    Artifact.open(tmp_path / "a")


def test_a_writer_refuses_a_manifest_that_disagrees(tmp_path: Path) -> None:
    files: dict[str, Any] = {"tables.bin": bytes(63), "program/step.bin": bytes(32)}
    files |= dict.fromkeys(CHANNELS, bytes(1024))
    with pytest.raises(DlavmError, match=r"tables\.bin: expected 64 bytes, got 63"):
        attempt(tmp_path / "a", files, manifest())
    with pytest.raises(DlavmError, match=r"weights/ch00\.bin"):
        attempt(tmp_path / "a", {}, manifest())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["weights/ch00.bin", "tables.bin", "program/step.bin"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "grow", "remove"])
def test_every_damage_names_the_file(tmp_path: Path, name: str, damage: str) -> None:
    write(tmp_path / "a")
    path = tmp_path / "a" / name
    data = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        data[5] ^= damage == "flip"
        path.write_bytes({"flip": data, "truncate": data[:-1], "grow": data + b"x"}[damage])
    with pytest.raises(DlavmError, match=name):
        Artifact.open(tmp_path / "a")


def test_sizes_are_checked_without_hashes(tmp_path: Path) -> None:
    write(tmp_path / "a")
    tables = tmp_path / "a" / "tables.bin"
    tables.write_bytes(b"x" * 64)
    Artifact.open(tmp_path / "a", verify=False)
    tables.write_bytes(b"x")
    with pytest.raises(DlavmError, match=r"tables\.bin"):
        Artifact.open(tmp_path / "a", verify=False)


def test_extra_files_are_refused_but_in_host(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "a" / "host").mkdir()
    (tmp_path / "a" / "host" / "build.ninja").touch()
    Artifact.open(tmp_path / "a")
    (tmp_path / "a" / "weights" / "ch02.bin").touch()
    with pytest.raises(DlavmError, match=r"weights/ch02\.bin"):
        Artifact.open(tmp_path / "a")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DlavmError, match=r"manifest\.json"):
        Artifact.open(tmp_path / "missing")
    with pytest.raises(DlavmError, match="expected a file of the manifest"):
        write(tmp_path / "a").file("nothing.bin")


def test_another_target_hash_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a")
    edit(tmp_path / "a", lambda raw: raw.update(target_hash="0" * 64))
    with pytest.raises(DlavmError, match="built for target hash 0+, this dlavm has .*rebuild"):
        Artifact.open(tmp_path / "a")


def put(*path: Any) -> Callable[[dict[str, Any]], object]:
    """A change that sets the key at path[:-1] to path[-1]; `...` removes it."""

    def change(raw: Any) -> None:
        *way, last, value = path
        for key in way:
            raw = raw[key]
        if value is ...:
            del raw[last]
        else:
            raw[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (put("format", 1), "format: expected 2, got 1"),
        (put("format", ...), "format"),
        (put("quant", ...), "quant: expected a value"),
        (put("surprise", 1), "surprise: expected one of"),
        (put("name", 3), "name: expected a text, got 3"),
        (put("target", "../v3"), "target"),
        (put("target", "v9"), "unknown target"),
        (put("target_hash", "zz"), "target_hash"),
        (put("model", []), "model: expected an object"),
        (put("model", "layers", True), "model.layers: expected an integer, got True"),
        (put("model", "ctx", 0), "model.ctx"),
        (put("model", "chunk", 100), "model.chunk"),
        (put("model", "extra", {}), "model.extra"),
        (put("model", "eos_token_ids", [300]), "eos_token_ids"),
        (put("model", "eos_token_ids", 1), "eos_token_ids: expected a list"),
        (put("tensors", 0, "shape", 0, -1), r"tensors\[0\].shape\[0\]: expected 0..*, got -1"),
        (put("tensors", 0, "dtype", ...), r"tensors\[0\].dtype"),
        (put("images", 0, "color", 1), r"images\[0\].color"),
        (put("images", 0, "bytes", 2**60), r"images\[0\].bytes"),
        (put("blobs", 0, "file", "gone.bin"), "gone.bin"),
        (put("programs", "step", "address", 0x9008), "programs.step"),
        (put("entries", "step", "program", "other"), "entries.step.program"),
        (put("entries", "step", "args", ["token"]), "entries.step.bounds"),
        (put("entries", "step", "args", ["token"] * 9), "entries.step.args"),
        (put("entries", "step", "bounds", "token", [3, 1]), "entries.step.bounds.token"),
        (put("entries", "step", "inputs", "ids", "dtype", "f64"), "entries.step.ids"),
        (put("entries", "step", "outputs", "logits", "row_bytes", 10), "entries.step.logits"),
        (put("entries", "step", "outputs", "logits", "rows", 1 << 40), "entries.step.logits"),
        (put("kv", 0, "format", "int4"), "kv.kv: format: expected one of fp16, mxint8, got 'int4'"),
        (put("kv", 0, "format", "mxint8"), "kv.kv: expected heads and blocks of whole units of 1056 bytes"),
        (put("kv", 0, "head_bytes", 0), "kv.kv: head_bytes: expected at least .* blocks"),
        (put("kv", 0, "head_bytes", 2**20 + 8), "kv.kv: head_bytes: expected at least .* in units of 16, got 1048584"),
        (put("memory", "kv_bytes", None), "memory.kv_bytes"),
        (put("files", "../x", "0" * 64), "files"),
        (put("files", "manifest.json", "0" * 64), "files"),
        (put("files", "tables.bin", "1"), r"files.tables\.bin"),
    ],
)
def test_bad_manifests_name_file_and_key(tmp_path: Path, change: Callable[[dict[str, Any]], object], key: str) -> None:
    write(tmp_path / "a")
    edit(tmp_path / "a", change)
    with pytest.raises(DlavmError, match=key) as caught:
        Artifact.open(tmp_path / "a")
    assert "manifest.json" in str(caught.value) or "unknown target" in str(caught.value)


NO_MANIFESTS = ["", "[]", "null", "{", "[" * 100_000, '{"format": NaN}', '{"format": 2}', "\ud800", "9" * 5000]


@pytest.mark.parametrize("text", NO_MANIFESTS)
def test_texts_that_are_no_manifest(text: str) -> None:
    with pytest.raises(DlavmError, match="somewhere"):
        Manifest.from_json(text, "somewhere")


IMAGES, (TABLE, STEP) = manifest().images, manifest().blobs


def cache(name: str, address: int) -> KvRegion:
    return dataclasses.replace(manifest().kv[0], name=name, address=address)


def test_ids_of_models() -> None:
    """The same for the same content, another one for each thing that a saved cache depends on."""
    one = dataclasses.replace(manifest(), files={name: "0" * 64 for name, _ in manifest().sized_files()})
    other_program, other_place = {**one.files, STEP.file: "1" * 64}, (cache("kv", 0x22000),)
    changed = [{"files": other_program}, {"target_hash": "2" * 64}, {"kv": other_place}]
    ids = {dataclasses.replace(one, **change).model_id for change in changed}  # type: ignore[arg-type]
    assert len(ids | {one.model_id}) == 4
    assert dataclasses.replace(one, name="other", files={**one.files, "task.txt": "3" * 64}).model_id == one.model_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": ()}, "tensors.w: expected to lie in the images"),
        ({"blobs": ()}, r"programs.step: expected program/step.bin to be one blob, .* got \[\]"),
        ({"blobs": (TABLE, STEP, STEP)}, "programs.step: expected program/step.bin to be one blob"),
        ({"blobs": (TABLE, Blob(STEP.file, STEP.address + 16, 32))}, "programs.step"),
        ({"programs": {"step": Program("scalars", STEP.file, STEP.address + 32, 8)}}, "programs.step"),
        ({"images": IMAGES[:1]}, r"images: expected one for each of 2 channels, got \[0\]"),
        ({"images": (IMAGES[0], IMAGES[0])}, r"images: expected one for each of 2 channels, got \[0, 0\]"),
        ({"images": (IMAGES[0], dataclasses.replace(IMAGES[1], address=0))}, "images: expected one address"),
        ({"images": (IMAGES[0], dataclasses.replace(IMAGES[0], channel=1))}, "images: expected a file for each"),
        ({"blobs": (Blob("tables.bin", WEIGHTS_AT + 64, 64), STEP)}, "images: .* blobs.tables.bin at .* overlaps"),
        ({"kv": (cache("kv", PROGRAM),)}, "overlaps"),
        (
            {"kv": (cache("a", 0x20000), cache("b", 0x20800)), "sequences": Sequences(1, 1 << 16)},
            "kv.a: expected a place of its own",
        ),
        ({"kv": (cache("kv", IDS),)}, "entries.step.ids.* overlaps"),
        ({"kv": (cache("kv", 0x900000000),)}, "kv.kv: expected to lie in a memory of nano, hbm at 0x0"),
        ({"kv": (cache("kv", (128 << 20) - 32),)}, "kv.kv: expected to lie in a memory of nano"),
        ({"sequences": Sequences(1 << 20, 8192)}, "sequences: .* overlaps|entries.* overlaps"),
        ({"sequences": Sequences(1 << 14, 16384)}, "overlaps"),
        ({"tensors": (TensorInfo("w", "weights", WEIGHTS_AT + 2000, 64, "f16", (1, 32)),)}, "tensors.w: .* the images"),
        ({"tensors": (TensorInfo("t", "tables", 0x30000, 64, "f16", (1, 32)),)}, "tensors.t: .* a blob"),
        ({"tensors": (TensorInfo("k", "kv", 0x30000, 64, "f16", (1, 32)),)}, "tensors.k: .* a KV region"),
        ({"tensors": (TensorInfo("x", "activations", 0x20800, 64, "f16", (1, 32)),)}, "activations at .* overlaps"),
        ({"tensors": (TensorInfo("x", "input", 1 << 40, 64, "f16", (1, 32)),)}, "tensors.x: .* a memory of nano"),
    ],
)
def test_places_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    wrong = dataclasses.replace(manifest(), **change)
    with pytest.raises(DlavmError, match=message):
        write(tmp_path / "a", wrong)
    assert not (tmp_path / "a").exists()
    artifact = write(tmp_path / "a")
    text = dataclasses.replace(wrong, files=artifact.manifest.files).to_json()
    (tmp_path / "a" / "manifest.json").write_text(text)
    with pytest.raises(DlavmError, match=rf"a/manifest\.json: .*{message}"):
        Artifact.open(tmp_path / "a")


def test_activations_may_share_a_place(tmp_path: Path) -> None:
    places = (TensorInfo(name, "activations", at, 64, "f16", (32,)) for name, at in [("x", 0x30000), ("y", 0x30020)])
    write(tmp_path / "a", dataclasses.replace(manifest(), tensors=(*manifest().tensors, *places)))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + b"\n",
        lambda text: text + b"junk",
        lambda text: b" " + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b'"chunk": 16', b'"chunk": 15, "chunk": 16'),
        lambda text: json.dumps(json.loads(text)).encode(),
    ],
)
def test_a_manifest_of_other_bytes_is_refused(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    write(tmp_path / "a")
    path = tmp_path / "a" / "manifest.json"
    text = path.read_bytes()
    assert change(text) != text
    path.write_bytes(change(text))
    with pytest.raises(DlavmError, match=r"a/manifest\.json: expected"):
        Artifact.open(tmp_path / "a")


def with_extra(extra: dict[str, Any]) -> Manifest:
    base = manifest()
    return dataclasses.replace(base, model=dataclasses.replace(base.model, extra=extra))


def test_a_manifest_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(DlavmError, match="JSON"):
        with_extra({"temperature": float("nan")}).to_json()
    with pytest.raises(DlavmError, match="JSON"):
        with_extra({"x": object()}).to_json()


class TestTokenizerFiles:
    def source(self, folder: Path, **config: Any) -> Path:
        folder.mkdir()
        (folder / "tokenizer.json").write_text(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "generation_config.json").write_text('{"temperature": 0.5}')
        return folder

    def test_what_is_there_is_copied(self, tmp_path: Path) -> None:
        artifact = write(tmp_path / "a", tokenizer=self.source(tmp_path / "t", chat_template="hello"))
        assert artifact.tokenizer_path == tmp_path / "a" / "tokenizer" / "tokenizer.json"
        assert artifact.chat_template == "hello"
        assert artifact.generation["temperature"] == 0.5

    def test_a_named_template_and_a_file(self, tmp_path: Path) -> None:
        named = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
        source = self.source(tmp_path / "t", chat_template=named)
        assert write(tmp_path / "a", tokenizer=source).chat_template == "yes"
        (source / "chat_template.jinja").write_text("file")
        assert write(tmp_path / "b", tokenizer=source).chat_template == "file"

    def test_without_a_tokenizer(self, tmp_path: Path) -> None:
        artifact = write(tmp_path / "a")
        assert artifact.tokenizer_path is None
        assert artifact.chat_template is None
        assert artifact.tokenizer_config == {}

    @pytest.mark.parametrize("text", [b"[1]", b"{", b"\xff"])
    def test_a_broken_config(self, tmp_path: Path, text: bytes) -> None:
        source = self.source(tmp_path / "t")
        (source / "tokenizer_config.json").write_bytes(text)
        with pytest.raises(DlavmError, match=r"tokenizer_config\.json"):
            write(tmp_path / "a", tokenizer=source)
        assert not (tmp_path / "a").exists()

    @pytest.mark.parametrize("text", [b"{", b"", b"{}", b"[" * 100_000, b"\xff", b'{"version": "1.0", "model": 3}'])
    def test_a_broken_tokenizer_is_not_built_in(self, tmp_path: Path, text: bytes) -> None:
        source = self.source(tmp_path / "t")
        (source / "tokenizer.json").write_bytes(text)
        with pytest.raises(DlavmError, match=r"t/tokenizer\.json: expected a ") as caught:
            write(tmp_path / "a", tokenizer=source)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "a").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"temperature": "x"}', "temperature: expected a finite number of at least 0, got 'x'"),
            ('{"temperature": -1}', "temperature: .* got -1"),
            ('{"temperature": NaN}', "temperature: .* got nan"),
            ('{"temperature": 1' + 400 * "0" + "}", "temperature: .* got 1"),
            ('{"temperature": true}', "temperature: .* got True"),
            ('{"top_p": 0}', "top_p: expected a number above 0 and at most 1, got 0"),
            ('{"top_p": [0.5]}', "top_p: "),
            ('{"top_k": 1.5}', "top_k: expected an integer in 0..2147483647, got 1.5"),
            ('{"do_sample": "no"}', "do_sample: expected true or false, got 'no'"),
            ("3", "expected a JSON object, got 'int'"),
            ("{", "expected JSON"),
        ],
    )
    def test_generation_defaults_that_no_run_could_use(self, tmp_path: Path, text: str, message: str) -> None:
        source = self.source(tmp_path / "t")
        (source / "generation_config.json").write_text(text)
        with pytest.raises(DlavmError, match=rf"t/generation_config\.json: {message}"):
            write(tmp_path / "a", tokenizer=source)
        assert not (tmp_path / "a").exists()

    def test_generation_defaults_are_named_when_read_too(self, tmp_path: Path) -> None:
        artifact = write(tmp_path / "a", tokenizer=self.source(tmp_path / "t"))
        path = tmp_path / "a" / "tokenizer" / "generation_config.json"
        path.write_text('{"top_k": "many"}')
        with pytest.raises(DlavmError, match=r"a/tokenizer/generation_config\.json: top_k: .* got 'many'"):
            artifact.generation  # noqa: B018
        path.write_text('{"temperature": null, "top_k": null, "other": "x"}')
        assert artifact.generation["other"] == "x"

    def test_other_files_must_be_readable(self, tmp_path: Path) -> None:
        source = self.source(tmp_path / "t")
        (source / "chat_template.jinja").write_bytes(b"\xff")
        with pytest.raises(DlavmError, match=r"chat_template\.jinja: expected a readable UTF-8 text"):
            write(tmp_path / "a", tokenizer=source)
