"""Directories that outlive an interrupted process, and the channel files in them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from dlavm.pack.images import DONE, SYNC_AT, Done, Images
from dlavm.pack.losses import Loss
from dlavm.support.errors import DlavmError
from dlavm.support.kept import kept_directory, stamp

RNG = np.random.default_rng(3)
LOSS = Loss("w", "int8g32", "int4g128", "requantised", 0.25, 3.0)


def leave(final: Path, key: str, name: str) -> None:
    with suppress(KeyboardInterrupt), kept_directory(final, "packing", key) as folder:
        (folder / name).write_text("kept")
        raise KeyboardInterrupt


def test_what_an_interrupt_leaves_is_found_again(tmp_path: Path) -> None:
    leave(tmp_path / "a", "one", "x")
    with kept_directory(tmp_path / "a", "packing", "one") as folder:
        assert (folder / "x").read_text() == "kept"
    assert list(tmp_path.iterdir()) == []


def test_another_key_begins_anew(tmp_path: Path) -> None:
    leave(tmp_path / "a", "one", "x")
    with kept_directory(tmp_path / "a", "packing", "two") as folder:
        assert [path.name for path in folder.iterdir()] == ["key"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DlavmError), kept_directory(tmp_path / "a", "packing", "one"):
        raise DlavmError("bad weights")
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_do_not_share(tmp_path: Path) -> None:
    with kept_directory(tmp_path / "a", "packing", "one") as first, \
            kept_directory(tmp_path / "a", "packing", "one") as second:  # fmt: skip
        assert first != second and second.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_no_directory_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = pytest.raises(DlavmError, match="expected to create a directory there")
    with refused, kept_directory(tmp_path / "file" / "a", "packing", "one"):
        pass


def test_a_stamp_follows_the_files(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("1")
    before = stamp(tmp_path)
    assert stamp(tmp_path) == before != stamp(tmp_path / "w") and stamp(Path("random:3")) == "random:3"
    (tmp_path / "w").write_text("12")
    assert stamp(tmp_path) != before


DATA = {name: RNG.integers(0, 256, (2, 64), dtype=np.uint8) for name in "abc"}


def pack(folder: Path, names: str) -> Images:
    with Images(folder, 2, 192) as images:
        for name in names:
            images.write("abc".index(name) * 64, DATA[name])
            images.finished(name, Done(128, (LOSS,)))
        images.flush()
    return images


def contents(images: Images) -> bytes:
    return b"".join(path.read_bytes() for path in images.paths)


def test_images_go_on(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole = pack(tmp_path / "one", "abc")
    pack(tmp_path / "two", "ab")
    rest = pack(tmp_path / "two", "c")
    assert rest.done == dict.fromkeys("ab", Done(128, (LOSS,))) and contents(rest) == contents(whole)


@pytest.mark.parametrize("damage", ["missing", "short", "torn", "empty"])
def test_images_that_are_not_whole_begin_anew(tmp_path: Path, damage: str) -> None:
    images = pack(tmp_path, "ab")
    if damage == "missing":
        images.paths[1].unlink()
    elif damage == "short":
        os.truncate(images.paths[0], 100)
    elif damage == "torn":  # the process died while it noted the second
        text = (tmp_path / DONE).read_text()
        (tmp_path / DONE).write_text(text[:-4])
    else:
        (tmp_path / DONE).write_text("")
    again = pack(tmp_path, "abc")
    assert again.done == ({"a": Done(128, (LOSS,))} if damage == "torn" else {})
    assert pack(tmp_path, "").done == dict.fromkeys("abc", Done(128, (LOSS,)))


def test_only_what_is_on_disk_is_noted(tmp_path: Path) -> None:
    with Images(tmp_path, 2, 192) as images:
        images.finished("a", Done(128))
        assert Images(tmp_path, 2, 192).done == {}
        images.finished("b", Done(SYNC_AT))
        assert Images(tmp_path, 2, 192).done == {"a": Done(128), "b": Done(SYNC_AT)}
