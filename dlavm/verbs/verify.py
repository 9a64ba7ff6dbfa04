"""`dlavm verify`: bit equality between engines, agreement with the float model, golden runs, perplexity."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlavm.pack.artifact import Artifact
from dlavm.runtime.engine import engine_forms, is_engine
from dlavm.runtime.sampling import Sampler
from dlavm.runtime.session import Session
from dlavm.support.errors import DlavmError
from dlavm.support.paths import data_root
from dlavm.support.progress import Bar, progress
from dlavm.verbs import floats
from dlavm.verbs.common import (
    Subparsers,
    add_artifact,
    add_verb,
    add_waves,
    length_list,
    model_of,
    open_artifact,
    positive,
    print_json,
    size,
    text,
    waves_of,
)
from dlavm.verbs.golden import check_golden, read_golden, update_golden
from dlavm.verbs.lockstep import Lockstep, logits_hash
from dlavm.verbs.perplexity import perplexity, read_documents

PROMPTS = (1, 7, 32, 100)
TOKENS = 64
GOLDEN_PROMPT = 7
CHUNKED_PROMPT = 32
# A floor, not the accuracy bar: two engines that run the same wrong program agree with each other, and only the float
# model tells. The bundled model has 0.3 %.
FLOAT_TOLERANCE = 0.05  # largest error of a logit over the largest logit
PPL_TOLERANCE = 0.001  # doc/numerics.md: engine against the float32 evaluation of the same quantised weights


@dataclass
class Agreement:
    """The float model's choices and logits against the engine's."""

    positions: int = 0
    agreeing: int = 0
    max_logit_error: float = 0.0
    max_logit: float = 0.0

    @property
    def problem(self) -> str:
        """What is wrong with the agreement, empty if nothing is."""
        bound = FLOAT_TOLERANCE * self.max_logit
        if self.max_logit_error <= bound < math.inf:
            return ""
        return f"logits: expected within {bound:.4g} of the float model, got an error of {self.max_logit_error:.4g}"

    def add(self, engine: NDArray[np.floating], wanted: NDArray[np.float32]) -> None:
        """Rows of logits at the same positions."""
        self.positions += len(engine)
        self.max_logit = max(self.max_logit, _largest(wanted))
        self.agreeing += int((engine.argmax(axis=1) == wanted.argmax(axis=1)).sum())
        with np.errstate(invalid="ignore"):
            self.max_logit_error = max(self.max_logit_error, _largest(engine.astype(np.float32) - wanted))


def _largest(values: NDArray[np.floating]) -> float:
    """The largest magnitude; infinite if there is a NaN, which every comparison would pass over."""
    largest = float(np.abs(values).max(initial=0))
    return math.inf if math.isnan(largest) else largest


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "verify",
        run,
        "compare engines bit by bit, and with the float model",
        "Prompts of several lengths, then greedy decoding: after every step all memory in use and the logits must be\n"
        "equal on all engines, however a prompt is cut into chunks; of a difference the first byte is named with its\n"
        "address and tensor. The tokens also go through the graph in float32 with the artifact's own numbers. The\n"
        "exit code is 1 if a bit or a golden step differs, a logit is further from the float model than 5 % of the\n"
        "largest logit, or the perplexity of the engine is more than 0.1 % away from that of the quantised weights.\n"
        "The engine rtl takes seconds a step: give it few.",
        """dlavm verify output/stories
        dlavm verify output/stories-nano --engines sim,rtl --prompts 5 --tokens 2 --all-memory --no-float
        dlavm verify output/stories --engines sim --golden stories.json --update
        dlavm verify output/stories --tokens 8 --prompts 7 --ppl heldout.txt --ppl-tokens 5000""",
    )
    add_artifact(parser)
    parser.add_argument(
        "--engines", default="reference,sim", metavar="A,B", help="engines to compare (default %(default)s)"
    )
    parser.add_argument(
        "--tokens", type=positive, metavar="N", help=f"decode steps a prompt (default {TOKENS}, or half the context)"
    )
    parser.add_argument(
        "--prompts",
        type=length_list,
        metavar="N,M",
        help="lengths of the prompts (default 1,7,32,100, those that fit); the longest, up to 32, is also cut",
    )
    parser.add_argument(
        "--all-memory", action="store_true", help="compare every byte of the board's memories, used or not"
    )
    parser.add_argument("--no-float", action="store_true", help="without the float model, which takes 4 bytes a weight")
    parser.add_argument("--golden", type=text, metavar="FILE", help="compare with the hashes in a file")
    parser.add_argument("--update", action="store_true", help="write the file of --golden instead")
    parser.add_argument(
        "--ppl", type=text, metavar="FILE", help="perplexity of a text: documents between <|endoftext|> or blank lines"
    )
    parser.add_argument("--ppl-tokens", type=positive, metavar="N", help="tokens of it to predict at most")
    parser.add_argument(
        "--model",
        type=text,
        metavar="MODEL",
        help="the model it was built from, for the perplexity of the original weights",
    )
    parser.add_argument(
        "--weights", type=text, metavar="DIR", help="with --model: directory of safetensors instead of its own"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of the engines (default: all cores)")
    add_waves(parser)


def run(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    artifact = open_artifact(args.artifact)
    engines = _engines(args)
    lengths = _lengths(args, artifact)
    if args.golden and not args.update:
        read_golden(Path(args.golden), artifact)
    texts = read_documents(artifact, Path(args.ppl), args.ppl_tokens) if args.ppl else []
    original = _original(args, artifact) if texts else None
    yardstick = None if args.no_float else floats.quantised_session(artifact)
    waves = waves_of(args, engines)
    with Lockstep(artifact, engines, args.threads, waves, args.all_memory) as lockstep:
        chunked = min(CHUNKED_PROMPT, max(lengths)) if args.prompts else CHUNKED_PROMPT
        prompt = sample_prompt(lockstep.fastest, max(*lengths, GOLDEN_PROMPT, chunked))
        agreement = _compare(lockstep, yardstick, prompt, lengths, args.tokens, chunked)
        golden = _golden(args, artifact, lockstep, prompt[: max(lengths)])
        ppl = _perplexities(lockstep.fastest, yardstick, original, texts) if texts and yardstick else None
        report = _report(lockstep, agreement, golden, ppl)
    if args.json:
        print_json(_finite(report))
    else:
        print(summary(report, time.perf_counter() - start))
    return 0 if report["ok"] else 1


def _engines(args: argparse.Namespace) -> list[str]:
    engines = args.engines.split(",")
    unknown = [name for name in engines if not is_engine(name)]
    if unknown or len(set(engines)) < len(engines):
        raise DlavmError(f"--engines: expected different ones of {', '.join(engine_forms())}, got {args.engines!r}")
    if args.no_float and args.ppl:
        raise DlavmError(f"--no-float: expected no --ppl beside it, which needs the float model, got {args.ppl!r}")
    if args.update and not args.golden:
        raise DlavmError("--update: expected --golden FILE beside it, got none")
    for option in ("--ppl-tokens", "--model", "--weights"):
        if not args.ppl and getattr(args, option[2:].replace("-", "_")):
            raise DlavmError(f"{option}: expected --ppl FILE beside it, got none")
    if args.weights and not args.model:
        raise DlavmError("--weights: expected --model MODEL beside it, got none")
    return engines


def _lengths(args: argparse.Namespace, artifact: Artifact) -> list[int]:
    """Lengths of the prompts. Fills in --tokens where not given: half the context, or what the given prompts leave."""
    ctx = artifact.manifest.model.ctx
    if args.tokens is None:
        args.tokens = min(TOKENS, max(ctx - max(args.prompts), 1) if args.prompts else ctx // 2)
    room = ctx - args.tokens
    if room < 1:
        raise DlavmError(f"--tokens: expected less than the context of {ctx} positions, got {args.tokens}")
    too_long = [n for n in args.prompts or () if n > room]
    if too_long:
        raise DlavmError(f"--prompts: expected at most {room} tokens before {args.tokens} more, got {too_long[0]}")
    return args.prompts or [n for n in PROMPTS if n <= room]


def sample_prompt(session: Session, length: int) -> list[int]:
    """Tokens that are likely for this model: sampled from it, from its first token on, the same every time."""
    first = session.model.bos_token_id or 0
    ids, sampler = [first], Sampler(temperature=1.0, seed=0)
    session.reset()
    while len(ids) < min(length, session.model.ctx):
        ids.append(sampler.sample(session.step(ids[-1:], 1).logits[-1]))
    session.reset()
    return ids


def _compare(
    lockstep: Lockstep, yardstick: floats.FloatSession | None, prompt: list[int], lengths: Sequence[int], tokens: int,
    chunked: int,
) -> Agreement:  # fmt: skip
    agreement = Agreement()
    chunkings = _chunkings(min(chunked, len(prompt)), lockstep.first.model.chunk)
    with progress("comparing", len(lengths) * (tokens + 1) + len(chunkings)) as bar:
        for length in lengths:
            engine, ids = _case(lockstep, prompt[:length], tokens, bar)
            if yardstick:
                yardstick.reset()
                agreement.add(engine, yardstick.logits(ids)[: len(engine)])
        _compare_chunkings(lockstep, prompt, chunkings, bar)
    return agreement


def _case(lockstep: Lockstep, prompt: list[int], tokens: int, bar: Bar) -> tuple[NDArray[np.float16], list[int]]:
    """A prompt and greedy tokens after it: logits of every position, and the ids. Ends at a mismatch: others follow."""
    case, before = f"prompt of {len(prompt)}", lockstep.mismatches
    lockstep.clear()
    result = lockstep.step(case, prompt, logits_all=True)
    parts, ids = [result.logits], list(prompt)
    for number in range(1, tokens + 1):
        bar.advance()
        if int(result.next_ids[-1]) != int(np.argmax(result.logits[-1])):
            lockstep.fail(case, f"argmax: expected {int(np.argmax(result.logits[-1]))}, got {int(result.next_ids[-1])}")
        if lockstep.mismatches > before:
            break
        ids.append(int(result.next_ids[-1]))
        result = lockstep.step(f"{case}, decode {number}", ids[-1:])
        parts.append(result.logits)
    return np.concatenate(parts), ids


def _chunkings(length: int, chunk: int) -> list[list[int]]:
    """Ways to cut a prompt: as long as possible, token by token, odd pieces."""
    whole = [min(chunk, length - start) for start in range(0, length, chunk)]
    odd: list[int] = []
    while sum(odd) < length:
        odd.append(min(1 + 2 * len(odd), chunk, length - sum(odd)))
    return [whole, [1] * length, odd]


def _compare_chunkings(lockstep: Lockstep, prompt: list[int], chunkings: list[list[int]], bar: Bar) -> None:
    hashes: list[tuple[str, str]] = []
    for chunks in chunkings:
        lockstep.clear()
        case = f"prompt of {sum(chunks)} in {len(chunks)} steps"
        result = lockstep.step(case, prompt[: sum(chunks)], chunks=chunks, logits_all=True)
        hashes.append((logits_hash(result), lockstep.kv_hash()))
        differing = [what for what, a, b in zip(("logits", "KV cache"), hashes[0], hashes[-1], strict=True) if a != b]
        if differing:
            lockstep.fail(case, f"{' and '.join(differing)} differ from those of {len(chunkings[0])} steps")
        bar.advance()


def _golden(
    args: argparse.Namespace, artifact: Artifact, lockstep: Lockstep, prompt: list[int]
) -> dict[str, Any] | None:
    if not args.golden:
        return None
    path = Path(args.golden)
    if args.update:
        length = args.prompts[0] if args.prompts else GOLDEN_PROMPT
        update_golden(artifact, lockstep, path, prompt[:length], args.tokens)
        return {"file": str(path), "updated": True, "difference": None}
    return {"file": str(path), "updated": False, "difference": check_golden(artifact, lockstep, path) or None}


def _original(args: argparse.Namespace, artifact: Artifact) -> floats.FloatSession | None:
    """The original weights: of --model, or of the bundled model if the artifact was built from it."""
    if args.model:
        return floats.original_session(model_of(args.model, args.weights), artifact)
    bundled = data_root() / "models" / f"{artifact.manifest.name}.py"
    if not bundled.is_file():
        return None
    try:
        return floats.original_session(model_of(str(bundled)), artifact)
    except DlavmError:
        return None


def _perplexities(
    session: Session, yardstick: floats.FloatSession, original: floats.FloatSession | None, texts: list[list[int]]
) -> dict[str, Any]:
    def engine(ids: Sequence[int]) -> NDArray[np.floating]:
        session.reset()
        return session.prefill(ids, logits_all=True).logits

    def evaluated(model: floats.FloatSession, ids: Sequence[int]) -> NDArray[np.floating]:
        model.reset()
        return model.logits(ids)

    quantised = perplexity("quantised weights", texts, lambda ids: evaluated(yardstick, ids))
    measured = perplexity("engine", texts, engine)
    return {
        "float": perplexity("original weights", texts, lambda ids: evaluated(original, ids)) if original else None,
        "quantised": quantised, "engine": measured, "engine_vs_quantised": measured / quantised - 1,
        "tokens": sum(len(ids) - 1 for ids in texts), "documents": len(texts),
    }  # fmt: skip


def _report(
    lockstep: Lockstep, agreement: Agreement, golden: dict[str, Any] | None, ppl: dict[str, Any] | None
) -> dict[str, Any]:
    good = [
        lockstep.mismatches == 0,
        not (golden and golden["difference"]),
        not agreement.problem,
        ppl is None or within(ppl),
    ]
    report = {
        "ok": all(good), "engines": list(lockstep.engines), "steps": lockstep.steps,
        "bytes_compared": lockstep.bytes_compared, "mismatches": lockstep.mismatches,
        "token_agreement": agreement.agreeing / agreement.positions if agreement.positions else None,
        "max_logit_error": agreement.max_logit_error if agreement.positions else None,
        "positions": agreement.positions, "problems": lockstep.problems, "float_problem": agreement.problem or None,
    }  # fmt: skip
    return report | ({"golden": golden} if golden else {}) | ({"ppl": ppl} if ppl else {})


def _finite(value: Any) -> Any:
    """The report as JSON can hold it: null for what is infinite or not a number."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def within(ppl: dict[str, Any]) -> bool:
    """Whether an engine's perplexity is that of its weights in float32."""
    return bool(abs(ppl["engine_vs_quantised"]) <= PPL_TOLERANCE)


def summary(report: dict[str, Any], seconds: float) -> str:
    """A verification in a few lines."""
    lines = [
        f"engines      {', '.join(report['engines'])}: {report['steps']} steps, "
        f"{size(report['bytes_compared'])} compared, {report['mismatches']} mismatches",
        *(f"  step {p['step']}, {p['case']}: {p['what']}" for p in report["problems"]),
    ]
    if report["positions"]:
        share, error = f"{100 * report['token_agreement']:.2f} %", f"{report['max_logit_error']:.4f}"
        lines.append(f"float model  {share} of {report['positions']} greedy tokens agree, largest logit error {error}")
        lines += [f"  {report['float_problem']}"] if report["float_problem"] else []
    if "golden" in report:
        golden = report["golden"]
        state = "written" if golden["updated"] else golden["difference"] or "equal"
        lines.append(f"golden       {golden['file']}: {state}" if not golden["difference"] else f"golden       {state}")
    if "ppl" in report:
        ppl = report["ppl"]
        original = f"{ppl['float']:.4f}" if ppl["float"] else "unknown (give --model)"
        lines.append(
            f"perplexity   float {original}, quantised {ppl['quantised']:.4f}, engine {ppl['engine']:.4f} "
            f"({100 * ppl['engine_vs_quantised']:+.4f} %), {ppl['tokens']} tokens of {ppl['documents']} documents"
        )
        if not within(ppl):
            bar = f"{100 * PPL_TOLERANCE:.1f} %"
            lines.append(f"  the engine expected within {bar} of quantised; chance makes more of few tokens")
    return "\n".join([*lines, f"{'ok' if report['ok'] else 'FAILED'} after {seconds:.1f} s"])
