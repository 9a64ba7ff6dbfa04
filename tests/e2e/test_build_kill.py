"""`dlavm build` that is killed: under the final name stands what stood there before or the whole new artifact, and the
next build works and leaves nothing of the killed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from dlavm.pack.artifact import Artifact

Command = Callable[..., Any]
Files = dict[str, bytes]

# The command line, in a process that kills itself at the first audit event of a name whose first argument matches.
KILLED_AT = """
import os, re, signal, sys
event, pattern = sys.argv.pop(1), re.compile(sys.argv.pop(1))
def hook(name, arguments):
    if name == event and arguments and pattern.search(str(arguments[0])):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from dlavm.cli import main
sys.exit(main(sys.argv[1:]))
"""
NEW, OLD = r"/\.a\.new-[^/]*", r"/\.a\.old-[^/]*"
# When, the audit event, what its first argument matches.
BEFORE_THE_END = {
    "nothing is written": ("tempfile.mkdtemp", NEW),
    "among the weights": ("open", NEW + r"/weights/ch01\.bin$"),
    "before the manifest": ("open", NEW + r"/manifest\.json$"),
    "written, perhaps not on disk": ("open", NEW + r"/weights$"),
    "before the rename": ("os.rename", NEW + "$"),
}
REPLACING = {
    "among the weights": (*BEFORE_THE_END["among the weights"], "old"),
    "a place to step aside": ("tempfile.mkdtemp", OLD, "old"),
    "before the old one steps aside": ("os.rename", r"/a$", "old"),
    "between the renames": ("os.rename", NEW + "$", "nothing"),
    "before the old one is removed": ("shutil.rmtree", OLD + "$", "new"),
}


@pytest.fixture(scope="module")
def model(stories_py: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The story model cut down to its first layer."""
    folder = tmp_path_factory.mktemp("model")
    tensors = load_file(stories_py.with_suffix("") / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if ".layers." not in name or ".layers.0." in name}
    save_file(kept, folder / "model.safetensors")
    text = stories_py.read_text()
    for old, new in (("HEAD_DIM = 8,", "HEAD_DIM = 1,"), ('WEIGHTS = "stories"', 'WEIGHTS = "."')):
        assert old in text
        text = text.replace(old, new)
    (folder / "small.py").write_text(text)
    return folder / "small.py"


def arguments(model: Path, place: Path, ctx: int) -> list[str]:
    return ["build", str(model), "--target", "v3", "--board", "nano", "--ctx", str(ctx), "-o", str(place)]


def files(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def built(dlavm: Command, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """The files of two artifacts, an old and a new one."""
    place = tmp_path_factory.mktemp("built")
    for name, ctx in (("old", 32), ("new", 64)):
        outcome = dlavm(*arguments(model, place / name, ctx))
        assert outcome.code == 0, outcome.err
    found = {name: files(place / name) for name in ("old", "new")}
    assert found["old"] != found["new"]
    return found


def what_stands(place: Path, built: dict[str, Files]) -> str:
    """nothing, old, new, or half of something."""
    if not place.exists():
        return "nothing"
    return next((name for name, content in built.items() if files(place) == content), "half of something")


def build_and_die(model: Path, place: Path, event: str, pattern: str) -> None:
    command = [sys.executable, "-c", KILLED_AT, event, pattern, *arguments(model, place, 64)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == -signal.SIGKILL, run.stderr or "the build came to its end"


def build_again(dlavm: Command, model: Path, place: Path, built: dict[str, Files]) -> None:
    """The next build takes the place and clears what is around it."""
    outcome = dlavm(*arguments(model, place, 64))
    assert (outcome.code, outcome.err) == (0, "")
    assert what_stands(place, built) == "new"
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    Artifact.open(place)


@pytest.mark.parametrize("moment", BEFORE_THE_END)
def test_killed_in_a_free_place(
    moment: str, dlavm: Command, model: Path, built: dict[str, Files], tmp_path: Path
) -> None:
    place = tmp_path / "out" / "a"
    build_and_die(model, place, *BEFORE_THE_END[moment])
    assert what_stands(place, built) == "nothing"
    build_again(dlavm, model, place, built)


@pytest.mark.parametrize("moment", REPLACING)
def test_killed_while_replacing(
    moment: str, dlavm: Command, model: Path, built: dict[str, Files], tmp_path: Path
) -> None:
    place = tmp_path / "out" / "a"
    for name, content in built["old"].items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    event, pattern, standing = REPLACING[moment]
    build_and_die(model, place, event, pattern)
    assert what_stands(place, built) == standing
    assert len(list(place.parent.iterdir())) > 1 or standing == "new"
    build_again(dlavm, model, place, built)


def test_a_killed_build_goes_on(dlavm: Command, model: Path, built: dict[str, Files], tmp_path: Path) -> None:
    """What was packed is not packed again: a tensor that is damaged in the meantime is not even looked at."""
    place = tmp_path / "out" / "a"
    build_and_die(model, place, *BEFORE_THE_END["before the manifest"])
    packed = tmp_path / "out" / ".a.packing"
    assert (packed / "ch00.bin").is_file() and (packed / "done.jsonl").read_text().count("\n") > 5
    weights = model.parent / "model.safetensors"
    content, times = weights.read_bytes(), weights.stat()
    try:
        weights.write_bytes(content[:-8] + bytes(8))
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
        build_again(dlavm, model, place, built)
    finally:
        weights.write_bytes(content)


def test_another_checkpoint_begins_anew(dlavm: Command, model: Path, built: dict[str, Files], tmp_path: Path) -> None:
    place = tmp_path / "out" / "a"
    build_and_die(model, place, *BEFORE_THE_END["before the manifest"])
    (tmp_path / "out" / ".a.packing" / "ch00.bin").write_bytes(b"")
    (model.parent / "model.safetensors").touch()
    build_again(dlavm, model, place, built)


def test_killed_from_outside(dlavm: Command, model: Path, built: dict[str, Files], tmp_path: Path) -> None:
    place = tmp_path / "out" / "a"
    command = [sys.executable, "-m", "dlavm", *arguments(model, place, 64)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(tmp_path.glob("out/.a.new-*/weights/*")):
            time.sleep(0.001)
        process.kill()
    assert what_stands(place, built) in ("nothing", "new")
    build_again(dlavm, model, place, built)
