"""Soak test: the server of the bundled model among clients that come, converse, cancel, stall, vanish and send garbage.

python scripts/soak.py [--minutes 10] [--clients 16] [--work build/soak] [--page] [--json]

The tokens of honest clients are held against those of a session alone. Memory, descriptors, threads and the server's
own statistics are noted every few seconds. At the end every cache and connection must be back, descriptors and threads
as before, memory no longer growing (judged from ten minutes on), and SIGTERM must end the server with code 0. `--page`
writes the figures into doc/serving.md. Exit code 1 with a line for each thing that does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench_table import replace_block, table
from soak_clients import Client, Crowd, connected, fill, live, welcomed, write_talks

from dlavm.pack.artifact import Artifact
from dlavm.runtime.session import open_session
from dlavm.support.errors import DlavmError
from dlavm.support.paths import native_library
from dlavm.support.progress import progress
from dlavm.wire import CHAT

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "doc/serving.md"
CONVERSATIONS, CONNECTIONS = 8, 20
OPTIONS = {"--listen": "127.0.0.1:0", "--option": "threads=1", "--conversations": CONVERSATIONS,
           "--max-connections": CONNECTIONS}  # fmt: skip
MESSAGE_S, STALL_S, IDLE_S = 3.0, 4.0, 10.0  # limits of the server
TALKS = 12
SETTLE_S = 60.0  # for the last clients to be gone
JUDGED_S = 540.0  # shorter runs say nothing about growth
SHORT_S = 60.0  # and even shorter ones do not begin with all memory in use
GROWTH = 128 << 10  # bytes a minute over the second half that count as none: pages of the allocator
KIB = 1024


@dataclass(frozen=True)
class Sample:
    """The server at a time, in seconds since the start."""

    at: float
    rss: int
    descriptors: int
    threads: int
    connections: int
    conversations: int
    tokens_out: int
    dropped: int


def run_quietly(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise DlavmError(f"{command[0]}: expected to work, got {(done.stderr.splitlines() or ['an error'])[-1]}")


def build(work: Path) -> tuple[Path, Path]:
    """The bundled model and its server."""
    artifact, folder = work / "stories", work / "host"
    shutil.rmtree(artifact, ignore_errors=True)
    run_quietly(sys.executable, "-m", "dlavm", "build", ROOT / "models/stories.py", "--target", "v3", "-o", artifact)
    run_quietly("cmake", "-S", artifact / "host", "-B", folder, f"-DDLAVM_LIBRARY={native_library()}")
    run_quietly("cmake", "--build", folder, "--target", "server")
    return artifact, folder / "server"


class Server:
    """The running server. A context manager that kills what is left of it."""

    def __init__(self, program: Path, artifact: Path, log: Path, scale: float) -> None:
        times = {"--message-timeout": MESSAGE_S, "--stall-timeout": STALL_S, "--idle-timeout": IDLE_S}
        options = OPTIONS | {name: scale * seconds for name, seconds in times.items()}
        words = [str(word) for option in options.items() for word in option]
        with log.open("w") as errors:
            self.process = subprocess.Popen([program, "--artifact", artifact, *words], stdout=subprocess.PIPE,
                                            stderr=errors, text=True)  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise DlavmError(f"server: expected a line that it listens, got {log.read_text()[:200]!r}")
        self.port = int(line.rsplit(":", 1)[1])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate()

    def sample(self, at: float, stats: dict[str, Any]) -> Sample:
        folder = Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return Sample(round(at, 1), int(status["VmRSS"].split()[0]) * KIB, len(list((folder / "fd").iterdir())),
                      int(status["Threads"]), stats["connections"], stats["conversations"], stats["tokens_out"],
                      stats["dropped"])  # fmt: skip

    def stop(self) -> int:
        """Exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


async def watch(server: Server, client: Client, since: float) -> Sample:
    """A sample; asking for a reset is a request, which keeps the connection from being idle."""
    client.send("reset", keep=0)
    await client.expect("ok")
    client.send("stats")
    message = await client.expect("statistics")
    return server.sample(time.monotonic() - since, message.fields)


async def fill_caches(crowd: Crowd) -> None:
    """Every cache to its end once, at the same time: from there on their memory is the server's."""

    async def one() -> None:
        async with welcomed(crowd) as client:
            await fill(client, crowd, 1000)

    await asyncio.gather(*(one() for _ in range(CONVERSATIONS)))


async def crowd_for(server: Server, crowd: Crowd, clients: int, seconds: float, pause: float) -> list[Sample]:
    """Samples from before the crowd to after it."""
    if seconds >= SHORT_S:
        await fill_caches(crowd)
    since = time.monotonic()
    over = since + seconds
    async with welcomed(crowd) as monitor:
        samples = [await settled(server, monitor, since)]
        tasks = [asyncio.create_task(live(crowd, seed, lambda: time.monotonic() >= over)) for seed in range(clients)]
        with progress("soaking", round(seconds)) as bar:
            while time.monotonic() < over:
                await asyncio.sleep(min(pause, max(0.0, over - time.monotonic())))
                samples.append(await watch(server, monitor, since))
                bar.advance(round(samples[-1].at - samples[-2].at))
        await asyncio.gather(*tasks)
        return [*samples, await settled(server, monitor, since)]


async def settled(server: Server, monitor: Client, since: float) -> Sample:
    """The first sample without anyone but the monitor, or the last one there was time for."""
    end = time.monotonic() + SETTLE_S
    while True:
        sample = await watch(server, monitor, since)
        if (sample.connections, sample.conversations) == (1, 0) or time.monotonic() > end:
            return sample
        await asyncio.sleep(0.2)


async def ends_politely(server: Server, crowd: Crowd) -> int:
    """Exit code after SIGTERM, where a client is told."""
    async with connected(crowd) as client:
        client.send("hello", magic=CHAT.magic, version=CHAT.version, secret="", client="last")
        await client.expect("welcome")
        code = await asyncio.to_thread(server.stop)
        await client.expect("farewell")
        return code


def growth(samples: Sequence[Sample]) -> float:
    """Bytes a minute over the second half, by least squares; without the sample after the crowd."""
    half = samples[len(samples) // 2 : -1]
    if len(half) < 3:
        return 0.0
    return 60 * statistics.linear_regression([s.at for s in half], [s.rss for s in half]).slope


def wrong(samples: Sequence[Sample], crowd: Crowd, code: int) -> list[str]:
    """What does not hold, a line each."""
    first, last = samples[0], samples[-1]
    facts = {
        "connections": (1, last.connections), "caches in use": (0, last.conversations),
        "descriptors": (first.descriptors, last.descriptors), "threads": (first.threads, last.threads),
        "exit code": (0, code), "failures": ([], crowd.failures[:3]),
    }  # fmt: skip
    lines = [f"{what}: expected {expected}, got {got}" for what, (expected, got) in facts.items() if expected != got]
    if last.at > JUDGED_S and growth(samples) > GROWTH:
        lines.append(f"memory: expected it to stay, got {growth(samples):,.0f} bytes more a minute")
    if not crowd.seen["tokens checked"]:
        lines.append("honest clients: expected some, got none")
    return lines


def report(samples: Sequence[Sample], crowd: Crowd, code: int) -> dict[str, Any]:
    return {
        "seconds": samples[-1].at, "seen": dict(sorted(crowd.seen.items())), "tokens": samples[-1].tokens_out,
        "dropped": samples[-1].dropped, "peak_rss": max(s.rss for s in samples),
        "rss_growth_per_minute": round(growth(samples)), "most_connections": max(s.connections for s in samples),
        "most_conversations": max(s.conversations for s in samples), "exit_code": code,
        "wrong": wrong(samples, crowd, code), "samples": [asdict(sample) for sample in samples],
    }  # fmt: skip


def page_block(result: dict[str, Any], clients: int) -> str:
    """The figures as they stand on the page."""
    samples = result["samples"]

    def seen(*names: str) -> str:
        return ", ".join(f"{result['seen'].get(name, 0):,}" for name in names)

    def at(minute: float) -> str:
        nearest = min(samples[:-1], key=lambda sample: abs(sample["at"] - 60 * minute))
        return f"{nearest['rss'] / 1e6:.2f} MB"

    minutes = result["seconds"] / 60
    first, last = samples[0], samples[-1]
    times = ", ".join(f"{minute:.0f}" for minute in (1, minutes / 2, minutes))
    rows = [
        ("time, clients at once", f"{minutes:.1f} min, {clients}"),
        ("conversations of three turns, states moved", seen("conversations", "states moved")),
        ("tokens, of these checked", f"{result['tokens']:,}, {seen('tokens checked')}"),
        ("cancelled, vanished, stalled, silent", seen("cancels", "vanished", "stalls", "silent")),
        ("garbage, connections that came and went", seen("garbage", "came and went")),
        ("answered busy, closed by an error", f"{seen('busy')}, {result['dropped']:,}"),
        (f"resident memory after {times} min", ", ".join(at(minute) for minute in (1, minutes / 2, minutes))),
        ("peak, growth over the second half", f"{result['peak_rss'] / 1e6:.2f} MB, "
                                              f"{result['rss_growth_per_minute'] / 1e3:+.1f} KB a minute"),
        ("caches in use: most, at the end", f"{result['most_conversations']}, {last['conversations']}"),
        ("connections: most, at the end (one watches)", f"{result['most_connections']}, {last['connections']}"),
        ("descriptors before and after", f"{first['descriptors']}, {last['descriptors']}"),
        ("wrong tokens and other failures, exit code", f"{len(result['wrong'])}, {result['exit_code']}"),
    ]  # fmt: skip
    return table(("", "figure"), rows)


async def soak(
    artifact: Path, program: Path, log: Path, clients: int, seconds: float, scale: float = 1
) -> dict[str, Any]:
    """What a crowd of `clients` found; `scale`: of the times that the server gives them."""
    opened = Artifact.open(artifact)
    with open_session(opened, threads=1) as session:
        talks, long = write_talks(session, TALKS)
    with Server(program, artifact, log, scale) as server:
        crowd = Crowd(server.port, opened.manifest.model_id, talks, long, 2 * STALL_S * scale)
        samples = await crowd_for(server, crowd, clients, seconds, pause=max(0.5, min(5.0, seconds / 40)))
        return report(samples, crowd, await ends_politely(server, crowd))


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=16, help="at once (default 16)")
    parser.add_argument("--work", type=Path, help="for the artifact and its server (default: a folder that goes away)")
    parser.add_argument("--page", action="store_true", help="write the figures into doc/serving.md")
    parser.add_argument("--json", action="store_true", help="one JSON object, with every sample")
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            work = (chosen.work or Path(scratch)).resolve()
            work.mkdir(parents=True, exist_ok=True)
            artifact, program = build(work)
            result = asyncio.run(soak(artifact, program, work / "log", chosen.clients, 60 * chosen.minutes))
    except DlavmError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    block = page_block(result, chosen.clients)
    if chosen.page:
        PAGE.write_text(replace_block(PAGE.read_text(encoding="utf-8"), "soak", block), encoding="utf-8")
    print(json.dumps(result, indent=1) if chosen.json else block)
    for line in result["wrong"]:
        print(f"soak: {line}", file=sys.stderr)
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
