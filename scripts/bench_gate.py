"""The regression gate of `make bench`: doc/benchmarks.json holds the figures of the last committed run; what got worse
since then is said.

A figure of `noise` 0 is a count, which must be the same to the last digit; of any other a change within that share of
the committed value is noise. Times are there as ratios against a peer in the same run only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "doc" / "benchmarks.json"
SHAPES = (("stories.py", "v1"), ("stories.py", "v2"), ("stories.py", "v3"), ("llama.py:llama2_7b", "v3"),
          ("qwen2.py:qwen2_72b", "v3"))  # fmt: skip
COUNTS = ("program_bytes", "activation_peak_bytes", "activation_lower_bound_bytes", "kv_bytes")


@dataclass(frozen=True)
class Figure:
    """`better`: in which direction. `noise`: the share of the value that says nothing."""

    value: float
    better: Literal["less", "more"]
    noise: float = 0.0


def read(path: Path = FIGURES) -> dict[str, Figure]:
    """The committed figures by name; none without the file."""
    if not path.is_file():
        return {}
    return {name: Figure(**one) for name, one in json.loads(path.read_text()).items()}


def text(figures: Mapping[str, Figure]) -> str:
    """The file of these figures, a line each."""
    lines = (f" {json.dumps(name)}: {json.dumps(asdict(one))}" for name, one in sorted(figures.items()))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def changes(committed: Mapping[str, Figure], measured: Mapping[str, Figure]) -> tuple[list[str], list[str]]:
    """What got worse and what got better of the figures that both have, a line each, in the order of names."""
    worse, better = list[str](), list[str]()
    for name in sorted(committed.keys() & measured.keys()):
        old, new = committed[name], measured[name]
        noise = max(old.noise, new.noise) * abs(old.value)
        if abs(new.value - old.value) <= noise:
            continue
        lines = better if (new.value < old.value) == (old.better == "less") else worse
        share = f" ({new.value / old.value - 1:+.1%})" if old.value else ""
        lines.append(f"{name}: {old.value:g} -> {new.value:g}{share}, {old.better} is better")
    return worse, better


def missing(committed: Mapping[str, Figure], measured: Mapping[str, Figure]) -> list[str]:
    """Committed figures that this run did not measure."""
    return sorted(committed.keys() - measured.keys())


def ratio(rounds: Iterable[float]) -> Figure:
    """The median of ratios taken within rounds; the rounds themselves say how much of a change is noise."""
    values = sorted(rounds)
    median = values[len(values) // 2]
    # Medians scatter less than rounds: half of the middle rounds' spread, 5 % at least.
    spread = (values[len(values) * 3 // 4] - values[len(values) // 4]) / median
    return Figure(round(median, 4), "more", round(max(0.05, spread), 4))


def counts() -> dict[str, Figure]:
    """What compiled programs need, without weights: the same on every machine."""
    from dlavm.compile import Options, build
    from dlavm.frontend import load_model
    from dlavm.target import load_target

    figures = {}
    for shape, target in SHAPES:
        model = load_model(ROOT / "models" / shape, "none")
        report = build(model, load_target(target, "vcu128"), Options(), None)
        for count in COUNTS:
            figures[f"{shape} {target}: {count}"] = Figure(report[count], "less")
    return figures
