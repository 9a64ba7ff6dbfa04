"""scripts/soak.py: the server of the bundled model in a crowd, for seconds; what it says about one that leaks."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def soak(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    yield importlib.import_module("soak")
    for name in ("soak", "soak_clients", "bench_table"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("seconds", "scale"), [(5, 0.6), pytest.param(20, 0.6, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_a_crowd(
    seconds: float, scale: float, soak: ModuleType, server_program: Path, stories: Path, tmp_path: Path
) -> None:
    result = asyncio.run(soak.soak(stories, server_program, tmp_path / "log", 16, seconds, scale))
    assert result["wrong"] == []
    assert result["seen"]["tokens checked"] > 0 and result["tokens"] > 0 and result["exit_code"] == 0
    assert 1 <= result["most_conversations"] <= soak.CONVERSATIONS
    assert "| caches in use: most, at the end |" in soak.page_block(result, 16)


def samples(soak: ModuleType, rss: list[int], **last: int) -> list[Any]:
    """One each ten seconds; the last one as `last` says."""
    facts = {"descriptors": 7, "threads": 2, "connections": 1, "conversations": 0, "tokens_out": 1, "dropped": 0}
    made = [soak.Sample(at=10.0 * place, rss=bytes_, **facts) for place, bytes_ in enumerate(rss)]
    return [*made[:-1], soak.Sample(at=made[-1].at, rss=rss[-1], **facts | last)]


def crowd(soak: ModuleType, **seen: int) -> Any:
    made = soak.Crowd(1, "", [], [])
    made.seen.update({"tokens checked": 1, **seen})
    return made


def test_what_leaks_is_said(soak: ModuleType) -> None:
    steady = [50_000_000] * 70
    assert soak.wrong(samples(soak, steady), crowd(soak), 0) == []
    for last in ({"connections": 2}, {"conversations": 1}, {"descriptors": 8}, {"threads": 3}):
        (line,) = soak.wrong(samples(soak, steady, **last), crowd(soak), 0)
        assert line.endswith(f"got {next(iter(last.values()))}")
    assert soak.wrong(samples(soak, steady), crowd(soak), 2) == ["exit code: expected 0, got 2"]
    (line,) = soak.wrong(samples(soak, steady), soak.Crowd(1, "", [], []), 0)
    assert "honest clients" in line
    failed = crowd(soak)
    failed.failures.append("converse: expected token, got error")
    assert "converse" in soak.wrong(samples(soak, steady), failed, 0)[0]


def test_growth(soak: ModuleType) -> None:
    rising = [50_000_000 + 100_000 * place for place in range(70)]
    assert soak.growth(samples(soak, rising)) == pytest.approx(600_000)
    (line,) = soak.wrong(samples(soak, rising), crowd(soak), 0)
    assert line == "memory: expected it to stay, got 600,000 bytes more a minute"
    assert soak.wrong(samples(soak, rising[:20]), crowd(soak), 0) == []  # too short to say
    warm = [40_000_000 + 100_000 * min(place, 20) for place in range(70)]
    assert soak.growth(samples(soak, warm)) == pytest.approx(0)


def test_without_tools_it_says_so_in_a_line(
    soak: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(soak.sys, "executable", "/bin/false")
    assert soak.main(["--work", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "soak: /bin/false: expected to work, got an error\n"
