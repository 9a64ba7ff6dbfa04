"""Errors, debug variables, progress, paths, atomic directories."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dlavm.support import env
from dlavm.support.atomic import MANIFEST_NAME, atomic_directory, sha256_file
from dlavm.support.errors import CheckFailed, DlavmError
from dlavm.support.memory import peak_rss
from dlavm.support.paths import data_root, native_library
from dlavm.support.progress import progress


def write_artifact(path: Path, text: str) -> None:
    with atomic_directory(path) as folder:
        (folder / "manifest.json").write_text(text)
        (folder / "weights").mkdir()
        (folder / "weights" / "ch0.bin").write_bytes(text.encode())


def test_exit_codes() -> None:
    assert (DlavmError.exit_code, CheckFailed.exit_code) == (2, 1)
    assert issubclass(CheckFailed, DlavmError)


class TestEnv:
    @pytest.fixture(autouse=True)
    def _unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in env.VARIABLES:
            monkeypatch.delenv(variable.name, raising=False)

    def test_defaults(self) -> None:
        assert env.DEBUG.get() is False
        assert env.DUMP.get() is None
        assert env.THREADS.get() >= 1
        assert env.SIMD.get() == "auto"

    def test_the_table_is_complete(self) -> None:
        listed = {id(variable) for variable in env.VARIABLES}
        assert listed == {id(value) for value in vars(env).values() if isinstance(value, env.Variable)}
        assert len({variable.name for variable in env.VARIABLES}) == len(listed)

    @pytest.mark.parametrize(
        ("variable", "text", "value"),
        [
            (env.DEBUG, "1", True),
            (env.VERIFY, " 0 ", False),
            (env.VERIFY, "", False),
            (env.DUMP, "some/where", Path("some/where")),
            (env.THREADS, "3", 3),
            (env.SIMD, "avx2", "avx2"),
        ],
    )
    def test_values(
        self, variable: env.Variable[object], text: str, value: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable.name, text)
        assert variable.get() == value

    @pytest.mark.parametrize(
        ("variable", "text"),
        [(env.DEBUG, "yes"), (env.THREADS, "0"), (env.THREADS, "two"), (env.SIMD, "sse")],
    )
    def test_bad_values(
        self, variable: env.Variable[object], text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable.name, text)
        with pytest.raises(DlavmError, match=f"{variable.name}: expected .* got '{text}'"):
            variable.get()


class TestProgress:
    def test_silent_in_a_pipe(self, capfd: pytest.CaptureFixture[str]) -> None:
        with progress("packing weights", 3) as bar:
            bar.advance()
            bar.advance(2)
        assert capfd.readouterr() == ("", "")

    def test_drawn_on_a_terminal(self) -> None:
        pty = pytest.importorskip("pty")
        source = "from dlavm.support.progress import progress\nwith progress('packing', 2) as b: b.advance(2)"
        leader, follower = pty.openpty()
        try:
            environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
            out = subprocess.run(
                [sys.executable, "-c", source],
                stdout=subprocess.PIPE, stderr=follower, env=environment, check=True, timeout=60,
            ).stdout  # fmt: skip
            shown = os.read(leader, 1 << 16)
        finally:
            os.close(leader)
            os.close(follower)
        assert b"packing" in shown
        assert b"2/2" in shown
        assert out == b""


class TestPaths:
    def test_data_root_is_the_checkout(self, repository: Path) -> None:
        assert data_root() == repository
        assert (data_root() / "targets").is_dir()

    def test_native_library(self) -> None:
        assert native_library().name == "libdlavm.so"

    def test_missing_library(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dlavm.__path__", [str(tmp_path)])
        with pytest.raises(DlavmError, match="expected the native library .*libdlavm.so"):
            native_library()


class TestAtomicDirectory:
    def test_writes(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "deep" / "a", "one")
        assert (tmp_path / "deep" / "a" / "weights" / "ch0.bin").read_bytes() == b"one"
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]

    def test_has_ordinary_permissions(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "a", "one")
        (tmp_path / "plain").mkdir()
        assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_replaces_an_artifact_whole(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "a", "one")
        (tmp_path / "a" / "left.bin").touch()
        write_artifact(tmp_path / "a", "two")
        assert (tmp_path / "a" / "manifest.json").read_text() == "two"
        assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["manifest.json", "weights"]
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_replaces_an_empty_directory(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        write_artifact(tmp_path / "a", "one")
        assert (tmp_path / "a" / "manifest.json").is_file()

    def test_follows_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        write_artifact(tmp_path / "link", "one")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "manifest.json").is_file()

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_failure_leaves_the_old(self, error: type[BaseException], tmp_path: Path) -> None:
        write_artifact(tmp_path / "a", "one")

        def fail_half_way() -> None:
            with atomic_directory(tmp_path / "a") as folder:
                (folder / "manifest.json").write_text("half")
                raise error

        with pytest.raises(error):
            fail_half_way()
        assert (tmp_path / "a" / "manifest.json").read_text() == "one"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_refuses_a_foreign_directory(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(DlavmError, match="got a directory with 'thesis.txt'"):
            write_artifact(tmp_path, "one")
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_refuses_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()
        with pytest.raises(DlavmError, match="got a file"):
            write_artifact(tmp_path / "a", "one")

    def test_refuses_a_place_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()
        with pytest.raises(DlavmError, match="expected to create a directory beside it"):
            write_artifact(tmp_path / "a" / "b", "one")

    def test_failed_rename_restores_the_old(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_artifact(tmp_path / "a", "one")
        rename = Path.rename

        def fail_for_new(self: Path, target: Path) -> Path:
            if ".new-" in self.name:
                raise OSError("disk gone")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", fail_for_new)
        with pytest.raises(OSError, match="disk gone"):
            write_artifact(tmp_path / "a", "two")
        assert (tmp_path / "a" / "manifest.json").read_text() == "one"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


    def test_what_a_killed_process_left_is_removed(self, tmp_path: Path) -> None:
        write_artifact(tmp_path / "a", "one")
        source = (
            "import os, signal, sys\nfrom dlavm.support.atomic import atomic_directory\n"
            "with atomic_directory(sys.argv[1]) as folder:\n"
            "    (folder / 'half.bin').touch()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        killed = subprocess.run([sys.executable, "-c", source, str(tmp_path / "a")], check=False, timeout=60)
        assert killed.returncode == -signal.SIGKILL
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".a.new-")]
        write_artifact(tmp_path / "a", "two")
        assert (tmp_path / "a" / "manifest.json").read_text() == "two"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_an_artifact_that_stepped_aside_comes_back(self, tmp_path: Path) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        write_artifact(tmp_path / f".a.old-{gone.pid}-abcd_123" / "a", "one")
        with pytest.raises(KeyError), atomic_directory(tmp_path / "a"):
            raise KeyError
        assert (tmp_path / "a" / "manifest.json").read_text() == "one"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_siblings_of_other_names_stay(self, tmp_path: Path) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        end = f"{gone.pid}-abcd1234"
        kept = {f".b.new-{end}", f".a.new-b.new-{end}", ".a.new-abcd1234", f".a.tmp-{end}", f"a.new-{end}"}
        for name in kept:
            (tmp_path / name).mkdir()
        (tmp_path / f".a.old-{end}").touch()  # a file is none of ours
        write_artifact(tmp_path / "a", "one")
        assert {path.name for path in tmp_path.iterdir()} == kept | {"a", f".a.old-{end}"}

    def test_concurrent_writers_leave_each_other_alone(self, tmp_path: Path) -> None:
        with atomic_directory(tmp_path / "a") as outer:
            (outer / "manifest.json").write_text("outer")
            write_artifact(tmp_path / "a", "inner")
            assert (tmp_path / "a" / "manifest.json").read_text() == "inner"
            assert (outer / "manifest.json").read_text() == "outer"
        assert (tmp_path / "a" / "manifest.json").read_text() == "outer"
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: write_artifact(tmp_path / "a", str(n)), range(8)))
        assert (tmp_path / "a" / "manifest.json").read_text() == (tmp_path / "a" / "weights" / "ch0.bin").read_text()
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_sha256_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(data).hexdigest()
    with pytest.raises(OSError, match="nothing"):
        sha256_file(tmp_path / "nothing")


def test_what_a_killed_process_left_is_put_away(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    pid = int(gone.stdout)
    stale, alive = tmp_path / f".a.new-{pid}-xyz", tmp_path / f".a.new-{os.getpid()}-xyz"
    foreign = tmp_path / ".a.newer"
    for folder in (stale, alive, foreign):
        folder.mkdir()
    aside = tmp_path / f".a.old-{pid}-xyz" / "a"  # it had stepped aside when the process died
    aside.mkdir(parents=True)
    (aside / MANIFEST_NAME).write_text("old")
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "a"):
        raise RuntimeError
    assert (tmp_path / "a" / MANIFEST_NAME).read_text() == "old"
    assert not stale.exists() and not aside.parent.exists()
    assert alive.exists() and foreign.exists()


def test_the_peak_is_that_of_this_process_alone() -> None:
    """A child of a large process is small."""
    ballast = bytearray(300 << 20)
    ballast[:: 4096] = b"x" * len(ballast[:: 4096])
    assert peak_rss() > len(ballast)
    code = "from dlavm.support.memory import peak_rss; print(peak_rss())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1 << 20 < int(child.stdout) < 200 << 20
