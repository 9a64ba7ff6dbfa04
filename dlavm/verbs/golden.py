"""Golden runs: hashes of logits and memory after each step, so that a bit that moves is seen and located."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlavm.frontend.jsonfile import read_json
from dlavm.pack.artifact import Artifact
from dlavm.support.errors import DlavmError
from dlavm.verbs.common import write_text
from dlavm.verbs.lockstep import Lockstep, logits_hash

FORMAT = 2


def check_golden(artifact: Artifact, engines: Lockstep, path: Path) -> str:
    """Repeats the golden run of a file; the first difference in words, or nothing.

    Raises DlavmError for a file that is missing, broken or of another model or target.
    """
    golden = read_golden(path, artifact)
    prompt, stored = golden["prompt_ids"], golden["steps"]
    if len(prompt) + len(stored) > artifact.manifest.model.ctx:
        raise DlavmError(
            f"{path}: expected at most {artifact.manifest.model.ctx} tokens, got {len(prompt) + len(stored)}"
        )
    tokens = [step["token"] for step in stored]
    for number, (step, ours) in enumerate(zip(stored, _run(engines, prompt, tokens), strict=True)):
        differing = [key for key in ("token", "logits", "memory") if step[key] != ours[key]]
        if differing:
            name = "prefill" if number == 0 else "decode"
            differ = "differs" if differing in (["token"], ["memory"]) else "differ"
            return f"{path}: step {number} ({name}): {' and '.join(differing)} {differ}"
    return ""


def update_golden(artifact: Artifact, engines: Lockstep, path: Path, prompt: Sequence[int], steps: int) -> None:
    """Writes the golden run of `steps` greedy tokens after `prompt`. Raises DlavmError for no step at all."""
    if steps < 1:
        raise DlavmError(f"--update: expected at least one step to write, got {steps}")
    manifest = artifact.manifest
    head: dict[str, Any] = {
        "format": FORMAT,
        "name": manifest.name,
        "target": manifest.target,
        "board": manifest.board,
        "ctx": manifest.model.ctx,
        "chunk": manifest.model.chunk,
        "prompt_ids": list(prompt),
        "step_count": steps,
    }
    records = _run(engines, prompt, [None] * steps)
    lines = ",\n".join(f"  {json.dumps(record)}" for record in records)
    text = json.dumps(head)[:-1] + f', "steps": [\n{lines}\n]}}\n'
    write_text("--golden", path, text)


def read_golden(path: Path, artifact: Artifact) -> dict[str, Any]:
    """The golden file, checked against the artifact."""
    if path.is_dir():
        raise DlavmError(f"--golden: {path}: expected a file, got a directory")
    if not path.is_file():
        raise DlavmError(f"--golden: expected the file {str(path)!r}, got none; write it with --update")
    golden, manifest = read_json(path), artifact.manifest
    expected = {
        "format": FORMAT,
        "name": manifest.name,
        "target": manifest.target,
        "board": manifest.board,
        "ctx": manifest.model.ctx,
        "chunk": manifest.model.chunk,
    }
    for key, value in expected.items():
        if golden.get(key) != value:
            raise DlavmError(f"{path}: {key}: expected {value!r} as the artifact has, got {golden.get(key)!r}")
    _check_prompt(path, golden.get("prompt_ids"), manifest.model.vocab_size)
    _check_steps(path, golden.get("steps"), golden.get("step_count"), manifest.model.vocab_size)
    return golden


def _check_prompt(path: Path, prompt: Any, vocab_size: int) -> None:
    if not isinstance(prompt, list) or not prompt:
        raise DlavmError(f"{path}: prompt_ids: expected a list of at least one token, got {prompt!r}")
    for place, token in enumerate(prompt):
        _check_token(f"{path}: prompt_ids: token {place}", token, vocab_size)


def _check_steps(path: Path, steps: Any, count: Any, vocab_size: int) -> None:
    """Every step that was written must still be there: a file that lost its end would hold less than it says."""
    if not isinstance(steps, list) or not steps:
        raise DlavmError(f"{path}: steps: expected a list of at least one step, got {steps!r}")
    for number, step in enumerate(steps):
        if not isinstance(step, dict) or set(step) != {"token", "logits", "memory"}:
            raise DlavmError(f"{path}: step {number}: expected token, logits and memory, got {str(step)[:60]!r}")
        _check_token(f"{path}: step {number}: token", step["token"], vocab_size)
    if type(count) is not int or count < len(steps):
        raise DlavmError(f"{path}: step_count: expected {len(steps)} as there are steps, got {count!r}")
    if count > len(steps):
        raise DlavmError(f"{path}: step {len(steps)}: expected {count} steps, got {len(steps)}: the rest is missing")


def _check_token(where: str, token: Any, vocab_size: int) -> None:
    if type(token) is not int or not 0 <= token < vocab_size:
        raise DlavmError(f"{where}: expected an id in 0..{vocab_size - 1}, got {token!r}")


def _run(engines: Lockstep, prompt: Sequence[int], tokens: Sequence[int | None]) -> list[dict[str, Any]]:
    """A record a step. A known token is fed to the next step, so that later steps mean the same after a difference."""
    engines.clear()
    records: list[dict[str, Any]] = []
    following = list(prompt)
    for token in tokens:
        result = engines.step("golden", following)
        chosen = int(result.next_ids[-1])
        records.append({"token": chosen, "logits": logits_hash(result), "memory": engines.written_hash()})
        following = [chosen if token is None else token]
    return records
