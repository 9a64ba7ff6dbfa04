"""The native library over cffi: C declarations in, a library out that is called by them. No compiler is needed."""

from __future__ import annotations

from functools import cache
from typing import Any

from cffi import FFI

from dlavm.support.errors import DlavmError
from dlavm.support.paths import native_library


@cache
def load(declarations: str) -> tuple[FFI, Any]:
    """The library by the declarations of one of its headers. Raises DlavmError where it is missing or not loadable."""
    ffi = FFI()
    ffi.cdef(declarations)
    path = native_library()
    try:
        return ffi, ffi.dlopen(str(path))
    except OSError as e:
        raise DlavmError(f"native library {path}: expected a loadable library, got {str(e)!r}") from None
