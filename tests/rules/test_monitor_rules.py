"""Prometheus' text, histograms, tallies and shared answers: rules without a socket."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from llm_integrations.governance.tally import OTHER, Tally
from llm_integrations.service.histogram import Histogram
from llm_integrations.service.monitor.exposition import (
    Family,
    counter,
    gauge,
    histogram,
    render,
    usd,
)
from llm_integrations.service.recent import Recent
from tests.wire import HandClock

# No line ends but \n: the parser of the tests splits at those that only Python knows as well.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Zl", "Zp", "Cc"])) | st.just('a\n\\"b\\n')


@given(TEXT, st.dictionaries(TEXT, st.integers(0, 2**53) | st.floats(allow_nan=False), max_size=5))
def test_whatever_stands_in_labels_and_meanings_is_read_back(
    meaning: str, values: dict[str, float]
) -> None:
    page = render([gauge("depth", meaning.strip(), values, "of")]).decode()
    (family,) = text_string_to_metric_families(page)
    assert (family.name, family.type, family.documentation) == ("depth", "gauge", meaning.strip())
    assert {one.labels["of"]: one.value for one in family.samples} == {
        of: float(value) for of, value in values.items()
    }


def test_a_counter_without_labels_is_one_line() -> None:
    assert render([counter("seen_total", "How many.", 3)]) == (
        b"# HELP seen_total How many.\n# TYPE seen_total counter\nseen_total 3\n"
    )
    assert b"\non 1\n" in render([gauge("on", "Whether.", values=True)])


def test_a_family_without_samples_says_what_it_is() -> None:
    page = render([Family("none_total", "counter", "Nothing yet.", ())])
    assert page == b"# HELP none_total Nothing yet.\n# TYPE none_total counter\n"


@given(st.integers(-(10**18), 10**18))
def test_money_is_exact_decimal_usd(pusd: int) -> None:
    assert Decimal(usd(pusd)) * 10**12 == pusd


@given(st.lists(st.floats(0, 20)), st.sets(st.floats(0.001, 10), min_size=1))
def test_a_histogram_counts_what_does_not_exceed_each_bound(
    values: list[float], bounds: set[float]
) -> None:
    observed = Histogram(sorted(bounds))
    for value in values:
        observed.observe(value)
    assert list(observed.cumulative()) == [
        (bound, sum(value <= bound for value in values))
        for bound in [*sorted(bounds), float("inf")]
    ]
    page = render([histogram("took", "Seconds.", observed)]).decode()
    (family,) = text_string_to_metric_families(page)
    assert family.type == "histogram"
    samples = {one.name: one.value for one in family.samples if not one.labels}
    assert samples["took_count"] == len(values)
    assert samples["took_sum"] == pytest.approx(sum(values))


def test_a_tally_adds_up_by_model_and_state() -> None:
    tally = Tally()
    tally.add("claude-haiku-5-5", "settled", 5)
    tally.add("claude-haiku-5-5", "settled", 6)
    tally.add("claude-haiku-5-5", "refused")
    assert tally.charged_pusd["claude-haiku-5-5", "settled"] == 11
    assert tally.attempts["claude-haiku-5-5", "refused"] == 1


@pytest.mark.parametrize("model", ["", "a b", 'x"', "x" * 65, "müller", "-x", "a\nb"])
def test_what_is_no_plain_name_is_other(model: str) -> None:
    tally = Tally()
    tally.add(model, "settled", 1)
    assert dict(tally.attempts) == {(OTHER, "settled"): 1}


def test_models_are_few() -> None:
    tally = Tally()
    for number in range(1_000):
        tally.add(f"model-{number}", "settled", 1)
    tally.add("model-3", "settled", 1)
    assert len(tally.attempts) == 51
    assert tally.attempts["model-3", "settled"] == 2
    assert tally.attempts[OTHER, "settled"] == 950


async def test_an_answer_is_shared_while_it_is_fresh_and_rests_after_a_long_question() -> None:
    clock = HandClock()
    asked: list[float] = []

    async def load() -> int:
        asked.append(clock.monotonic())
        await clock.sleep(took_s)
        return len(asked)

    took_s = 0.0
    recent = Recent(load, clock, fresh_s=2, rest=20)
    assert await asyncio.gather(*(recent.get() for _ in range(9))) == [1] * 9
    took_s = 1.0
    clock.pass_by(2)
    assert await recent.get() == 2
    clock.pass_by(19.9)
    assert await recent.get() == 2
    clock.pass_by(0.2)
    assert await recent.get() == 3


async def test_an_error_is_nobodys_answer() -> None:
    answers = [OSError("away"), OSError("away"), None]

    async def load() -> str:
        error = answers.pop(0)
        if error is not None:
            raise error
        return "here"

    recent = Recent(load, HandClock(), fresh_s=60)
    found = await asyncio.gather(*(recent.get() for _ in range(4)), return_exceptions=True)
    assert [str(one) for one in found] == ["away", "away", "here", "here"]
