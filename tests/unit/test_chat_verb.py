"""`dlavm chat` from its arguments: which partner, which options, pipes and exit codes, on a fake device."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dlavm import cli
from dlavm.pack.artifact import Artifact
from dlavm.runtime import engine
from dlavm.runtime.tokens import find_tokenizer
from dlavm.support.atomic import sha256_file
from dlavm.support.errors import DlavmError
from tests.unit.fake_runtime import CTX, FakeDevice, write
from tests.unit.fake_server import FakeServer
from tests.unit.test_chat import parrot
from tests.unit.test_tokens import CONFIG, TEMPLATE, byte_level


def tokenizer_folder(folder: Path, **generation: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(byte_level())
    (folder / "tokenizer_config.json").write_text(json.dumps({**CONFIG, "chat_template": TEMPLATE}))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """An artifact whose engine "fake" says what the user said."""
    made = write(tmp_path / "a", tokenizer=tokenizer_folder(tmp_path / "t"))
    monkeypatch.setattr(engine, "ENGINES", {"fake": lambda spec, threads: FakeDevice(made, parrot)})
    return made


def chat(monkeypatch: pytest.MonkeyPatch, typed: str, *arguments: object) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    return cli.main(["chat", *map(str, arguments)])


def test_a_pipe(artifact: Artifact, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat(monkeypatch, "hi\nyou\n/set\n", artifact.path, "--engine", "fake", "--temperature", 0) == 0
    captured = capsys.readouterr()
    assert captured.out == "hi\nyou\n"
    assert f"temperature 0.0, top_k 0, top_p 1.0, seed 0, max_tokens {CTX}" in captured.err


def test_json_and_its_exit_code(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (artifact.path, "--engine", "fake", "--json")
    assert chat(monkeypatch, "hi\n/stats\n", *options) == 0
    captured = capsys.readouterr()
    said = [json.loads(line) for line in captured.out.splitlines()]
    assert (said[0]["text"], said[1]["command"], captured.err) == ("hi", "/stats", "")
    assert chat(monkeypatch, "/dance\nhi\n", *options) == 1
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 2 and captured.err == ""


def test_load_and_options_beside_it(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options, saved = (artifact.path, "--engine", "fake"), tmp_path / "x.chat"
    assert chat(monkeypatch, f"hi\n/save {saved}\n", *options, "--seed", 7, "--top-k", 3, "--system", "s") == 0
    assert chat(monkeypatch, "/set\n/system\n/stats\n", *options, "--load", saved) == 0
    err = capsys.readouterr().err
    assert "top_k 3, top_p 1.0, seed 7" in err and "\ns\n" in err and "context: 18 of 64" in err
    assert chat(monkeypatch, "/set\n/system\n", *options, "--load", saved, "--seed", 8, "--top-k", 4, "--max-tokens", 9,
                "--system", "t") == 0  # fmt: skip
    err = capsys.readouterr().err
    assert "top_k 4, top_p 1.0, seed 8, max_tokens 9" in err and "\nt\n" in err


def test_a_model_without_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["chat", str(write(tmp_path / "a").path)]) == 2
    assert "expected a tokenizer in the artifact" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{artifact}", "--tls"], "--tls: expected HOST:PORT beside it"),
        (["{artifact}", "--ca", "x"], "--ca: expected HOST:PORT"),
        (["{artifact}", "--secret-file", "x"], "--secret-file: expected HOST:PORT"),
        (["{artifact}", "--tokenizer", "x"], "--tokenizer: expected HOST:PORT"),
        (["{artifact}", "--load", "nowhere"], "nowhere: expected a chat that /save wrote, got 'No such file"),
        (["localhost:1", "--engine", "fake"], "--engine: expected an artifact beside it"),
        (["localhost:1", "--threads", "2"], "--threads: expected an artifact beside it"),
        (["localhost:1", "--ca", "x"], "--ca: expected --tls beside it"),
        (["localhost:1", "--tls", "--ca", "nowhere"], "--ca nowhere: expected a file of certificates"),
        (["localhost:1", "--secret-file", "nowhere"], "--secret-file nowhere: expected a readable text, got 'No such"),
        (["localhost:1", "--secret-file", "{empty}"], "expected a secret, got an empty file"),
        (["localhost:1", "--secret-file", "/dev/zero"], "/dev/zero: expected at most 1024 bytes, got more"),
        (["localhost:1", "--secret-file", "{binary}"], "got 'bytes that are no UTF-8'"),
        (["localhost:0"], "expected a port in 1..65535"),
        (["localhost:65536"], "expected a port in 1..65535"),
        (["127.0.0.1:1"], "127.0.0.1:1: expected a server that listens there, got 'Connection refused'"),
        (["a" * 64 + ".invalid:1"], "expected a server that listens there"),
        (["localhost"], "expected the folder of an artifact, or HOST:PORT of a server (IPv6 in brackets), got"),
        (["::1:8123"], "HOST:PORT of a server (IPv6 in brackets), got '::1:8123'"),
        (["{empty}"], "expected the manifest of an artifact"),
    ],
)
def test_what_is_refused(
    artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    names = {"artifact": artifact.path, "empty": tmp_path / "empty", "binary": tmp_path / "binary"}
    engine_of = ["--engine", "fake"] if "--load" in arguments else []
    assert cli.main(["chat", *(argument.format(**names) for argument in arguments), *engine_of]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tokenizer_folder(tmp_path / "output" / "tiny" / "tokenizer", top_k=7)
    monkeypatch.chdir(tmp_path)
    with FakeServer(parrot, tokenizer_id=sha256_file(folder / "tokenizer.json")) as server:
        (tmp_path / "secret").write_text("sesame\n")
        assert chat(monkeypatch, "hi\n/set\n", f"127.0.0.1:{server.port}", "--secret-file", "secret") == 0
        captured = capsys.readouterr()
        assert captured.out == "hi\n" and f"top_k 7, top_p 1.0, seed 0, max_tokens {CTX}" in captured.err
        assert server.last("hello")["secret"] == "sesame" and server.last("generate")["top_k"] == 7
        server.at_token = lambda talk, count: talk.kill() if count == 1 else None
        assert chat(monkeypatch, "hi\nhi\n", f"localhost:{server.port}", "--json") == 1
        said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [list(line) for line in said] == [["error"], ["error"]]
        assert f"the server at localhost:{server.port} " in said[0]["error"]


class TestTokenizerOfAServer:
    ID = "tokenizer/tokenizer.json"

    def test_an_artifact_here_or_in_output(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("output/other", "output/this"):
            tokenizer_folder(tmp_path / name / "tokenizer")
        (tmp_path / "output/this" / self.ID).write_text(byte_level() + "\n")
        wanted = sha256_file(tmp_path / "output/this" / self.ID)
        assert find_tokenizer(wanted) == Path("output/this/tokenizer")
        monkeypatch.chdir(tmp_path / "output")
        assert find_tokenizer(wanted) == Path("this/tokenizer")
        monkeypatch.chdir(tmp_path / "output/this")
        assert find_tokenizer(wanted) == Path("tokenizer")
        monkeypatch.chdir(tmp_path / "output/other")
        with pytest.raises(DlavmError, match="got none; --tokenizer DIR names it"):
            find_tokenizer(wanted)

    def test_a_folder_that_is_named(self, tmp_path: Path) -> None:
        inner = tokenizer_folder(tmp_path / "a" / "tokenizer")
        wanted = sha256_file(inner / "tokenizer.json")
        assert find_tokenizer(wanted, tmp_path / "a") == inner
        assert find_tokenizer(wanted, inner) == inner
        assert find_tokenizer("", inner) == inner
        with pytest.raises(DlavmError, match=f"expected tokenizer.json with SHA-256 {'0' * 64}.*got '{wanted}'"):
            find_tokenizer("0" * 64, inner)
        with pytest.raises(DlavmError, match=r"folder with tokenizer\.json, got none"):
            find_tokenizer(wanted, tmp_path)

    def test_a_model_without_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DlavmError, match="expected a server's model with one"):
            find_tokenizer("")
