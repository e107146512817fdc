"""Bills computed by hand: what each price rule says of one usage, with the arithmetic beside it.

Rates are US dollars per million tokens, from https://platform.claude.com/docs/en/about-claude/pricing;
so "1,000 x 4" is 0.004 USD. Rules are numbered as in `anthropic/pricing.py`.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any, Final, NamedTuple

__all__ = ["BILLS", "USD", "Bill", "pusd"]

USD: Final = 10**12


class Bill(NamedTuple):
    """One usage and what it costs; None is unknown."""

    name: str
    model: str
    usage: dict[str, Any]
    usd: str | None
    at: date | None = None


def pusd(usd: str) -> int:
    """Return an amount of dollars in pico-USD."""
    exact = Decimal(usd) * USD
    assert exact == int(exact)
    return int(exact)


def _counts(plain: int = 0, output: int = 0, *, read: int = 0, **more: object) -> dict[str, Any]:
    return {
        "input_tokens": plain,
        "output_tokens": output,
        "cache_read_input_tokens": read,
        **more,
    }


def _written(five: int, hour: int, **more: object) -> dict[str, Any]:
    return {
        "cache_creation_input_tokens": five + hour,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
        **more,
    }


def _run(kind: str, plain: int, output: int, **more: object) -> dict[str, Any]:
    return {"type": kind, **_counts(plain, output), **more}


BILLS: Final[tuple[Bill, ...]] = (
    # --- 1: the prompt is the sum of its classes --------------------------------------------------
    # 1,000 x 4 + 100 x 20 = 4,000 + 2,000 = 6,000 per million
    Bill("1 plain", "claude-opus-5-5", _counts(1000, 100), "0.006"),
    # 1,000 x 5 + 2,000 x 0.50 + 100 x 25 = 5,000 + 1,000 + 2,500
    Bill("1 cached", "claude-opus-5", _counts(1000, 100, read=2000), "0.0085"),
    # 21 x 3 + 188,086 x 3.75 + 0 x 0.30 + 393 x 15 = 63 + 705,322.5 + 5,895
    Bill(
        "1 mostly written",
        "claude-sonnet-4-20250514",
        _counts(21, 393, **_written(188_086, 0)),
        "0.7112805",
    ),
    # 7 x 1 + 1,024 x 0.10 + 3 x 5 = 7 + 102.4 + 15
    Bill("1 haiku 4.5", "claude-haiku-4-5-20251001", _counts(7, 3, read=1024), "0.0001244"),
    # --- 2: cache writes, 5 minutes and 1 hour ----------------------------------------------------
    # 10,000 x 3.75
    Bill("2 five minutes", "claude-sonnet-4-6", _written(10_000, 0), "0.0375"),
    # 1,000 x 3.75 + 10,000 x 6 = 3,750 + 60,000
    Bill("2 one hour", "claude-sonnet-4-6", _written(1_000, 10_000), "0.06375"),
    # 4,000 x 3.75: no split at all is five minutes
    Bill("2 no split", "claude-sonnet-4-6", {"cache_creation_input_tokens": 4_000}, "0.015"),
    # (5,000 - 1,000) x 3.75 + 1,000 x 6 = 15,000 + 6,000: the total grew beyond the split
    Bill(
        "2 surplus",
        "claude-sonnet-4-6",
        _written(2_000, 1_000) | {"cache_creation_input_tokens": 5_000},
        "0.021",
    ),
    # 100 x 12.50 + 200 x 20 = 1,250 + 4,000
    Bill("2 fable", "claude-fable-5-1", _written(100, 200), "0.00525"),
    # 1,000 x 0.30 + 1,000 x 0.50: 1.2 times the input price, not 1.25
    Bill("2 haiku 3", "claude-3-haiku-20240307", _written(1_000, 1_000), "0.0008"),
    # --- 3: cache reads belong to a model and a day -----------------------------------------------
    # 100,000 x 0.20: 0.05 of the input price
    Bill("3 opus 5.5", "claude-opus-5-5", _counts(read=100_000), "0.02"),
    # 100,000 x 0.25: 0.025 of it
    Bill("3 mythos 5.1", "claude-mythos-5-1", _counts(read=100_000), "0.025"),
    # 100,000 x 0.20: 0.025 of it
    Bill("3 mythos 5.2", "claude-mythos-5-2", _counts(read=100_000), "0.02"),
    # 100,000 x 1: 0.1 of it
    Bill("3 mythos 5", "claude-mythos-5", _counts(read=100_000), "0.1"),
    # 100,000 x 0.20, the last day before the cut
    Bill(
        "3 sonnet 5.5 before",
        "claude-sonnet-5-5",
        _counts(read=100_000),
        "0.02",
        date(2026, 10, 6),
    ),
    # 100,000 x 0.10, the day of the cut
    Bill(
        "3 sonnet 5.5 after",
        "claude-sonnet-5-5",
        _counts(read=100_000),
        "0.01",
        date(2026, 10, 7),
    ),
    # 1,000 x 2 + 10 x 10 = 2,000 + 100: the other classes did not change that day
    Bill(
        "3 sonnet 5.5 input",
        "claude-sonnet-5-5",
        _counts(1_000, 10),
        "0.0021",
        date(2026, 10, 6),
    ),
    # Claude 2 had no cache: no price
    Bill("3 claude 2.1", "claude-2.1", _counts(10, read=1), None),
    # --- 4: a batch costs half --------------------------------------------------------------------
    # (1,000 x 5 + 200 x 25) / 2 = (5,000 + 5,000) / 2
    Bill("4 batch", "claude-opus-4-8", _counts(1000, 200, service_tier="batch"), "0.005"),
    # (8,000 x 10 + 2,000 x 0.50) / 2 = (80,000 + 1,000) / 2: stacks with the cache
    Bill(
        "4 with cache",
        "claude-opus-4-8",
        _counts(read=2_000, **_written(0, 8_000), service_tier="batch"),
        "0.0405",
    ),
    # (3 x 0.01 + 1 x 0.50) / 2 = 0.53 / 2 = 0.265: one token, still exact
    Bill("4 tiny", "claude-haiku-5-5", _counts(0, 1, read=3, service_tier="batch"), "0.000000265"),
    # --- 5: fast mode, as served ------------------------------------------------------------------
    # 1,000 x 10 + 100 x 50 = 10,000 + 5,000
    Bill("5 opus 5", "claude-opus-5", _counts(1000, 100, speed="fast"), "0.015"),
    # 1,000 x 8 + 100 x 40 = 8,000 + 4,000
    Bill("5 opus 5.5", "claude-opus-5-5", _counts(1000, 100, speed="fast"), "0.012"),
    # 10,000 x 0.40: the cache factor 0.025 on top of 16
    Bill("5 with cache", "claude-fable-5-2", _counts(read=10_000, speed="fast"), "0.004"),
    # 10 x 80 = 800
    Bill("5 mythos 5.2", "claude-mythos-5-2", _counts(0, 10, speed="fast"), "0.0008"),
    # 1,000 x 5: fast was asked for, standard was served
    Bill("5 served", "claude-opus-4-6", _counts(1000, speed="standard"), "0.005"),
    # 1,000 x 10, the last day that Opus 4.8 had it
    Bill(
        "5 opus 4.8 last day",
        "claude-opus-4-8",
        _counts(1000, speed="fast"),
        "0.01",
        date(2026, 11, 29),
    ),
    # the day it was removed
    Bill(
        "5 opus 4.8 removed",
        "claude-opus-4-8",
        _counts(1000, speed="fast"),
        None,
        date(2026, 11, 30),
    ),
    # Sonnet 5 has no fast mode: no price
    Bill("5 without", "claude-sonnet-5", _counts(1000, speed="fast"), None),
    # 1,000 x 5 / 2: never in a batch
    Bill(
        "5 not in a batch",
        "claude-opus-5",
        _counts(1000, speed="fast", service_tier="batch"),
        "0.0025",
    ),
    # --- 6: inference in the US -------------------------------------------------------------------
    # (1,000 x 4 + 100 x 20) x 1.1 = 6,000 x 1.1
    Bill("6 US", "claude-opus-5-5", _counts(1000, 100, inference_geo="us"), "0.0066"),
    # (1,000 x 3.75 + 1,000 x 0.30) x 1.1 / 2 = 4,050 x 0.55
    Bill(
        "6 US in a batch",
        "claude-sonnet-4-6",
        _counts(read=1000, **_written(1_000, 0), inference_geo="us", service_tier="batch"),
        "0.0022275",
    ),
    # (1,000 x 10 + 1,000 x 1) x 1.1 = 12,100: on the fast rates
    Bill(
        "6 US and fast",
        "claude-opus-5",
        _counts(1000, read=1000, inference_geo="us", speed="fast"),
        "0.0121",
    ),
    # 1,000 x 4 x 1.0
    Bill("6 global", "claude-opus-5-5", _counts(1000, inference_geo="global"), "0.004"),
    # 1,000 x 3: older models have no choice of place
    Bill("6 older", "claude-sonnet-4-5", _counts(1000, inference_geo="us"), "0.003"),
    # --- 7: tiers for long prompts ----------------------------------------------------------------
    # 100,000 x 0.10 + 1,000 x 0.50 = 10,000 + 500: at the boundary
    Bill("7 boundary", "claude-haiku-5-5", _counts(100_000, 1000), "0.0105"),
    # 1 x 0.50 + 100,000 x 0.05 + 1,000 x 2.50 = 0.5 + 5,000 + 2,500: every class at five times
    Bill("7 above", "claude-haiku-5-5", _counts(1, 1000, read=100_000), "0.0075005"),
    # 60,000 x 0.625 + 40,001 x 1 = 37,500 + 40,001: the writes count towards the prompt
    Bill("7 by writes", "claude-haiku-5-5", _written(60_000, 40_001), "0.077501"),
    # 200,001 x 6 + 10 x 22.50 = 1,200,006 + 225: the 1M beta
    Bill("7 sonnet 4.5", "claude-sonnet-4-5-20250929", _counts(200_001, 10), "1.200231"),
    # 200,001 x 6 + 10 x 7.50 + 100 x 12 + 1,000 x 0.60 + 10 x 22.50
    # = 1,200,006 + 75 + 1,200 + 600 + 225
    Bill(
        "7 sonnet 4",
        "claude-sonnet-4-20250514",
        _counts(200_001, 10, read=1_000, **_written(10, 100)),
        "1.202106",
        date(2026, 4, 1),
    ),
    # 300,000 x 10 + 2 x 37.50 = 3,000,075
    Bill(
        "7 opus 4.6 before", "claude-opus-4-6", _counts(300_000, 2), "3.000075", date(2026, 3, 12)
    ),
    # 300,000 x 5 + 2 x 25 = 1,500,050
    Bill("7 opus 4.6 after", "claude-opus-4-6", _counts(300_000, 2), "1.50005", date(2026, 3, 13)),
    # 900,000 x 2 = 1,800,000: flat
    Bill("7 flat", "claude-sonnet-5", _counts(900_000), "1.8"),
    # --- 8: tools at the server -------------------------------------------------------------------
    # 3 x 10 / 1,000 USD + 1,000 x 2 = 0.03 + 0.002
    Bill(
        "8 searches",
        "claude-sonnet-5",
        _counts(1000, server_tool_use={"web_search_requests": 3}),
        "0.032",
    ),
    # 1 x 10 / 1,000: fetches are free, searches cost the same in a batch
    Bill(
        "8 in a batch",
        "claude-sonnet-5",
        {
            "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 9},
            "service_tier": "batch",
        },
        "0.01",
    ),
    # 2 x 10 / 1,000 + 1,000 x 4 x 1.1 = 0.02 + 0.0044: nor is a search dearer in the US
    Bill(
        "8 in the US",
        "claude-opus-5-5",
        _counts(1000, inference_geo="us", server_tool_use={"web_search_requests": 2}),
        "0.0244",
    ),
    # --- 10: the sum over the runs ----------------------------------------------------------------
    # 55,196 x 5 + 125 x 25 + 220 x 5 + 8 x 25 = 275,980 + 3,125 + 1,100 + 200; the top level
    # (220, 8) is not the bill
    Bill(
        "10 compaction",
        "claude-opus-4-8",
        _counts(220, 8, iterations=[_run("compaction", 55_196, 125), _run("message", 220, 8)]),
        "0.280405",
    ),
    # 1,128 x 2 + 110 x 10 + 2,518 x 5 + 22 x 25 + 1,262 x 2 + 11 x 10
    # = 2,256 + 1,100 + 12,590 + 550 + 2,524 + 110
    Bill(
        "10 advisor at its own model",
        "claude-sonnet-5",
        _counts(
            2390,
            121,
            iterations=[
                _run("message", 1128, 110),
                _run("advisor_message", 2518, 22, model="claude-opus-4-8"),
                _run("message", 1262, 11),
            ],
        ),
        "0.01913",
    ),
    # 412 x 5 + 264 x 25 = 2,060 + 6,600: the declined attempt (408) is not billed
    Bill(
        "10 fallback",
        "claude-fable-5",
        _counts(
            412,
            264,
            iterations=[
                _run("message", 408, 0, model="claude-fable-5"),
                _run("fallback_message", 412, 264, model="claude-opus-4-8"),
            ],
        ),
        "0.00866",
    ),
    # 412 x 5 + 264 x 25 = 2,060 + 6,600: neither of the two that declined is billed
    Bill(
        "10 second fallback",
        "claude-fable-5",
        {
            "iterations": [
                _run("message", 408, 0, model="claude-fable-5"),
                _run("fallback_message", 409, 0, model="claude-opus-5"),
                _run("fallback_message", 412, 264, model="claude-opus-4-8"),
            ],
        },
        "0.00866",
    ),
    # 408 x 10 + 5 x 50 + 412 x 5 + 264 x 25 = 4,080 + 250 + 8,660: declined in the middle is billed
    Bill(
        "10 late fallback",
        "claude-fable-5",
        _counts(
            412,
            264,
            iterations=[
                _run("message", 408, 5, model="claude-fable-5"),
                _run("fallback_message", 412, 264, model="claude-opus-4-8"),
            ],
        ),
        "0.01299",
    ),
    # 100 x 2 + 50 x 4 = 400: nothing was written, but no one declined; the cache was only warmed
    Bill(
        "10 warmed only",
        "claude-sonnet-5",
        {"iterations": [_run("message", 100, 0, **_written(0, 50))]},
        "0.0004",
    ),
    # 90,000 x 0.10 + 90,000 x 0.10 = 18,000: each run is a prompt of its own, below the tier
    Bill(
        "10 tiers by run",
        "claude-haiku-5-5",
        _counts(180_000, iterations=[_run("message", 90_000, 0), _run("message", 90_000, 0)]),
        "0.018",
    ),
    # 10 x 8 + 10 x 10 = 180: Opus 5.5 was fast; Fable 5, which cannot be, gave advice
    Bill(
        "10 fast, the advisor is not",
        "claude-opus-5-5",
        {
            "speed": "fast",
            "iterations": [
                _run("message", 10, 0),
                _run("advisor_message", 10, 0, model="claude-fable-5"),
            ],
        },
        "0.00018",
    ),
    # one run at a model without a price makes all of it unknown
    Bill(
        "10 unknown advisor",
        "claude-opus-5",
        {"iterations": [_run("message", 9, 9), _run("advisor_message", 1, 1, model="claude-9")]},
        None,
    ),
    # --- 11: thinking is inside -------------------------------------------------------------------
    # 100 x 25, not 160 x 25
    Bill(
        "11 thinking",
        "claude-opus-5",
        _counts(0, 100, output_tokens_details={"thinking_tokens": 60}),
        "0.0025",
    ),
    # 10 x 4 + 2,000 x 20 = 40,040, though 1,990 of them were thoughts
    Bill(
        "11 mostly thinking",
        "claude-opus-5-5",
        _counts(10, 2_000, output_tokens_details={"thinking_tokens": 1_990}),
        "0.04004",
    ),
    # --- 12: the prompt of tools is inside --------------------------------------------------------
    # 599 x 3 + 35 x 15 = 1,797 + 525: nothing comes on top for the tool
    Bill("12 tools", "claude-sonnet-4-5-20250929", _counts(599, 35), "0.002322"),
    # 804 x 5 + 40 x 25 = 4,020 + 1,000
    Bill("12 forced tool", "claude-opus-4-7", _counts(804, 40), "0.00502"),
    # --- models that are gone ---------------------------------------------------------------------
    # 2,000 x 0.25 + 100 x 1.25 = 500 + 125
    Bill("claude 3 haiku", "claude-3-haiku-20240307", _counts(2000, 100), "0.000625"),
    # 2,000 x 15 + 100 x 75 + 10 x 1.50 = 30,000 + 7,500 + 15
    Bill("claude 3 opus", "claude-3-opus-20240229", _counts(2000, 100, read=10), "0.037515"),
    # 1,000 x 3 + 10 x 15 = 3,150
    Bill("claude 3.5 alias", "claude-3-5-sonnet-latest", _counts(1000, 10), "0.00315"),
    # 1,000 x 0.80 + 10 x 4 + 10 x 0.08 = 800 + 40 + 0.8
    Bill("claude 3.5 haiku", "claude-3-5-haiku-20241022", _counts(1000, 10, read=10), "0.0008408"),
    # 1,000 x 3 + 10 x 15
    Bill("claude 3.7", "claude-3-7-sonnet-20250219", _counts(1000, 10), "0.00315"),
    # 1,000 x 15 + 10 x 75 = 15,750
    Bill("claude 4 opus", "claude-opus-4-20250514", _counts(1000, 10), "0.01575"),
    # 1,000 x 15 + 10 x 75
    Bill("claude 4.1 opus", "claude-opus-4-1-20250805", _counts(1000, 10), "0.01575"),
    # 1,000 x 5 + 10 x 25 = 5,250
    Bill("claude 4.5 opus", "claude-opus-4-5-20251101", _counts(1000, 10), "0.00525"),
    # 1,000 x 8 + 10 x 24 = 8,240
    Bill("claude 2", "claude-2.1", _counts(1000, 10), "0.00824"),
)
