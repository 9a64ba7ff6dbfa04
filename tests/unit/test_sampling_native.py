"""The sampler of a generated host against the one in Python: tokens, counters and errors, bit for bit."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dlavm.pack.tokenizer import MAX_TOP_K
from dlavm.runtime.sampling import EXP_LIMIT, GOLDEN, MASK, Sampler, descending, splitmix64, stated_exp
from dlavm.support.errors import DlavmError

WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror")
# The second asks for what the contract forbids: the source itself must hold a fused multiply-add off.
BUILDS = {
    "sanitizers": ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-D_GLIBCXX_ASSERTIONS"),
    "contracted": ("-O3", "-march=native", "-ffp-contract=fast"),
}
RANDOM_CASES = 3000


@dataclass(frozen=True)
class Case:
    """Parameters of a sampler and the rows of logits, (vocab_size,) fp16 each, that it sees in turn."""

    rows: tuple[NDArray[np.float16], ...]
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 1
    counter: int = 0

    def request(self) -> bytes:
        head = struct.pack("<ddQQII", self.temperature, self.top_p, self.seed, self.counter, self.top_k, len(self.rows))
        return head + b"".join(struct.pack("<Q", row.size) + row.tobytes() for row in self.rows)

    def answers(self) -> list[str]:
        """What Python says, in the form of sampling_main."""
        sampler = Sampler(self.temperature, self.top_k, self.top_p, self.seed, self.counter)
        return [*(str(sampler.sample(row)) for row in self.rows), f"counter {sampler.counter}"]


@pytest.fixture(scope="module", params=BUILDS)
def program(request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/native/sampling_main.cpp with the sampler that is generated into every artifact."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    host = repository / "dlavm/codegen/templates/host"
    path = tmp_path_factory.mktemp("sampling") / "sampling_main"
    command = [compiler, "-std=c++17", *BUILDS[request.param], *WARNINGS, f"-I{host}", "-o", str(path),
               str(repository / "tests/native/sampling_main.cpp"), str(host / "sampling.cpp")]
    build = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in build.stderr and "asan" in build.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert build.returncode == 0, build.stderr[-4000:]
    return path


def ask(program: Path, content: bytes, *arguments: str) -> bytes:
    run = subprocess.run([str(program), *arguments], input=content, capture_output=True, timeout=120)
    assert run.returncode == 0, run.stderr[-4000:].decode()
    return run.stdout


def said(program: Path, cases: list[Case]) -> list[str]:
    return ask(program, b"".join(case.request() for case in cases)).decode().splitlines()


def hold(program: Path, cases: list[Case]) -> None:
    """The same answers in both languages."""
    lines = iter(said(program, cases))
    for case in cases:
        expected = case.answers()
        assert [next(lines, "nothing") for _ in expected] == expected, case
    assert next(lines, None) is None


def row_of(rng: np.random.Generator, count: int) -> NDArray[np.float16]:
    """Finite logits of one of the kinds that matter: spread, ties, zeros of both signs, subnormals, any bits."""
    zeros = np.array([0.0, -0.0, 2.0**-24, -(2.0**-24)], np.float16)
    any_bits = rng.integers(0, 1 << 16, count).astype(np.uint16).view(np.float16)
    kinds = (
        (rng.standard_normal(count) * 10.0 ** rng.uniform(-3, 2)).astype(np.float16),
        rng.choice(rng.standard_normal(3).astype(np.float16), count),
        rng.choice(zeros, count),
        (rng.integers(-1023, 1024, count) * 2.0**-24).astype(np.float16),
        np.where(np.isfinite(any_bits), any_bits, np.float16(-65504)),
        np.full(count, rng.choice([-65504, -0.0, 1, 65504]), np.float16),
    )
    return kinds[rng.integers(len(kinds))]


def top_p_at_a_sum(rng: np.random.Generator, row: NDArray[np.float16], temperature: float) -> float:
    """A top_p whose cut falls on the sum up to some token, where one rounding more or less moves it."""
    values = row[descending(row)].astype(np.float64)
    with np.errstate(over="ignore"):
        x = (values - values[0]) / temperature
    sums = np.cumsum(stated_exp(x[x >= EXP_LIMIT]))
    return float(rng.choice(sums) / sums[-1])


def seed_of(draw: int) -> int:
    """The seed whose first draw is `draw`: every step of SplitMix64 can be undone."""
    z = draw ^ draw >> 31 ^ draw >> 62
    z = z * pow(0x94D049BB133111EB, -1, 1 << 64) & MASK
    z = z ^ z >> 27 ^ z >> 54
    z = z * pow(0xBF58476D1CE4E5B9, -1, 1 << 64) & MASK
    return (z ^ z >> 30 ^ z >> 60) - GOLDEN & MASK


def random_cases(count: int) -> Iterator[Case]:
    rng = np.random.default_rng(20)
    for _ in range(count):
        rows = tuple(row_of(rng, int(n)) for n in rng.choice([1, 2, 3, 17, 100, 400], 3))
        temperature = float(rng.choice([0.0, 5e-324, 1e-6, 1.0, 100.0, 1e300, *10.0 ** rng.uniform(-6, 2, 8)]))
        at_a_sum = top_p_at_a_sum(rng, rows[0], temperature) if temperature else 1.0
        yield Case(
            rows, temperature, top_k=int(rng.choice([0, 0, 1, 2, 40, MAX_TOP_K])),
            top_p=float(rng.choice([1.0, 5e-324, 1e-9, 0.5, 0.95, 1 - 2.0**-53, at_a_sum, at_a_sum, at_a_sum])),
            seed=int(rng.integers(0, MASK, dtype=np.uint64, endpoint=True)), counter=int(rng.integers(0, 1 << 40)),
        )  # fmt: skip


def test_random_cases(program: Path) -> None:
    cases = list(random_cases(RANDOM_CASES))
    hold(program, cases)
    tokens = {answer for case in cases for answer in case.answers()[:-1]}
    assert len(tokens) > 100


def test_a_large_vocabulary(program: Path) -> None:
    rng = np.random.default_rng(21)
    row = (rng.standard_normal(151936) * 3).astype(np.float16)
    hold(program, [Case((row,) * 20, top_k=k, top_p=p, seed=7) for k in (0, 50000) for p in (1.0, 0.95)])


def test_corner_cases(program: Path) -> None:
    zeros = np.array([-1, -0.0, 0.0, -0.0], np.float16)
    cases = [Case((zeros,), temperature=t, top_k=k) for t in (0.0, -0.0, 1.0) for k in (0, 1, 2, 3)]
    cases += [Case((zeros[:1],) * 2, counter=c, seed=s) for c in (0, MASK) for s in (0, MASK)]
    cases += [Case((zeros,), temperature=t, top_p=p) for t in (5e-324, 1.7e308) for p in (5e-324, 1 - 2.0**-53)]
    hold(program, cases)


def test_draws_on_the_edge_of_a_token(program: Path) -> None:
    equal = np.zeros(4, np.float16)  # sums 1, 2, 3, 4: a draw that equals a sum falls on the token after it
    draws = {q << 62: q for q in range(4)} | {(q << 62) - 1: q - 1 for q in range(1, 5)}
    cases = [Case((equal,), seed=seed_of(draw)) for draw in draws]
    assert [splitmix64(case.seed, 0) for case in cases] == list(draws)
    assert [case.answers()[0] for case in cases] == [str(token) for token in draws.values()]
    hold(program, cases)


def test_exp(program: Path) -> None:
    rng = np.random.default_rng(22)
    x = np.concatenate([-np.arange(40 * 256 + 1) / 256, [-0.0, -5e-324, -1e-300], rng.uniform(-40, 0, 20000)])
    assert ask(program, x.tobytes(), "exp") == stated_exp(x).tobytes()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": -0.1}, "temperature: expected a finite number of at least 0, got -0.1"),
        ({"temperature": float("nan")}, "temperature: expected a finite number of at least 0, got nan"),
        ({"temperature": float("inf")}, "temperature: expected a finite number of at least 0, got inf"),
        ({"top_p": 0.0}, "top_p: expected a number above 0 and at most 1, got 0"),
        ({"top_p": 1.5}, "top_p: expected a number above 0 and at most 1, got 1.5"),
        ({"top_p": float("nan")}, "top_p: expected a number above 0 and at most 1, got nan"),
        ({"top_k": 1 << 31}, "top_k: expected an integer in 0..2147483647, got 2147483648"),
    ],
)
def test_parameters_out_of_range(program: Path, parameters: dict[str, Any], message: str) -> None:
    case = Case((np.zeros(3, np.float16),), **parameters)
    with pytest.raises(DlavmError, match=message.split(", got")[0]):
        case.answers()
    assert said(program, [case]) == [f"error: sampler: {message}"]


def test_logits_that_are_none(program: Path) -> None:
    good = np.array([1, 2, 3], np.float16)
    bad = [np.array([0, value], np.float16) for value in (np.inf, -np.inf, np.nan)]
    expected = Case((good, good), counter=5).answers()
    lines = said(program, [Case((good, good[:0], *bad, good), counter=5)])
    assert lines == [
        expected[0],
        "error: logits: expected at least one, got none",
        *["error: logits: expected finite numbers, got another one for token 1"] * 3,
        *expected[1:],
    ]
