"""Write `anthropic/data/prices.json`: genai-prices, plus what it lacks, each line with its source.

Run it after an upgrade of genai-prices, read the diff, and raise VERSION:

    .venv/bin/python scripts/make_prices.py

Amounts are US dollars per million tokens, as decimal strings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from genai_prices.data_snapshot import get_snapshot

VERSION: Final = "2026-11-23"
TARGET: Final = Path(__file__).parent.parent / "src/llm_integrations/anthropic/data/prices.json"
FIELDS: Final = {
    "input": "input_mtok",
    "cache_write_5m": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "cache_read": "cache_read_mtok",
    "output": "output_mtok",
}
PRICING: Final = "https://platform.claude.com/docs/en/about-claude/pricing"

# Our id for each entry of genai-prices, and the other names under which it is asked for. A dated
# form of a name (name-YYYYMMDD) and name-latest need no entry.
NAMES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "claude-v1": ("claude-v1", ()),
    "claude-2": ("claude-2", ("claude-2.0", "claude-2.1")),
    "claude-3-haiku": ("claude-3-haiku", ()),
    "claude-3-sonnet": ("claude-3-sonnet", ()),
    "claude-3-opus-latest": ("claude-3-opus", ()),
    "claude-3-5-haiku-latest": ("claude-3-5-haiku", ()),
    "claude-3-5-sonnet": ("claude-3-5-sonnet", ()),
    "claude-3-7-sonnet-latest": ("claude-3-7-sonnet", ()),
    "claude-sonnet-4-0": ("claude-sonnet-4", ("claude-sonnet-4-0",)),
    "claude-opus-4-0": ("claude-opus-4", ("claude-opus-4-0",)),
    "claude-opus-4-1": ("claude-opus-4-1", ()),
    "claude-sonnet-4-5": ("claude-sonnet-4-5", ()),
    "claude-haiku-4-5": ("claude-haiku-4-5", ()),
    "claude-opus-4-5": ("claude-opus-4-5", ()),
    "claude-sonnet-4-6": ("claude-sonnet-4-6", ()),
    "claude-opus-4-6": ("claude-opus-4-6", ()),
    "claude-opus-4-7": ("claude-opus-4-7", ()),
    "claude-opus-4-8": ("claude-opus-4-8", ()),
    "claude-opus-5": ("claude-opus-5", ()),
    "claude-sonnet-5": ("claude-sonnet-5", ()),
    "claude-fable-5": ("claude-fable-5", ("claude-mythos-5",)),
    "claude-fable-5-1": ("claude-fable-5-1", ("claude-mythos-5-1",)),
    "claude-fable-5-2": ("claude-fable-5-2", ()),
    "claude-mythos-5-2": ("claude-mythos-5-2", ()),
    "claude-opus-5-5": ("claude-opus-5-5", ()),
    "claude-sonnet-5-5": ("claude-sonnet-5-5", ()),
    "claude-haiku-5-5": ("claude-haiku-5-5", ()),
}

# Models that take `inference_geo`, where "us" costs 1.1 times (older ones refuse the parameter).
US_GEO: Final = frozenset(
    """claude-sonnet-4-6 claude-opus-4-6 claude-opus-4-7 claude-opus-4-8 claude-opus-5
    claude-sonnet-5 claude-fable-5 claude-fable-5-1 claude-fable-5-2 claude-mythos-5-2
    claude-opus-5-5 claude-sonnet-5-5 claude-haiku-5-5""".split()
)
US_GEO_SOURCE: Final = "https://platform.claude.com/docs/en/build-with-claude/data-residency"

# What genai-prices does not have, or has without its dates: (row, its source), prepended.
EARLIER_ROWS: Final[Mapping[str, tuple[dict[str, str], str]]] = {
    "claude-sonnet-5-5": (
        {"cache_read": "0.20", "until": "2026-10-07"},
        f"{PRICING}#prompt-caching: cache reads cost 0.20 before 2026-10-07",
    ),
}
TIERS: Final[Mapping[str, tuple[int, dict[str, str], str]]] = {
    "claude-sonnet-4": (
        200_000,
        {
            "input": "6",
            "cache_write_5m": "7.5",
            "cache_write_1h": "12",
            "cache_read": "0.6",
            "output": "22.5",
        },
        f"{PRICING}#long-context-pricing: the 1M beta; since 2026-04-30 refused, so it has no end",
    ),
}
FAST_UNTIL: Final[Mapping[str, tuple[str, str]]] = {
    "claude-opus-4-8": ("2026-11-30", f"{PRICING}#fast-mode-pricing: removed on 2026-11-30"),
}


def main() -> None:
    """Write the file."""
    TARGET.write_text(render(), encoding="utf-8")


def render() -> str:
    """Return the file that the installed genai-prices and the tables above make."""
    entries = {
        model.id: model
        for p in get_snapshot().providers
        if p.id == "anthropic"
        for model in p.models
    }
    table = {
        "version": VERSION,
        "unit": "US dollars per million tokens",
        "generator": f"scripts/make_prices.py from genai-prices {version('genai-prices')}",
        "web_search": {
            "usd_per_thousand": "10",
            "source": "https://platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool",
        },
        "models": [
            _model(ours, aliases, entries[theirs]) for theirs, (ours, aliases) in NAMES.items()
        ],
    }
    return json.dumps(table, indent=1) + "\n"


def _model(name: str, aliases: tuple[str, ...], entry: Any) -> dict[str, Any]:  # noqa: ANN401
    sources = [f"genai-prices {entry.id}"]
    rows = _rows(entry.prices)
    if name in EARLIER_ROWS:
        change, source = EARLIER_ROWS[name]
        change = dict(change)
        rows[0]["from"] = change.pop("until")
        rows.insert(0, {**{k: v for k, v in rows[0].items() if k != "from"}, **change})
        sources.append(source)
    if name in TIERS:
        above, rates, source = TIERS[name]
        rows[0]["long_prompt"] = {"above_tokens": above, **rates}
        sources.append(source)
    model: dict[str, Any] = {"id": name, "aliases": list(aliases), "rows": rows}
    if fast := _fast(entry):
        model["fast"] = fast
    if name in FAST_UNTIL:
        model["fast_until"], source = FAST_UNTIL[name]
        sources.append(source)
    if name in US_GEO:
        model["us_percent"] = 110
        sources.append(US_GEO_SOURCE)
    model["sources"] = sources
    return model


def _rows(prices: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return the price rows, the oldest first; each holds from its date on."""
    if not isinstance(prices, list):
        return [_row(prices)]
    rows = []
    for conditional in prices:
        start: date | None = getattr(conditional.constraint, "start_date", None)
        rows.append(({"from": start.isoformat()} if start else {}) | _row(conditional.prices))
    return sorted(rows, key=lambda row: row.get("from", ""))


def _row(prices: Any) -> dict[str, Any]:  # noqa: ANN401
    row: dict[str, Any] = {}
    long_prompt: dict[str, Any] = {}
    for ours, theirs in FIELDS.items():
        value = getattr(prices, theirs)
        if value is None:
            continue
        if isinstance(value, Decimal):
            row[ours] = str(value)
            continue
        (tier,) = value.tiers
        row[ours] = str(value.base)
        long_prompt["above_tokens"] = tier.start
        long_prompt[ours] = str(tier.price)
    if long_prompt:
        row["long_prompt"] = long_prompt
    return row


def _fast(entry: Any) -> dict[str, Any] | None:  # noqa: ANN401
    for variant in entry.price_variants or []:
        if variant.when == {"speed": "fast"}:
            return _rows(variant.prices)[-1]
    return None


if __name__ == "__main__":
    main()
