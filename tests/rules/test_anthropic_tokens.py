"""Estimates come near, and say how near."""

import base64
import importlib.util
import math
import os
import random
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.anthropic import MessageRequest, TokenBudget, TokenCounter, Usage, price
from llm_integrations.anthropic.models import Message
from llm_integrations.anthropic.tokens.calibration import hidden_prompt, weights_for
from llm_integrations.anthropic.tokens.corrections import ENOUGH, WINDOW, Corrector
from llm_integrations.anthropic.tokens.media import image_tokens, pdf_pages, size_in_base64
from llm_integrations.anthropic.tokens.prompts import read_prompt
from llm_integrations.anthropic.tokens.tokenizers import Pieces, foreign_bytes
from llm_integrations.errors import BudgetExceeded, ConfigError
from scripts.token_recordings import Recording, is_text, prompt_of, read_recordings

Json = dict[str, Any]
TierName = Literal["vocabulary", "base"]
RECORDINGS = Path(__file__).parents[2].parent / "shared/data/claude"
BASE: Json = {"model": "claude-haiku-4-5", "max_tokens": 1}

present = pytest.mark.skipif(
    not RECORDINGS.exists(), reason="the recordings are not on this machine"
)
one_process = pytest.mark.xdist_group("token recordings")  # so that they are read once
with_vocabulary = pytest.param(
    "vocabulary",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("splintr") is None, reason="the [tokenizer] extra is not installed"
    ),
)
each_tier = pytest.mark.parametrize("tier", [with_vocabulary, "base"])


def ask(content: object, **more: object) -> Json:
    return BASE | {"messages": [{"role": "user", "content": content}]} | more


def count(content: object, **more: object) -> int:
    return TokenCounter(tier="base").count_request(ask(content, **more)).tokens


# --- on recorded requests -----------------------------------------------------------------------


@cache
def recordings() -> list[Recording]:
    return [*read_recordings(RECORDINGS)]


def of_kind(kind: str, tokenizer: str) -> Iterator[Recording]:
    """Yield recorded requests of only text, with the caller's tools, or with images."""
    for recording in recordings():
        prompt = prompt_of(recording)
        guessed = prompt.guess.spread > 0 or bool(prompt.server_tools)
        if guessed or recording.tokenizer != tokenizer:
            continue
        if recording.request.get("context_management"):
            continue
        if is_text(recording, prompt):
            found = "text"
        elif prompt.parts["image"]:
            found = "image"
        else:
            found = "tools" if prompt.tool_texts else "settings"
        if found == kind:
            yield recording


def errors_of(kind: str, tokenizer: str, tier: TierName) -> tuple[list[float], float]:
    """Return the relative errors of estimates, and the share of truths inside the margin."""
    counter = TokenCounter(tier=tier)
    errors: list[float] = []
    inside = 0
    for recording in of_kind(kind, tokenizer):
        estimate = counter.count_request(recording.request)
        off = abs(estimate.tokens - recording.input_tokens)
        errors.append(off / recording.input_tokens)
        inside += off <= estimate.tokens * estimate.margin + 0.5
    return errors, inside / len(errors)


@present
@one_process
@each_tier
@pytest.mark.parametrize(
    ("kind", "tokenizer", "limits"),
    [
        ("text", "2024", {"vocabulary": (0.04, 0.10), "base": (0.06, 0.16)}),
        ("tools", "2024", {"vocabulary": (0.03, 0.06), "base": (0.03, 0.06)}),
        ("settings", "2024", {"vocabulary": (0.04, 0.10), "base": (0.04, 0.10)}),
        ("text", "2026", {"vocabulary": (0.08, 0.20), "base": (0.08, 0.20)}),
        ("tools", "2026", {"vocabulary": (0.08, 0.20), "base": (0.08, 0.20)}),
    ],
)
def test_estimates_of_recorded_requests_are_near_and_their_margin_is_honest(
    tier: TierName, kind: str, tokenizer: str, limits: dict[str, tuple[float, float]]
) -> None:
    errors, inside = errors_of(kind, tokenizer, tier)
    median, p90 = limits[tier]
    assert len(errors) >= 20
    assert statistics.median(errors) <= median
    assert statistics.quantiles(errors, n=10)[-1] <= p90
    assert inside >= 0.9


@present
@one_process
def test_images_of_known_size_are_within_five_tokens() -> None:
    counter = TokenCounter()
    off: list[int] = []
    inside = 0
    for recording in [*of_kind("image", "2024"), *of_kind("image", "2026")]:
        estimate = counter.count_request(recording.request)
        difference = abs(estimate.tokens - recording.input_tokens)
        inside += difference <= estimate.tokens * estimate.margin + 0.5
        if not recording.request.get("tools"):  # which have an error of their own
            off.append(difference)
    assert inside >= 20
    assert len(off) >= 10
    assert sum(tokens <= 5 for tokens in off) / len(off) >= 0.8


@present
@one_process
def test_recorded_bills_lie_between_low_and_high_and_near_what_was_expected() -> None:
    counter = TokenCounter()
    bills = near = 0
    for recording in recordings():
        prompt = prompt_of(recording)
        if prompt.server_tools or prompt.guess.spread:
            continue
        usage = Usage(input_tokens=recording.input_tokens, output_tokens=recording.output_tokens)
        bill = price(usage, recording.model)
        cost = counter.estimate_cost(
            recording.request, expected_output_tokens=recording.output_tokens
        )
        if (
            bill is None
            or cost.expected_pusd is None
            or recording.request.get("max_tokens") is None
        ):
            continue
        assert cost.low_pusd is not None
        assert cost.high_pusd is not None
        assert bill <= cost.high_pusd
        bills += 1
        near += cost.low_pusd <= bill and abs(bill / cost.expected_pusd - 1) <= 0.1
    assert bills > 300
    assert near / bills >= 0.9


@present
@one_process
def test_what_was_learned_of_a_template_makes_its_next_estimates_better() -> None:
    """Each recording is estimated before it is learned, in the order of the files."""
    plain, learning = TokenCounter(tier="base"), TokenCounter(tier="base")
    before: list[float] = []
    after: list[float] = []
    inside = 0
    for recording in of_kind("tools", "2024"):
        true = recording.input_tokens
        before.append(abs(plain.count_request(recording.request).tokens / true - 1))
        estimate = learning.count_request(recording.request, template=recording.repo)
        after.append(abs(estimate.tokens / true - 1))
        inside += abs(estimate.tokens - true) <= estimate.tokens * estimate.margin + 0.5
        learning.learn(recording.request, Usage(input_tokens=true), template=recording.repo)
    assert statistics.mean(after) <= statistics.mean(before)
    assert inside / len(after) >= 0.88


# --- tiers --------------------------------------------------------------------------------------


def test_the_vocabulary_is_used_where_it_is_installed() -> None:
    installed = importlib.util.find_spec("splintr") is not None
    assert TokenCounter().tier == ("vocabulary" if installed else "base")
    assert TokenCounter(tier="base").tier == "base"


def test_asking_for_a_vocabulary_that_is_not_installed_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['splintr'] = None\n"
        "from llm_integrations.anthropic import TokenCounter\n"
        "print(TokenCounter().count_text('Hello').tier)\n"
        "TokenCounter(tier='vocabulary')"
    )
    run = _run(code)
    assert run.stdout == "base\n"
    assert run.stderr.rstrip().endswith("pip install 'llm-integrations[tokenizer]'")
    assert ConfigError.__name__ in run.stderr


def test_counting_opens_no_connection_and_reads_no_cache_folder() -> None:
    code = (
        "import socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('a connection')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "from llm_integrations.anthropic import TokenCounter\n"
        "print(TokenCounter().count_text('Hello world').tokens)"
    )
    run = _run(code)
    assert (run.stdout, run.returncode, run.stderr) == ("3\n", 0, "")


def test_importing_the_client_loads_neither_weights_nor_vocabulary() -> None:
    run = _run("import sys, llm_integrations.anthropic; print('splintr' in sys.modules)")
    assert run.stdout == "False\n"


def _run(code: str) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if k != "TIKTOKEN_CACHE_DIR"}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


MEGABYTE = 1_000_000
UNITS = [("a", MEGABYTE), (" ", MEGABYTE), ("\n", MEGABYTE), ("7", MEGABYTE), ("😀", MEGABYTE)]
UNITS += [(unit, 100_000) for unit in ("A", "ab", " \n", "\t", "!", "é", "漢", "a1", "\ud800")]


@each_tier
@pytest.mark.parametrize(("unit", "size_bytes"), UNITS)
def test_no_text_makes_counting_slow(tier: TierName, unit: str, size_bytes: int) -> None:
    text = unit * (size_bytes // len(unit.encode("utf-8", "replace")))
    counter = TokenCounter(tier=tier)
    began = time.monotonic()
    counter.count_text(text)
    assert time.monotonic() - began < 5


@each_tier
def test_a_million_random_spaces_are_counted_in_time(tier: TierName) -> None:
    text = "".join(random.Random(7).choices(" \t\n\r\u3000", k=1_000_000))
    began = time.monotonic()
    TokenCounter(tier=tier).count_text(text)
    assert time.monotonic() - began < 5


@each_tier
def test_newer_models_make_more_tokens_of_the_same_text(tier: TierName) -> None:
    counter = TokenCounter(tier=tier)
    text = "The quick brown fox jumps over the lazy dog. " * 10
    older = counter.count_text(text, model="claude-haiku-4-5")
    newer = counter.count_text(text, model="claude-opus-5-5")
    assert 1.2 < int(newer) / int(older) < 1.5
    assert newer.tier == tier
    assert newer.upper > newer.tokens
    assert newer.margin > older.margin
    assert counter.count_text(text) == newer  # a model that is not known is a new one


def test_texts_are_remembered_and_the_oldest_are_forgotten() -> None:
    counter = TokenCounter(cache_size=2)
    for text in ("a", "b", "a", "c"):
        counter.count_text(text)
    assert counter.cache_size == 2
    counter.clear_cache()
    assert counter.cache_size == 0


@each_tier
@given(a=st.text(max_size=200), b=st.text(max_size=200))
def test_more_text_is_hardly_ever_fewer_tokens(tier: TierName, a: str, b: str) -> None:
    counter = TokenCounter(tier=tier)
    both = int(counter.count_text(a + "\n" + b))
    assert both >= max(int(counter.count_text(a)), int(counter.count_text(b))) - 2


def test_no_text_is_no_tokens() -> None:
    assert TokenCounter(tier="base").count_text("")[:2] == (0, 0.0)


def test_pieces_are_words_humps_numbers_and_signs() -> None:
    counts = dict(
        zip(
            Pieces.names,
            Pieces().measure("parseHTTPBody(x1) = 42;\n\n    internationalisation été Жук 漢 😀"),
            strict=True,
        )
    )
    assert counts["words"] == 4  # parseHTTPBody x internationalisation, and the t of été
    assert counts == counts | {
        "camel_humps": 1,
        "capital_pairs": 2,
        "letters_12": 2,
        "digits": 3,
        "space_digits": 1,
        "punctuation_runs": 4,
        "line_ends": 1,
        "space_runs": 1,
        "latin": 2,
        "alphabetic": 3,
        "ideographic": 1,
        "symbols": 1,
    }


@each_tier
def test_what_was_never_measured_has_a_wider_margin(tier: TierName) -> None:
    counter = TokenCounter(tier=tier)
    english = counter.count_text("All people are born free and equal in dignity. " * 9)
    greek = counter.count_text("Όλοι γεννιούνται ελεύθεροι. " * 9)
    assert greek.margin > english.margin + 0.2
    assert foreign_bytes("free") == 0
    assert foreign_bytes("ελεύθεροι") == 18


# --- parts of a prompt --------------------------------------------------------------------------


def png(width: int, height: int) -> str:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
    return base64.b64encode(head + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)).decode()


@pytest.mark.parametrize(
    ("size", "most", "tokens"),
    [
        ((1, 1), 1_568, 1),
        ((28, 28), 1_568, 1),
        ((29, 28), 1_568, 2),
        ((1_001, 1_001), 1_568, 1_296),
        ((1_191, 1_128), 1_568, 1_558),  # scaled to 41 x 38 patches
        ((3_000, 100), 1_568, 112),  # scaled to an edge of 1,568: 56 x 2
        ((1_001, 1_001), 4_784, 1_296),
        ((4_000, 3_000), 4_784, 4_740),
    ],
)
def test_an_image_costs_its_patches_after_it_was_made_to_fit(
    size: tuple[int, int], most: int, tokens: int
) -> None:
    assert image_tokens(*size, most=most) == tokens
    assert image_tokens(*size[::-1], most=most) == tokens


@given(st.integers(1, 9_000), st.integers(1, 9_000), st.sampled_from([1_568, 4_784]))
def test_no_image_costs_more_than_the_most(width: int, height: int, most: int) -> None:
    assert 1 <= image_tokens(width, height, most=most) <= most


def test_an_image_is_measured_by_its_head_and_guessed_without_one() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": png(1_001, 1_001)}
    plain = count("Hi")
    known = TokenCounter(tier="base").count_request(
        ask(["Hi", {"type": "image", "source": source}])
    )
    assert 1_296 <= known.tokens - plain <= 1_301
    assert known.margin < 0.01
    for unknown in ({"type": "url", "url": "x"}, {"type": "base64", "data": "?é??"}, None):
        unseen = {"type": "image", "source": unknown}
        guess = TokenCounter(tier="base").count_request(ask([unseen]))
        assert 784 <= guess.tokens <= 800
        assert guess.tokens * (1 - guess.margin) <= 10
        assert guess.upper >= 1_568
    assert size_in_base64("A" * 100_000) is None


def test_a_pdf_is_counted_by_its_pages_or_its_size() -> None:
    def pdf(data: object, **more: object) -> int:
        source = {"type": "base64", "media_type": "application/pdf", "data": data}
        return count([{"type": "document", "source": source, **more}]) - count([])

    def pages(number: int) -> str:
        marks = b"/Type /Pages /Kids" + b"<< /Type/Page >>" * number
        return base64.b64encode(b"%PDF-1.4" + marks).decode()

    assert pdf(pages(1)) == 1_875
    assert pdf(pages(3)) == 3 * 1_875
    assert pdf(pages(1), citations={"enabled": True}) == 3_000
    assert pdf("A" * 250_000) == 3 * 1_875  # 187,500 bytes without a mark
    assert pdf(None) == 5 * 1_875
    assert pdf_pages("é") == 1
    assert pdf(pages(1), title="one two", context="three") == 1_875 + 3


def test_documents_of_text_are_read_as_text() -> None:
    text = {"type": "document", "source": {"type": "text", "data": "one two three"}}
    parts = {"type": "document", "source": {"type": "content", "content": [{"type": "text"}]}}
    assert 36 <= count([text]) - count([]) <= 42
    assert 36 <= count([parts]) - count([]) <= 38


def test_tools_add_their_definition_and_the_prompt_of_their_model() -> None:
    plain = count("Hi")
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
    assert plain + 500 < count("Hi", tools=[tool]) < plain + 530
    assert plain + 590 < count("Hi", tools=[tool], tool_choice={"type": "any"}) < plain + 625
    assert count("Hi", tools=[tool | {"cache_control": {"type": "ephemeral"}}]) == count(
        "Hi", tools=[tool]
    )
    named = {"type": "tool", "name": "look"}
    assert plain + 595 < count("Hi", tools=[tool], tool_choice=named) < plain + 630
    assert count("Hi", tools=[tool], tool_choice="any") == count("Hi", tools=[tool])
    unknown = ask("Hi", tools=[tool], tool_choice=named) | {"model": "claude-next"}
    assert TokenCounter(tier="base").count_request(unknown).tokens > plain + 350


def test_a_deferred_tool_costs_nothing_before_it_is_referred_to() -> None:
    search = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
    deferred = {"name": "look", "input_schema": {"type": "object"}, "defer_loading": True}
    found = {
        "type": "tool_search_tool_result",
        "content": {"tool_references": [{"type": "tool_reference", "tool_name": "look"}]},
    }
    assert count("Hi", tools=[search, deferred]) == count("Hi", tools=[search])
    assert count([found], tools=[search, deferred]) > count([found], tools=[search]) + 10


def test_calls_and_results_are_counted_by_their_parameters() -> None:
    use = {"type": "tool_use", "id": "t", "name": "look", "input": {"a": 1, "b": "two"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "t",
        "content": [{"type": "text", "text": "ok"}],
    }
    assert 60 < count([use, result]) - count([]) < 95
    assert count([use | {"input": None}]) < count([use])


def test_only_the_thinking_of_the_running_turn_counts() -> None:
    thinking = {"type": "thinking", "thinking": "a long chain of thought " * 20, "signature": "x"}
    call = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "ok"}
    asked = {"role": "user", "content": "Hi"}
    thought = {"role": "assistant", "content": [hidden, thinking, call]}
    answered = {"role": "user", "content": [result]}
    counter = TokenCounter(tier="base")

    def of(*messages: object) -> int:
        return counter.count_request(BASE | {"messages": messages}).tokens

    bare = {"role": "assistant", "content": [call]}
    assert of(asked, thought, answered) > of(asked, bare, answered) + 90
    assert of(asked, thought, answered, asked) == of(asked, bare, answered, asked)
    assert of(thought) > 90


def test_settings_add_what_they_were_measured_to_add() -> None:
    plain = count("Hi")
    form = {"type": "json_schema", "schema": {"type": "object", "properties": {}}}
    assert 90 < count("Hi", output_config={"format": form}) - plain < 115
    assert count("Hi", output_format=form) == count("Hi", output_config={"format": form})
    assert count("Hi", thinking={"type": "enabled", "budget_tokens": 1_024}) == plain + 29
    assert count("Hi", thinking={"type": "adaptive"}) == plain
    assert count("Hi", output_config={"task_budget": {"total": 20_000}}) == plain + 36
    assert count("Hi", mcp_servers=[{"url": "x"}]) == plain + 2_700


def test_the_tools_of_the_server_are_a_guess_that_says_so() -> None:
    counter = TokenCounter(tier="base")
    search = {"type": "web_search_20250305", "name": "web_search"}
    assert counter.count_request(ask("Hi", tools=[search])).margin > 0.9
    unknown = counter.count_request(ask("Hi", tools=[{"type": "crystal_ball_20270101"}]))
    assert unknown.margin > 0.5
    assert hidden_prompt("crystal_ball") is None
    callers = {"name": "look", "input_schema": {}, "allowed_callers": ["code_execution_20260120"]}
    assert counter.count_request(ask("Hi", tools=[callers])).margin > 0.5
    upload = {"type": "container_upload", "file_id": "file_1"}
    assert counter.count_request(ask([upload])).margin > 0.9


def test_blocks_of_every_kind_are_counted_and_none_is_a_fault() -> None:
    found = {
        "type": "web_search_tool_result",
        "tool_use_id": "x",
        "content": [
            {"type": "web_search_result", "title": "A page", "encrypted_content": "e" * 1_000},
            {"type": "text", "text": "one two three"},
        ],
    }
    assert 500 < count([found]) < 530
    assert count([{"type": "search_result", "title": "A", "source": "b", "content": "c"}]) == 10
    assert count([{"type": "compaction", "content": "what was said"}]) == 10
    assert count([{"type": "hologram", "depth": 12.5, "on": True, "none": None}]) > 8
    assert count(7) == count([]) == count([None, 3.5]) == 7
    nothing = TokenCounter(tier="base").count_request({"model": None, "messages": "?"})
    assert nothing.tokens == 7


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "content", "source", "input", "data", "schema", "x"]),
                inner | st.sampled_from(["image", "document", "tool_use", "tool_result", "base64"]),
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_is_in_a_request_it_is_read(content: object) -> None:
    fields = {"messages": content, "tools": content, "system": content, "output_config": content}
    prompt = read_prompt(fields, most_image_tokens=1_568)
    assert prompt.parts["request"] == 1
    assert read_prompt(ask(content), most_image_tokens=1_568).parts["message"] == 0


# --- learning -----------------------------------------------------------------------------------


def test_a_factor_is_learned_for_each_model_and_template() -> None:
    counter = TokenCounter(tier="base")
    request = ask("The quick brown fox jumps over the lazy dog. " * 20)
    before = counter.count_request(request)
    for _ in range(20):
        counter.learn(request, Usage(input_tokens=before.tokens * 2), template="triage")
    after = counter.count_request(request, template="triage")
    assert 1.75 < after.tokens / before.tokens <= 2
    assert after.margin < before.margin
    assert counter.count_request(request) == before
    assert counter.count_request(request | {"model": "claude-sonnet-4-5"}) == before


def test_one_outlier_in_three_moves_no_estimate_far() -> None:
    corrector = Corrector()
    for number in range(30):
        corrector.learn("k", estimated=100, true=5_000 if number % 3 == 0 else 101)
    correction = corrector.correction("k")
    assert correction.factor == pytest.approx(1.01, abs=0.01)
    assert correction.margin is not None
    assert correction.margin > 1  # nine in ten were not near, and it says so


def test_few_samples_move_an_estimate_little_and_leave_its_margin() -> None:
    corrector = Corrector()
    assert corrector.correction("k") == (1.0, None)
    corrector.learn("k", estimated=100, true=130)
    factor, margin = corrector.correction("k")
    assert factor == pytest.approx(1.05)
    assert margin is None
    for _ in range(ENOUGH):
        corrector.learn("k", estimated=100, true=130)
    assert corrector.correction("k").margin is not None


def test_old_samples_give_way_when_the_truth_moves() -> None:
    corrector = Corrector()
    for true in [100] * WINDOW + [150] * WINDOW:
        corrector.learn("k", estimated=100, true=true)
    assert corrector.correction("k").factor == pytest.approx(1.5, abs=0.08)


def test_a_learned_margin_holds_for_what_comes_next() -> None:
    seed = 11
    print(f"{seed=}")
    dice = random.Random(seed)
    corrector = Corrector()
    inside = 0
    for _ in range(2_000):
        true = round(1_000 * dice.lognormvariate(0.1, 0.05))
        factor, margin = corrector.correction("k")
        if margin is not None:
            inside += abs(true - 1_000 * factor) <= 1_000 * factor * margin
        corrector.learn("k", estimated=1_000, true=true)
    assert inside / (2_000 - ENOUGH) >= 0.9


def test_memory_of_corrections_is_bounded_and_nothing_is_learned_from_nothing() -> None:
    corrector = Corrector(max_keys=2)
    for key in ("a", "b", "a", "c"):
        corrector.learn(key, estimated=100, true=200)
    assert corrector.correction("b").factor == 1
    assert corrector.correction("a").factor > 1
    corrector.learn("d", estimated=0, true=5)
    corrector.learn("d", estimated=5, true=0)
    assert corrector.correction("d") == (1.0, None)


# --- cost and budget ----------------------------------------------------------------------------


def test_a_cost_estimate_has_three_values_in_order() -> None:
    request = MessageRequest(
        model="claude-opus-5-5", max_tokens=400, messages=[Message.user("Hello")]
    )
    low, expected, high = TokenCounter().estimate_cost(request)
    assert low is not None
    assert expected is not None
    assert high is not None
    assert low < expected < high
    told = TokenCounter().estimate_cost(request, expected_output_tokens=0)
    assert told.expected_pusd is not None
    assert told.expected_pusd < expected


def test_the_low_cost_is_the_least_prompt_alone_and_the_expected_one_a_quarter_of_the_answer() -> (
    None
):
    counter = TokenCounter(tier="base")
    request = ask("word " * 1_000) | {"model": "claude-opus-5-5", "max_tokens": 401}
    estimate = counter.count_request(request)
    least = math.floor(estimate.tokens * (1 - estimate.margin))
    assert 0 < least < estimate.tokens
    # Opus 5.5: 4 USD in, 20 USD out a million tokens: 4 and 20 million pico-USD a token.
    low, expected, _ = counter.estimate_cost(request)
    assert low == least * 4_000_000
    assert expected == estimate.tokens * 4_000_000 + 100 * 20_000_000
    assert estimate.upper == math.ceil(estimate.tokens + estimate.tokens * estimate.margin)


def test_a_guess_that_may_be_all_wrong_has_a_low_cost_of_nothing_not_less() -> None:
    counter = TokenCounter(tier="base")
    tiny = ask("x") | {"model": "claude-opus-5-5"}
    assert counter.count_text("x").margin > 1
    low, _, _ = counter.estimate_cost(tiny)
    assert low is not None
    assert low >= 0


def test_text_in_other_letters_widens_the_margin_by_its_share() -> None:
    counter = TokenCounter(tier="base")
    plain, mixed, foreign = (
        counter.count_text(text).margin
        for text in ("word " * 2_000, "word " * 1_000 + "слово " * 1_000, "слово " * 2_000)
    )
    assert plain < mixed <= foreign
    assert foreign == pytest.approx(plain + 0.5, abs=0.01)


def test_a_prompt_that_may_be_cached_can_cost_as_little_as_its_reading() -> None:
    block = {"type": "text", "text": "word " * 5_000, "cache_control": {"type": "ephemeral"}}
    plain = TokenCounter().estimate_cost(ask([{k: block[k] for k in ("type", "text")}]))
    cached = TokenCounter().estimate_cost(ask([block]))
    assert plain.low_pusd is not None
    assert cached.low_pusd == pytest.approx(plain.low_pusd / 10, rel=0.01)
    assert cached.expected_pusd == plain.expected_pusd


def test_a_model_without_a_price_has_no_cost_estimate() -> None:
    request = ask("x") | {"model": "claude-next"}
    assert TokenCounter().estimate_cost(request) == (None, None, None)


def test_weights_of_a_tokenizer_that_is_not_known_are_the_newest() -> None:
    assert weights_for(None, "base") == weights_for("2026", "base") == weights_for("2099", "base")


def test_a_budget_hands_out_what_it_has_and_no_more() -> None:
    budget = TokenBudget(100)
    budget.allocate(60)
    assert (budget.remaining, budget.utilization) == (40, 0.6)
    with pytest.raises(BudgetExceeded, match="40 of 100"):
        budget.allocate(41)
    assert not budget.can_allocate(-1)
    assert budget.can_allocate(0)
    budget.allocate(40)
    assert (budget.remaining, budget.utilization) == (0, 1.0)
    budget.reset()
    assert budget.remaining == 100
    assert TokenBudget(1).can_allocate(1)
    with pytest.raises(ValueError, match="at least one"):
        TokenBudget(0)
