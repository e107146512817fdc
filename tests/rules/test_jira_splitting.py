"""Long documents in several parts: nothing lost, nothing broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.jira import adf
from llm_integrations.jira.adf.splitting import split
from tests.rules.test_jira_adf import SCHEMA, Schema, markdown

Json = Any  # a test looks at JSON as it comes


@pytest.fixture(scope="module")
def schema() -> Schema:
    if not SCHEMA.exists():
        pytest.skip("the ADF schema (../shared/data/adf) is not here")
    return Schema(SCHEMA)


def words(doc: Mapping[str, Json]) -> str:
    return "".join(adf.to_text(doc).split())


@given(text=markdown, times=st.integers(1, 8), limit=st.integers(30, 200))
def test_parts_are_short_valid_and_hold_every_word_in_order(
    text: str, times: int, limit: int, schema: Schema
) -> None:
    doc = adf.from_markdown("\n\n".join([text.replace("|", "/")] * times))
    parts = split(doc, limit=limit)
    assert all(schema.allows(part) for part in parts)
    assert all(len(adf.to_text(part)) <= limit for part in parts)
    assert "".join(map(words, parts)) == words(doc)


def test_a_short_document_is_one_part_as_it_was() -> None:
    for text in ("", "a", "- a\n- b"):
        doc = adf.from_markdown(text)
        assert split(doc) == [doc]


def test_an_ordered_list_goes_on_with_its_next_number() -> None:
    doc = adf.from_markdown("\n".join(f"{n}. step {n}" for n in range(5, 11)))
    parts: list[Json] = split(doc, limit=40)
    first = [part["content"][0]["attrs"]["order"] for part in parts]
    assert first[0] == 5
    counts = [len(part["content"][0]["content"]) for part in parts]
    assert first == [5 + sum(counts[:at]) for at in range(len(parts))]
    assert sum(counts) == 6


def test_a_table_repeats_its_header() -> None:
    rows = "\n".join(f"| {n} | row {n} |" for n in range(9))
    parts: list[Json] = split(adf.from_markdown(f"| n | what |\n|---|---|\n{rows}"), limit=40)
    assert len(parts) > 2
    for part in parts:
        (table,) = part["content"]
        kinds = [row["content"][0]["type"] for row in table["content"]]
        assert kinds == ["tableHeader"] + ["tableCell"] * (len(kinds) - 1)
        assert len(kinds) > 1


def test_code_is_cut_between_lines_and_keeps_its_language() -> None:
    code = "\n".join(f"line {n} of code" for n in range(20))
    parts: list[Json] = split(adf.from_markdown(f"```py\n{code}\n```"), limit=70)
    assert {part["content"][0]["attrs"]["language"] for part in parts} == {"py"}
    assert "".join(part["content"][0]["content"][0]["text"] for part in parts) == code
    assert all(part["content"][0]["content"][0]["text"].startswith("line") for part in parts)


def test_marks_stay_on_both_sides_of_a_cut() -> None:
    parts: list[Json] = split(adf.from_markdown(f"**{'word ' * 30}end**"), limit=50)
    marks = [node["marks"] for part in parts for node in part["content"][0]["content"]]
    assert len(parts) > 2
    assert all(mark == [{"type": "strong"}] for mark in marks)


def test_what_cannot_be_cut_stays_whole() -> None:
    mention = {"type": "mention", "attrs": {"id": "a", "text": "@" + "x" * 90}}
    doc = {"type": "doc", "version": 1, "content": [{"type": "paragraph", "content": [mention]}]}
    assert split(doc, limit=40) == [doc]
    wide = f"| {'head ' * 20}| b |\n|---|---|\n| 1 | 2 |"
    assert len(split(adf.from_markdown(wide), limit=40)) == 1
