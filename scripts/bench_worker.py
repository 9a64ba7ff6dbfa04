"""A process that runs one engine for scripts/benchmark.py: `bench_worker.py ENGINE PATH THREADS`.

Says what it is in one line of JSON, then answers each line `prompt N` or `generate N` with the seconds it took, and at
the end of its input with its peak memory. One process an engine: thread pools that spin do not disturb the other
engine, and the peak is that of the engine alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

MODES = ("prompt", "generate")
UNCHECKED = "-unchecked"


class Player(Protocol):
    """An engine with a model in it."""

    def about(self) -> dict[str, Any]:
        """`engine`: its name; `vocab`: ids that it takes; `simd`: the path of the inner loops, where it says."""

    def reset(self) -> None:
        """Forgets every token."""

    def step(self, ids: list[int]) -> int:
        """Runs tokens in one batch; the likeliest id after the last, from logits that have reached the host."""

    def close(self) -> None:
        """Frees what it holds."""


class DlavmPlayer:
    """An engine of dlavm with an artifact; `sim-unchecked` is `sim` without its check of the order between engines."""

    def __init__(self, engine: str, path: Path, threads: int) -> None:
        from dlavm.pack.artifact import Artifact
        from dlavm.runtime.session import open_session

        self.engine = engine
        self.session = open_session(Artifact.open(path), engine.removesuffix(UNCHECKED), threads)
        self.device: Any = self.session.device
        if engine.endswith(UNCHECKED):
            self.device.set_option("check_hazards", 0)

    def about(self) -> dict[str, Any]:
        simd = self.device.info()["simd"] if hasattr(self.device, "info") else "numpy"
        name = f"dlavm {self.engine.removesuffix(UNCHECKED)}"
        name += ", order unchecked" if self.engine.endswith(UNCHECKED) else ""
        return {"engine": name, "simd": simd, "vocab": self.session.model.vocab_size}

    def reset(self) -> None:
        self.session.reset()

    def step(self, ids: list[int]) -> int:
        return int(self.session.prefill(ids).next_ids[-1])

    def close(self) -> None:
        self.session.close()


class LlamaPlayer:
    """llama.cpp with a GGUF file on the CPU, with flash attention: it is the faster way, also of llama.cpp itself."""

    def __init__(self, path: Path, threads: int) -> None:
        import llama_cpp

        self.lib = llama_cpp
        self.model = llama_cpp.Llama(
            str(path), n_ctx=1024, n_batch=512, n_ubatch=512, n_threads=threads, n_threads_batch=threads,
            n_gpu_layers=0, flash_attn=True, verbose=False,
        )  # fmt: skip
        self.vocab = self.model.n_vocab()

    def about(self) -> dict[str, Any]:
        return {"engine": f"llama.cpp (llama-cpp-python {self.lib.__version__})", "vocab": self.vocab}

    def reset(self) -> None:
        lib = self.lib
        lib.llama_memory_clear(lib.llama_get_memory(self.model.ctx), False)

    def step(self, ids: list[int]) -> int:
        """Past the class Llama, which spends time in Python on each token."""
        import numpy as np

        lib, context = self.lib, self.model.ctx
        tokens = (lib.llama_token * len(ids))(*ids)
        status = lib.llama_decode(context, lib.llama_batch_get_one(tokens, len(ids)))
        if status != 0:
            raise RuntimeError(f"llama_decode: expected 0, got {status}")
        return int(np.ctypeslib.as_array(lib.llama_get_logits_ith(context, -1), (self.vocab,)).argmax())

    def close(self) -> None:
        self.model.close()


def open_player(engine: str, path: Path, threads: int) -> Player:
    """The engine `llama`, or one of dlavm."""
    return LlamaPlayer(path, threads) if engine == "llama" else DlavmPlayer(engine, path, threads)


def seconds(player: Player, mode: str, count: int, vocab: int) -> float:
    """A prompt of `count` tokens in one batch, or as many tokens one by one, from an empty cache.

    Done twice, and the second time counts: by then threads are awake and caches hold what this engine needs. Any ids
    do, speed does not depend on them. Raises ValueError for an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
    ids = [(7 * place + 5) % vocab for place in range(count)]
    batches = [ids] if mode == "prompt" else [[token] for token in ids]
    start = 0.0
    for _ in range(2):
        player.reset()
        start = time.perf_counter()
        for batch in batches:
            player.step(batch)
    return time.perf_counter() - start


def peak_bytes() -> int:
    """The most memory that this process has held at once, mapped files included.

    Not getrusage: its figure begins with that of the process which started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status: expected a line VmHWM, got none")


def answers(player: Player, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """What the process says, one object a line."""
    about = player.about()
    yield about
    for line in lines:
        mode, count = line.split()
        yield {"seconds": seconds(player, mode, int(count), about["vocab"])}
    yield {"peak_bytes": peak_bytes()}


def main() -> int:
    """Serves until the input ends."""
    engine, path, threads = sys.argv[1:]
    player = open_player(engine, Path(path), int(threads))
    for answer in answers(player, iter(sys.stdin)):
        print(json.dumps(answer), flush=True)
    player.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
