"""JSON files of a checkpoint, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dlavm.support.errors import DlavmError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises DlavmError naming the file and, of bad JSON, the line."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DlavmError(f"{path}: expected a readable file, got {error.strerror!r}") from None
    except UnicodeDecodeError:
        raise DlavmError(f"{path}: expected JSON, got bytes that are not UTF-8") from None
    except json.JSONDecodeError as error:
        raise DlavmError(f"{path}: expected JSON, got {error.msg!r} at line {error.lineno}") from None
    except RecursionError:
        raise DlavmError(f"{path}: expected JSON, got one nested too deeply") from None
    if not isinstance(found, dict):
        raise DlavmError(f"{path}: expected a JSON object, got {type(found).__name__!r}")
    return found
