"""Sampling: the stated generator and exp, the order of candidates, the ranges of the parameters."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest

from dlavm.runtime.sampling import LN2_HIGH, LN2_LOW, MASK, Sampler, descending, splitmix64, stated_exp, uniform
from dlavm.support.errors import DlavmError

LOGITS = (np.arange(50) * 7 % 50 / 10).astype(np.float16)


def test_splitmix64_gives_the_published_sequence() -> None:
    # The first outputs for seed 1234567 of the generator as its authors state it.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [splitmix64(1234567, i) for i in range(4)] == published


def test_uniform_is_in_the_half_open_interval() -> None:
    draws = [uniform(7, i) for i in range(2000)]
    assert all(0 <= u < 1 and u * 2**53 == int(u * 2**53) for u in draws)
    assert abs(np.mean(draws) - 0.5) < 0.02


def test_the_largest_draw_is_below_the_sum() -> None:
    sums = np.concatenate([1 + np.arange(4) * 2.0**-52, 2 - np.arange(1, 4) * 2.0**-52,
                           np.random.default_rng(1).uniform(1, 2, 5000)])
    assert ((1 - 2.0**-53) * sums < sums).all()


def test_exp_is_within_one_and_a_quarter_units_in_the_last_place() -> None:
    rng = np.random.default_rng(2)
    middles = -(np.arange(57) + 0.5) * math.log(2)  # where the range reduction turns to the next power of two
    near = (middles[:, None] + np.arange(-20, 21) * 2.0**-50).ravel()
    x = np.concatenate([-np.arange(0, 40, 1 / 512), -rng.uniform(0, 40, 10000), -rng.uniform(0, 1, 5000), near])
    with localcontext() as context:
        context.prec = 40
        pairs = zip(x.tolist(), stated_exp(x).tolist(), strict=True)
        errors = [abs(Decimal(got) - Decimal(at).exp()) / Decimal(math.ulp(got)) for at, got in pairs]
        assert abs(Decimal(2).ln() - Decimal(LN2_HIGH) - Decimal(LN2_LOW)) < Decimal(2) ** -86
    assert 0.5 < max(errors) <= 1.25


def test_exp_has_the_same_bits_on_every_machine() -> None:
    values = stated_exp(-np.arange(40 * 1024 + 1) / 1024)
    assert [float(v).hex() for v in values[[0, 1024, -1]]] == [
        "0x1.0000000000000p+0", "0x1.78b56362cef38p-2", "0x1.39792499b1a24p-58",
    ]  # fmt: skip
    digest = hashlib.sha256(values.astype("<f8").tobytes()).hexdigest()
    assert digest == "0345db0d16d657dcbfc8a7367ac45202fad4728e932bff4a73be876bb9c433c7"


def test_every_half_has_its_place_in_the_order() -> None:
    halves = np.arange(1 << 16).astype(np.uint16).view(np.float16)
    finite = np.random.default_rng(3).permutation(halves[np.isfinite(halves)])
    assert np.array_equal(descending(finite), np.argsort(-finite.astype(np.float64), kind="stable"))


@pytest.mark.parametrize(("below", "chosen"), [(-30, 2), (-36, 2), (-37, 1), (-40, 1), (-40.03125, 1), (-50, 1)])
def test_weights_that_the_sum_loses_are_never_chosen(
    below: float, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # exp(-36) is over half a unit of the sum 1, exp(-37) is under it: the limit at -40 changes no token.
    monkeypatch.setattr("dlavm.runtime.sampling.uniform", lambda seed, counter: 1 - 2.0**-53)
    assert Sampler(temperature=1.0).sample(np.array([-65504, 0, below], np.float16)) == chosen


def test_the_counter_wraps() -> None:
    sampler = Sampler(temperature=1.0, seed=4, counter=MASK)
    tokens = [sampler.sample(LOGITS) for _ in range(2)]
    assert sampler.counter == 1
    assert tokens[1] == Sampler(temperature=1.0, seed=4).sample(LOGITS)


def test_golden_sequence() -> None:
    sampler = Sampler(temperature=0.8, top_k=20, top_p=0.9, seed=42)
    assert [sampler.sample(LOGITS) for _ in range(12)] == [6, 14, 21, 21, 7, 27, 14, 13, 21, 42, 14, 35]
    assert sampler.counter == 12


def test_a_run_can_be_resumed_by_counter() -> None:
    one = Sampler(temperature=1.0, seed=9)
    drawn = [one.sample(LOGITS) for _ in range(10)]
    assert [Sampler(temperature=1.0, seed=9, counter=i).sample(LOGITS) for i in range(10)] == drawn


def test_greedy_takes_the_lowest_index_and_draws_nothing() -> None:
    sampler = Sampler(seed=1)
    assert sampler.sample(np.array([1, 3, 3, 2], np.float16)) == 1
    assert sampler.sample(np.array([-0.0, 0.0], np.float16)) == 0
    assert sampler.counter == 0


def test_top_k_and_top_p_cut() -> None:
    logits = np.array([0, 2, 2, 1, -5], np.float16)

    def seen(**parameters: Any) -> set[int]:
        sampler = Sampler(temperature=1.0, seed=3, **parameters)
        return {sampler.sample(logits) for _ in range(300)}

    assert seen(top_k=1) == {1}
    assert seen(top_k=2) == {1, 2}
    assert seen(top_k=99) >= {0, 1, 2, 3}
    assert seen(top_p=1e-9) == {1}
    assert seen(top_p=0.5) == {1, 2}
    assert seen(top_k=3, top_p=0.99) == {1, 2, 3}


def test_frequencies_follow_the_softmax() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2])).astype(np.float16)
    sampler = Sampler(temperature=1.0, seed=11)
    counts = np.bincount([sampler.sample(logits) for _ in range(4000)], minlength=3) / 4000
    assert np.abs(counts - [0.5, 0.3, 0.2]).max() < 0.03


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1e300])
def test_extreme_temperatures(temperature: float) -> None:
    sampler = Sampler(temperature=temperature, seed=5)
    tokens = {sampler.sample(np.array([-65504, 65504, 65503], np.float16)) for _ in range(50)}
    assert tokens <= {0, 1, 2}
    if temperature < 1:
        assert tokens <= {1, 2}  # 65503 rounds to 65504 in fp16


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 1 << 64}, "seed"),
    ],
)
def test_parameters_out_of_range(parameters: dict[str, Any], name: str) -> None:
    with pytest.raises(DlavmError, match=rf"sampler: {name}: expected .*got"):
        Sampler(**parameters)


@pytest.mark.parametrize("logits", [np.zeros((2, 3)), np.zeros(0), np.array([1, np.nan]), np.array([1, np.inf])])
def test_logits_that_are_none(logits: Any) -> None:
    with pytest.raises(DlavmError, match="logits"):
        Sampler().sample(logits.astype(np.float16))


def test_defaults_of_the_model_and_choices() -> None:
    generation = {"temperature": 0.8, "top_p": 0.95, "top_k": None, "max_new_tokens": 3}
    sampler = Sampler.from_defaults(generation, top_k=5, seed=1, temperature=None)
    assert (sampler.temperature, sampler.top_p, sampler.top_k, sampler.seed) == (0.8, 0.95, 5, 1)
    assert Sampler.from_defaults({**generation, "do_sample": False}).temperature == 0
    assert Sampler.from_defaults({**generation, "do_sample": False}, temperature=0.3).temperature == 0.3
    assert Sampler.from_defaults({}).temperature == 0
    assert Sampler().seed != Sampler().seed
