"""Where the files stand that are not Python: targets, bundled models, C++ headers, the native library.

In a checkout (editable install) they are in the repository; a wheel carries them in `dlavm/_data`. The native
library is in `dlavm/_native` of the installed package in both.
"""

from __future__ import annotations

from pathlib import Path

import dlavm
from dlavm.support.errors import DlavmError

LIBRARY_NAME = "libdlavm.so"


def data_root() -> Path:
    """The directory that holds `targets/`, `models/` and `clib/`. Raises DlavmError if it is missing."""
    package = Path(__file__).resolve().parent.parent
    candidates = (package / "_data", package.parent)
    for root in candidates:
        if (root / "targets").is_dir():
            return root
    raise DlavmError(f"installation: expected targets/ in {' or '.join(map(str, candidates))}, got none")


def native_library() -> Path:
    """The shared library of the C++ engines. Raises DlavmError if it was not built.

    An editable install has two package directories: the sources, and what the build put into site-packages.
    """
    candidates = [Path(entry) / "_native" / LIBRARY_NAME for entry in dlavm.__path__]
    for path in candidates:
        if path.is_file():
            return path
    raise DlavmError(
        f"installation: expected the native library {' or '.join(map(str, candidates))}, got none; "
        "build it with `pip install -e .`"
    )
