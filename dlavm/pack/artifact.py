"""An artifact directory: written whole or not at all, and checked file by file when it is opened."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from dlavm.pack.manifest import Manifest
from dlavm.pack.places import check_places
from dlavm.pack.tokenizer import read_object, read_text, template_of, tokenizer_texts
from dlavm.support.atomic import MANIFEST_NAME, atomic_directory, sha256_file
from dlavm.support.errors import DlavmError
from dlavm.support.progress import progress
from dlavm.target.spec import TargetSpec, load_target

HOST = "host"  # people build the generated C++ project in place, so files may be added there
TOKENIZER = "tokenizer"
TOKENIZER_FILE = f"{TOKENIZER}/tokenizer.json"

Producer = Callable[[BinaryIO], object]


class ArtifactWriter:
    """Writes an artifact to `path` as a context manager; it appears when the block ends after `finish`.

        with ArtifactWriter("output/stories") as writer:
            writer.add_file("tables.bin", tables)
            writer.add_file("weights/ch00.bin", lambda file: channel.tofile(file))
            writer.finish(manifest)

    Equal input gives equal bytes. Whatever raises in the block, or a block without `finish`, leaves `path` as it was.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._directory = atomic_directory(path)
        self._folder: Path | None = None
        self._files: dict[str, str] = {}
        self._finished = False

    def __enter__(self) -> ArtifactWriter:
        self._folder = self._directory.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._finished:
            missing = DlavmError(f"artifact {str(self.path)!r}: expected finish(manifest) before the end, got none")
            self._directory.__exit__(DlavmError, missing, None)
            raise missing
        self._directory.__exit__(kind, error, trace)

    @property
    def files(self) -> Mapping[str, str]:
        """Relative path and SHA-256 of each file so far."""
        return dict(self._files)

    def add_file(self, name: str, content: bytes | bytearray | memoryview | Producer) -> str:
        """Writes the file `name` (a relative path with '/') and returns its SHA-256.

        `content` is its bytes, or a function that writes them to the binary file it is given, for what is too
        large to hold at once. Raises DlavmError for a name that was added before or leaves the directory.
        """

        def write(path: Path) -> None:
            with open(path, "xb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)

        return self._add(name, write)

    def adopt(self, name: str, file: Path) -> str:
        """Takes a finished file of the same file system as the file `name`, as `add_file` does; nothing is copied."""
        return self._add(name, lambda path: os.link(file, path))

    def _add(self, name: str, place: Callable[[Path], object]) -> str:
        path = self._place(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            place(path)
            self._files[name] = sha256_file(path)
        except OSError as error:
            where = f"artifact {str(self.path)!r}"
            raise DlavmError(f"{where}: expected to write {name!r}, got {str(error)!r}") from None
        return self._files[name]

    def add_tokenizer(self, source: Path | Mapping[str, str]) -> None:
        """Copies what a checkpoint directory has of tokenizer, chat template and generation defaults, or the texts of
        these files by name.

        Raises DlavmError for a file that a later `run` could not use.
        """
        for name, text in tokenizer_texts(source).items():
            self.add_file(f"{TOKENIZER}/{name}", text.encode())

    def finish(self, manifest: Manifest) -> Manifest:
        """Writes the manifest, its `files` filled in, as the last file. Raises DlavmError if it disagrees with them."""
        complete = dataclasses.replace(manifest, files=self.files)
        text = complete.to_json()
        check_places(complete, load_target(complete.target, complete.board), MANIFEST_NAME)
        folder = self._open_folder()
        for name, size in complete.sized_files():
            _check_size(folder / name, name, size, self.path)
        (folder / MANIFEST_NAME).write_bytes(text.encode())
        self._finished = True
        return complete

    def _open_folder(self) -> Path:
        if self._folder is None or self._finished:
            raise DlavmError(f"artifact {str(self.path)!r}: expected an open writer, got one that is not")
        return self._folder

    def _place(self, name: str) -> Path:
        folder = self._open_folder()
        parts = name.split("/")
        if name in self._files or name == MANIFEST_NAME or not all(parts) or {".", ".."} & set(parts):
            raise DlavmError(f"artifact {str(self.path)!r}: expected a new relative file name, got {name!r}")
        return folder / name


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk whose manifest was read and whose files were checked."""

    path: Path
    manifest: Manifest
    target: TargetSpec

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> Artifact:
        """Opens the artifact at `path`. Raises DlavmError that names the file which is missing, too many or wrong.

        The manifest, presence and stated sizes are always checked, hashes with `verify`. An artifact for another
        version of the target than the installed one is refused.
        """
        folder = Path(path)
        text = _read_manifest(folder)
        where = str(folder / MANIFEST_NAME)
        manifest = Manifest.from_json(text, where)
        target = _target_of(folder, manifest)
        check_places(manifest, target, where)
        if manifest.canonical().encode() != text:
            raise DlavmError(f"{where}: expected the text as dlavm writes it, got another: it was changed or damaged; "
                             "rebuild the artifact")
        _check_presence(folder, manifest)
        if verify:
            _check_hashes(folder, manifest)
        return cls(folder, manifest, target)

    def file(self, name: str) -> Path:
        """Path of a file of the artifact. Raises DlavmError for a name that the manifest does not list."""
        if name not in self.manifest.files:
            raise DlavmError(f"artifact {str(self.path)!r}: expected a file of the manifest, got {name!r}")
        return self.path / name

    @property
    def tokenizer_path(self) -> Path | None:
        """tokenizer.json, or None for a model that came without one."""
        return self._optional("tokenizer.json")

    @cached_property
    def tokenizer_config(self) -> Mapping[str, Any]:
        """tokenizer_config.json; empty where there is none."""
        return self._object("tokenizer_config.json")

    @cached_property
    def chat_template(self) -> str | None:
        """The Jinja text of the chat template: chat_template.jinja, or the (default) one of tokenizer_config.json."""
        path = self._optional("chat_template.jinja")
        if path is not None:
            return read_text(path)
        return template_of(self.tokenizer_config)

    @property
    def generation(self) -> Mapping[str, Any]:
        """Defaults for sampling that the model's authors state (temperature, top_k, top_p, do_sample, ...)."""
        return self._object("generation_config.json")

    def _optional(self, name: str) -> Path | None:
        full = f"{TOKENIZER}/{name}"
        return self.path / full if full in self.manifest.files else None

    def _object(self, name: str) -> Mapping[str, Any]:
        path = self._optional(name)
        return {} if path is None else read_object(path)


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST_NAME
    try:
        return path.read_bytes()
    except OSError as error:
        raise DlavmError(f"{path}: expected the manifest of an artifact, got {error.strerror!r}") from None


def _check_presence(folder: Path, manifest: Manifest) -> None:
    names = _files_below(folder)
    for name in manifest.files:
        if name not in names:
            raise DlavmError(f"{folder / name}: expected a file that the manifest lists, got none; rebuild")
    extra = [n for n in names if n not in manifest.files and n != MANIFEST_NAME and not n.startswith(f"{HOST}/")]
    if extra:
        raise DlavmError(f"{folder / min(extra)}: expected only files that the manifest lists, got another; remove it")
    for name, size in manifest.sized_files():
        _check_size(folder / name, name, size, folder)


def _files_below(folder: Path) -> set[str]:
    found: set[str] = set()
    for place, _, names in os.walk(folder):
        relative = Path(place).relative_to(folder)
        found.update((relative / name).as_posix() for name in names)
    return found


def _check_size(path: Path, name: str, size: int, folder: Path) -> None:
    got = path.stat().st_size
    if got != size:
        raise DlavmError(f"artifact {str(folder)!r}: {name}: expected {size} bytes, got {got}; rebuild the artifact")


def _check_hashes(folder: Path, manifest: Manifest) -> None:
    with progress("checking the artifact", len(manifest.files)) as bar:
        for name, digest in sorted(manifest.files.items()):
            try:
                got = sha256_file(folder / name)
            except OSError as error:
                raise DlavmError(f"{folder / name}: expected a readable file, got {error.strerror!r}") from None
            if got != digest:
                raise DlavmError(f"{folder / name}: expected SHA-256 {digest}, got {got!r}: it was changed or damaged; "
                                 "rebuild the artifact")
            bar.advance()


def _target_of(folder: Path, manifest: Manifest) -> TargetSpec:
    target = load_target(manifest.target, manifest.board)
    if target.hash != manifest.target_hash:
        raise DlavmError(f"artifact {str(folder)!r} was built for target hash {manifest.target_hash}, this dlavm has "
                         f"{target.hash} for {manifest.target} on {manifest.board}: rebuild it")
    return target
