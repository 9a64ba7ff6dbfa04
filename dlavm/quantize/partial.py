"""What an unfinished run has done, so that the next one goes on from there: a directory beside the output."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dlavm.frontend.jsonfile import read_json
from dlavm.support.errors import DlavmError

SUFFIX, STATE = ".partial", "state.json"


@dataclass
class UnitState:
    """A finished unit: what is reported of its matrices; their arrays are in a file."""

    rows: list[dict[str, Any]]


@dataclass
class Partial:
    """`settings` are what the results depend on; the state of a run with others is not taken over. A context manager:
    inside it, no other process has the directory."""

    out: Path
    settings: Mapping[str, Any]
    errors: dict[int, dict[str, float]] = field(default_factory=dict)  # by unit and format, of a search for formats
    units: dict[int, UnitState] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return self.out.with_name(self.out.name + SUFFIX)

    @property
    def path(self) -> Path:
        return self.directory / STATE

    def __enter__(self) -> Partial:
        """Makes the directory or reads its state. Raises DlavmError where another process has it, or another run."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.path.exists():
                self._read()
        except BlockingIOError:
            os.close(self._lock)
            raise DlavmError(f"{self.directory}: expected no other run of this output, got one at work") from None
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._lock)

    def _read(self) -> None:
        state, hint = read_json(self.path), "remove the directory to begin anew, or choose another output"
        found = state.get("settings")
        if found != self.settings:
            found = found if isinstance(found, dict) else {}
            other = [key for key in self.settings if found.get(key) != self.settings[key]]
            raise DlavmError(f"{self.directory}: expected a run of the same model with the same options, "
                             f"got one with another {', '.join(other) or 'version'}; {hint}")  # fmt: skip
        try:
            self.errors = {int(unit): dict(errors) for unit, errors in state["errors"].items()}
            self.units = {int(unit): UnitState(list(rows)) for unit, rows in state["units"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DlavmError(f"{self.path}: expected the state of a run, got another object; {hint}") from None

    def commit(self, unit: int, arrays: Mapping[str, NDArray[Any]], rows: list[dict[str, Any]]) -> None:
        """A unit is finished: its arrays and what is reported of it. After a crash it counts whole or not at all."""
        _write(self._file(unit), save(dict(arrays)))
        self.units[unit] = UnitState(rows)
        self.save()

    def save(self) -> None:
        state = {
            "settings": self.settings,
            "errors": {str(unit): errors for unit, errors in self.errors.items()},
            "units": {str(unit): found.rows for unit, found in self.units.items()},
        }
        _write(self.path, json.dumps(state, indent=1).encode())

    def arrays(self, unit: int, *names: str) -> dict[str, NDArray[Any]]:
        """Those of a finished unit that are there under these names."""
        path = self._file(unit)
        try:
            with safe_open(path, framework="numpy") as file:
                present = set(file.keys())
                return {name: file.get_tensor(name) for name in names if name in present}
        except (SafetensorError, OSError) as error:
            raise DlavmError(f"{path}: expected what {STATE} says is done, got {str(error)!r}; remove the directory to "
                             "begin anew") from None  # fmt: skip

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def _file(self, unit: int) -> Path:
        return self.directory / f"unit-{unit:05}.safetensors"


def _write(path: Path, content: bytes) -> None:
    """Replaces a file, whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
