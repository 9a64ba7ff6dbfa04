"""Weights from a directory of safetensors files, memory-mapped, some rows of a tensor at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - registers bfloat16, which safetensors then hands out
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from dlavm.formats import Grid
from dlavm.frontend.jsonfile import read_json
from dlavm.frontend.model import ALL, DTYPES
from dlavm.frontend.safetensors_file import SafetensorsFile
from dlavm.support.errors import DlavmError

MAPPED = 256 << 20  # bytes of the files that may be resident
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


class SafetensorsSource:
    """A `WeightSource` over model.safetensors, the shards of an index, or all *.safetensors of a directory."""

    def __init__(self, directory: Path) -> None:
        """Raises DlavmError naming the file that is missing, truncated or not safetensors."""
        self.place = str(directory)
        self._files: dict[str, Any] = {}
        self._where: dict[str, Path] = {}
        self._parts: dict[Path, SafetensorsFile] = {}
        self._mapped = 0  # bytes read since the files were opened
        index = directory / INDEX
        if (directory / SINGLE).is_file() or not index.is_file():
            self._read_files(directory)
        else:
            self._read_index(index)

    def _read_files(self, directory: Path) -> None:
        single = directory / SINGLE
        paths = [single] if single.is_file() else sorted(directory.glob("*.safetensors"))
        if not paths:
            raise DlavmError(f"weights {directory}: expected *.safetensors, got {_instead(directory)}")
        for path in paths:
            for name in self._open(path).keys():  # noqa: SIM118 - not a dict
                if name in self._where:
                    raise DlavmError(f"weights {path}: expected tensors once, got {name!r} in {self._where[name]} too")
                self._where[name] = path

    def _read_index(self, index: Path) -> None:
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise DlavmError(f"{index}: weight_map expected tensor names and files, got {weight_map!r}")
        for name, file in sorted(weight_map.items()):
            if not isinstance(file, str) or Path(file).name != file:
                raise DlavmError(f"{index}: {name} expected a file name beside the index, got {file!r}")
            path = index.parent / file
            if name not in self._open(path).keys():  # noqa: SIM118
                raise DlavmError(f"{path}: expected the tensor {name!r}, as {INDEX} says, got none")
            self._where[name] = path

    def _open(self, path: Path) -> Any:
        key = str(path)
        if key not in self._files:
            try:
                self._files[key] = safe_open(path, framework="numpy")
            except (SafetensorError, OSError) as error:
                raise DlavmError(f"{path}: expected a safetensors file, got {_first_line(error)!r}") from None
        return self._files[key]

    def _release(self, read: int) -> None:
        """Unmaps the files once enough of them has been read: their pages count as resident memory until then."""
        self._mapped += read
        if self._mapped > MAPPED:
            self._files.clear()
            self._mapped = 0

    def _file_of(self, name: str) -> Any:
        if name not in self._where:
            raise DlavmError(f"weights {self.place}: expected a tensor of the checkpoint, got {name!r}")
        return self._open(self._where[name])

    def names(self) -> list[str]:
        return sorted(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file_of(name).get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        return str(self._file_of(name).get_slice(name).get_dtype())

    def get(self, name: str, rows: slice = ALL) -> NDArray[Any]:
        """Rows as float16 or float32. Raises DlavmError for other types and for NaN or infinity."""
        if self.dtype(name) not in DTYPES:
            raise DlavmError(f"{self._where[name]}: {name} expected one of {DTYPES!r}, got {self.dtype(name)!r}")
        file = self._file_of(name)
        tensor = file.get_tensor(name) if rows == ALL else file.get_slice(name)[rows]
        self._release(tensor.nbytes)
        array: NDArray[Any] = tensor if tensor.dtype == np.float16 else tensor.astype(np.float32)
        if not np.isfinite(array).all():
            raise DlavmError(f"{self._where[name]}: {name} expected finite values, got NaN or infinity")
        return array

    def path_of(self, name: str) -> Path:
        """The file that holds a tensor."""
        self._file_of(name)
        return self._where[name]

    def stored(self, name: str, rows: slice = ALL, columns: slice = ALL) -> NDArray[Any]:
        """A copy of some rows, of a matrix of some of their columns, in the type that they are stored in; eight-bit
        floats as their codes. Raises DlavmError for types that numpy has none for."""
        path = self.path_of(name)
        if path not in self._parts:
            self._parts[path] = SafetensorsFile(path)
        return self._parts[path].part(name, rows, columns)

    def grid(self, name: str, rows: slice = ALL) -> Grid | None:
        return None

    def note(self, name: str) -> str:
        return ""

    def nearest(self, name: str) -> str:
        return ""


def _instead(directory: Path) -> str:
    """What a directory without safetensors has: PyTorch's own files are pickles, which run what they hold."""
    pickled = next(iter(sorted(directory.glob("*.bin"))), None)
    if pickled is None:
        return "none"
    return f"{pickled.name}; transformers converts it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(DIR2)"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
