"""The arithmetic of the benchmarks: medians, ratios, verdicts and steps back."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.benchmark import Benchmark
from bench.figures import Finding, Target, find, has_fallen, judge, ratios
from bench.payloads import stream_events
from bench.peers import locked_version
from bench.plan import BENCHMARKS, LIMITERS
from bench.profiles import place_of, shares

ROOT = Path(__file__).parents[2]
GIVEN = {"loopback": {"base_url"}, "postgres": {"dsn"}, None: set[str]()}

figures = st.floats(min_value=1e-3, max_value=1e9)


def finding(value: float, *, is_ratio: bool = True) -> Finding:
    return Finding(
        name="a",
        unit="us",
        ours=1,
        theirs=value if is_ratio else None,
        value=value,
        low=value,
        high=value,
        is_ratio=is_ratio,
        verdict="-",
        must=None,
        aim=None,
    )


def test_ratio_says_how_many_times_better_ours_is() -> None:
    assert ratios([2.0], [10.0], "lower") == [5.0]
    assert ratios([10.0], [2.0], "higher") == [5.0]


@given(ours=figures, theirs=figures)
def test_ratio_of_swapped_sides_is_its_inverse(ours: float, theirs: float) -> None:
    (one,) = ratios([ours], [theirs], "lower")
    (other,) = ratios([theirs], [ours], "lower")
    assert one * other == pytest.approx(1)


def test_rounds_of_unequal_number_are_no_comparison() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0, 2.0], [1.0], "lower")


def test_ratio_is_taken_round_by_round_before_the_median() -> None:
    # The machine slowed down threefold in the second round, for both.
    rounds = {
        "ours": [{"cpu": 10.0}, {"cpu": 30.0}, {"cpu": 11.0}],
        "theirs": [{"cpu": 50.0}, {"cpu": 150.0}, {"cpu": 55.0}],
    }
    target = Target(name="a", figure="cpu", unit="us", ours="ours", theirs="theirs", must=5)
    found = find(target, rounds)
    assert (found.value, found.low, found.high) == (5, 5, 5)
    assert (found.ours, found.theirs, found.is_ratio, found.verdict) == (11, 55, True, "must")


def test_absolute_figure_is_the_median_round() -> None:
    rounds = {"ours": [{"p99": 30.0}, {"p99": 900.0}, {"p99": 40.0}]}
    found = find(Target(name="a", figure="p99", unit="ms", ours="ours", must=50), rounds)
    assert (found.value, found.high, found.is_ratio, found.verdict) == (40, 900, False, "must")


def test_what_a_side_adds_to_another_is_taken_round_by_round() -> None:
    rounds = {
        "governed": [{"cpu": 110.0}, {"cpu": 320.0}, {"cpu": 111.0}],
        "bare": [{"cpu": 100.0}, {"cpu": 300.0}, {"cpu": 100.0}],
    }
    target = Target(name="a", figure="cpu", unit="us", ours="governed", beyond="bare", must=10)
    found = find(target, rounds)
    assert (found.value, found.low, found.high) == (11, 10, 20)
    assert (found.theirs, found.is_ratio, found.verdict) == (None, False, "almost")


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(10, "aim"), (9.9, "must"), (7, "must"), (6.99, "almost"), (6.3, "almost"), (6.2, "missed")],
)
def test_within_ten_percent_of_what_must_be_counts_as_almost(value: float, verdict: str) -> None:
    assert judge(value, must=7, aim=10, better="higher") == verdict


@pytest.mark.parametrize(
    ("value", "verdict"), [(3, "aim"), (5, "must"), (5.5, "almost"), (5.6, "missed")]
)
def test_where_lower_is_better_the_target_is_a_ceiling(value: float, verdict: str) -> None:
    assert judge(value, must=5, aim=3, better="lower") == verdict


def test_figure_without_target_has_no_verdict() -> None:
    assert judge(1, must=None, aim=None, better="lower") == "-"


@given(committed=figures, share=st.floats(min_value=0.01, max_value=2))
def test_only_a_ratio_that_lost_more_than_a_quarter_has_fallen(
    committed: float, share: float
) -> None:
    value = committed * share
    assert has_fallen(finding(value), committed) == (value < committed * 0.75)
    assert not has_fallen(finding(value, is_ratio=False), committed)
    assert not has_fallen(finding(value), None)


def test_every_target_names_sides_of_its_benchmark_and_no_name_is_used_twice() -> None:
    targets = [target for benchmark in BENCHMARKS for target in benchmark.targets]
    assert len({target.name for target in targets}) == len(targets)
    assert len({benchmark.name for benchmark in BENCHMARKS}) == len(BENCHMARKS)
    for benchmark in BENCHMARKS:
        for target in benchmark.targets:
            assert {target.ours, target.theirs} <= {*benchmark.sides, None}
            assert target.must is None or target.aim is None or target.must != target.aim


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda each: each.name)
def test_every_side_is_a_function_that_takes_what_it_is_told(benchmark: Benchmark) -> None:
    for side in benchmark.sides.values():
        module, _, name = side.run.partition(":")
        tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
        (found,) = (
            node
            for node in tree.body
            if isinstance(node, ast.AsyncFunctionDef) and node.name == name
        )
        arguments = list(zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True))
        told = {*side.options} | GIVEN[benchmark.needs]
        assert told <= {each.arg for each, _ in arguments}
        assert {each.arg for each, default in arguments if default is None} <= told


@given(deltas=st.integers(min_value=1, max_value=300))
def test_the_pieces_of_a_tool_input_are_as_many_as_asked_and_spell_json(deltas: int) -> None:
    events = [event.partition(b"data: ")[2] for event in stream_events("arguments", deltas)]
    pieces = [json.loads(event)["delta"]["partial_json"] for event in events if b"_json" in event]
    assert len(pieces) == deltas
    assert {len(piece) for piece in pieces} == {12}
    assert isinstance(json.loads("".join(pieces))["lines"], list)


@pytest.mark.parametrize("name", ["litellm", *LIMITERS])
def test_a_peer_in_an_environment_of_its_own_is_locked(name: str) -> None:
    assert locked_version(name)[0].isdigit()


@pytest.mark.parametrize(
    ("filename", "built_in", "place"),
    [
        ("/x/src/llm_integrations/anthropic/calls.py", "", "anthropic/calls"),
        ("/x/src/llm_integrations/_core/http/__init__.py", "", "_core/http"),
        ("/x/site-packages/aiohttp/client.py", "", "aiohttp"),
        ("/usr/lib/python3.11/asyncio/base_events.py", "", "asyncio"),
        ("/usr/lib/python3.11/json/decoder.py", "", "python"),
        ("", "<method 'send' of '_socket.socket' objects>", "socket"),
        ("", "<method 'decode' of 'msgspec.json.Decoder' objects>", "msgspec"),
        ("", "<built-in method builtins.len>", "python"),
    ],
)
def test_a_profile_names_rooms_of_ours_and_libraries(
    filename: str, built_in: str, place: str
) -> None:
    assert place_of(filename, built_in) == place


async def test_the_shares_of_a_profile_are_all_of_it() -> None:
    async def one_round() -> dict[str, float]:
        return {"sum": float(sum(map(float, range(10_000))))}

    found = await shares(one_round)
    assert sum(found.values()) == pytest.approx(1)
    assert list(found.values()) == sorted(found.values(), reverse=True)
