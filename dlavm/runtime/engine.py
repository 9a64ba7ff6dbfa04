"""Engines by name or URL, and putting an artifact into the memory of one.

An engine is a `Device`; which one it is makes no difference to anything that is above this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dlavm.pack.artifact import Artifact
from dlavm.sim.device import Device, DeviceError
from dlavm.support import env
from dlavm.support.errors import DlavmError
from dlavm.support.progress import progress
from dlavm.target.spec import ADDRESS_UNIT, TargetSpec

Opener = Callable[[TargetSpec, int | None], Device]
RTL = "rtl"


@dataclass(frozen=True)
class Waves:
    """A file (FST) for the waves of a Verilated core in the cycles begin .. end - 1 since it was opened."""

    file: Path
    begin: int = 0
    end: int = 100_000


def _open_sim(spec: TargetSpec, threads: int | None) -> Device:
    from dlavm.sim.native import NativeDevice

    device = NativeDevice(spec, threads=threads or env.THREADS.get())
    device.set_option("simd", env.SIMD.get())
    return device


def _open_reference(spec: TargetSpec, threads: int | None) -> Device:
    from dlavm.sim.reference import ReferenceDevice

    return ReferenceDevice(spec)


def rtl_url(spec: TargetSpec, waves: Waves | None = None) -> str:
    """The URL of the Verilated core of a target on its board, built if need be. Raises DlavmError where it is not."""
    from dlavm.rtl.model import library

    path = library(spec, waves=waves is not None)
    return f"rtl:{path}" + (f"?trace={waves.file}&cycles={waves.begin}:{waves.end}" if waves else "")


def _open_rtl(spec: TargetSpec, threads: int | None, waves: Waves | None = None) -> Device:
    from dlavm.sim.native import NativeDevice

    return NativeDevice(spec, rtl_url(spec, waves))


def _open_timed(spec: TargetSpec, threads: int | None) -> Device:
    from dlavm.sim.timed import open_timed

    device = open_timed(spec, threads or env.THREADS.get())
    device.set_option("simd", env.SIMD.get())
    return device


def _open_url(url: str, spec: TargetSpec, threads: int | None) -> Device:
    from dlavm.sim.native import NativeDevice

    return NativeDevice(spec, url, threads)


ENGINES: Mapping[str, Opener] = {"sim": _open_sim, "timed": _open_timed, "reference": _open_reference, RTL: _open_rtl}
# Devices elsewhere, by URL (doc/devices.md): the scheme, and what stands behind its colon.
TRANSPORTS: Mapping[str, str] = {"rtl": "/path/libdlavm_rtl.so", "tcp": "HOST:PORT", "xdma": "/dev/xdma0"}


def engine_names() -> list[str]:
    """The engines of this machine."""
    return list(ENGINES)


def engine_forms() -> list[str]:
    """What `open_engine` takes: names, and forms of URLs."""
    return [*ENGINES, *(f"{scheme}:{rest}" for scheme, rest in TRANSPORTS.items())]


def is_engine(name: str) -> bool:
    """Whether `name` is an engine's, or a URL of a known scheme."""
    scheme, _, rest = name.partition(":")
    return name in ENGINES or (scheme in TRANSPORTS and rest != "")


def open_engine(name: str, artifact: Artifact, threads: int | None = None, waves: Waves | None = None) -> Device:
    """The engine `name` with the artifact's weights, tables and programs in its memory, ready for a session.

    `name` is one of `engine_names()`, or the URL of a device. `threads` is for engines that run on a machine's cores
    (None: DLAVM_THREADS, or as many as it has; a device elsewhere decides itself), `waves` for `rtl` alone. Raises
    DlavmError for an unknown name, a device that cannot be opened or is of another target, or an artifact that does not
    fit its memory.
    """
    if not is_engine(name):
        raise DlavmError(f"engine: expected one of {', '.join(engine_forms())}, got {name!r}")
    opener = ENGINES.get(name) or partial(_open_url, name)
    if waves is not None:
        if name != RTL:
            raise DlavmError(f"waves: expected the engine rtl, got {name!r}")
        opener = partial(_open_rtl, waves=waves)
    device = opener(artifact.target, threads)
    try:
        check_identity(device, artifact)
        upload(device, artifact)
    except BaseException:
        device.close()
        raise
    return device


def check_identity(device: Device, artifact: Artifact) -> None:
    """Raises DlavmError unless the ID register holds the first 32 bits of the artifact's target hash."""
    expected = int(artifact.manifest.target_hash[:8], 16)
    got = device.csr_read(artifact.target.registers["ID"].offset)
    if got != expected:
        raise DlavmError(f"engine: ID register: expected {expected:#010x} ({artifact.manifest.target} on "
                         f"{artifact.manifest.board}), got {got:#010x}: a device of another target or version")


def upload(device: Device, artifact: Artifact) -> None:
    """Maps the weight images, writes tables and programs. Raises DlavmError that names what does not fit."""
    manifest = artifact.manifest
    writes = {(b.file, b.address) for b in manifest.blobs}
    with progress("loading the engine", len(manifest.images) + len(writes)) as bar:
        for image in manifest.images:
            if image.bytes:
                path = artifact.file(image.file)
                _put(image.file, partial(device.mem_map, image.address, image.channel, path, image.bytes))
            bar.advance()
        for file, address in sorted(writes):
            _put(file, partial(device.mem_write, address, artifact.file(file).read_bytes()))
            bar.advance()


def select_program(device: Device, artifact: Artifact, name: str) -> None:
    """Points the device at a program of the artifact. Raises DlavmError for a target that fetches no stream."""
    registers = artifact.target.registers
    if "PROGRAM" not in registers:
        raise DlavmError(f"target {artifact.target.name}: expected a PROGRAM register for program {name!r}, got none")
    program = artifact.manifest.programs[name]
    device.csr_write(registers["PROGRAM"].offset, program.address // ADDRESS_UNIT)
    device.csr_write(registers["PROGRAM_WORDS"].offset, program.words)


def _put(file: str, write: Callable[[], object]) -> None:
    try:
        write()
    except (DeviceError, DlavmError) as error:
        raise DlavmError(f"engine: {file}: expected to fit the device's memory, got {error}") from None
