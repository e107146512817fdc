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


def paragraphs(*texts: str) -> list[dict[str, Json]]:
    return [{"type": "paragraph", "content": [{"type": "text", "text": text}]} for text in texts]


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
    parts: list[Json] = split(doc, limit=20)
    first = [part["content"][0]["attrs"]["order"] for part in parts]
    assert len(parts) > 2
    assert first[0] == 5
    counts = [len(part["content"][0]["content"]) for part in parts]
    assert first == [5 + sum(counts[:at]) for at in range(len(parts))]
    assert sum(counts) == 6


def test_a_list_that_names_no_first_number_goes_on_from_one() -> None:
    item = {"type": "listItem", "content": paragraphs("0123456789")}
    attrs = {"localId": "x"}
    for own in ({}, {"attrs": attrs}):
        doc = {"type": "doc", "version": 1, "content": [
            {"type": "orderedList", **own, "content": [item, item, item]},
        ]}  # fmt: skip
        parts: list[Json] = split(doc, limit=24)
        lists = [part["content"][0]["attrs"] for part in parts]
        assert lists == [{**own.get("attrs", {}), "order": order} for order in (1, 3)]


def test_only_ordered_lists_are_numbered() -> None:
    parts: list[Json] = split(adf.from_markdown("- 0123456789\n- 0123456789"), limit=14)
    assert len(parts) == 2
    assert all(part["content"][0].get("attrs") is None for part in parts)


@pytest.mark.parametrize(
    ("texts", "limit", "parts"),
    [
        (["12345678", "12345678"], 18, [2]),  # a block counts its end too: 9 and 9
        (["12345678", "12345678"], 17, [1, 1]),
        (["12345678", "12345678", "1"], 18, [2, 1]),
        (["1", "1", "12345678", "1", "1"], 13, [3, 2]),
        (["123456789"], 10, [1]),
    ],
)
def test_each_part_holds_as_much_as_it_can(texts: list[str], limit: int, parts: list[int]) -> None:
    doc = {"type": "doc", "version": 1, "content": paragraphs(*texts)}
    cut: list[Json] = split(doc, limit=limit)
    assert [len(part["content"]) for part in cut] == parts


@pytest.mark.parametrize(
    ("text", "limit", "pieces"),
    [
        ("one two three", 9, ["one ", "two ", "three"]),
        ("one\ntwo six", 11, ["one\n", "two six"]),
        ("0123456789abcdef", 10, ["01234567", "89abcdef"]),
        (" 0123456789", 10, [" 0123456", "789"]),  # what begins with a blank is cut behind it not
        ("\n0123456789", 10, ["\n0123456", "789"]),
        ("0123456 89", 10, ["0123456 ", "89"]),
        ("0123456789 bcdef", 10, ["01234567", "89 bcdef"]),
    ],
)
def test_a_text_is_cut_behind_a_line_else_a_word_else_anywhere(
    text: str, limit: int, pieces: list[str]
) -> None:
    doc = {"type": "doc", "version": 1, "content": paragraphs(text)}
    cut: list[Json] = split(doc, limit=limit)
    assert [part["content"][0]["content"][0]["text"] for part in cut] == pieces


def test_a_row_of_headings_alone_is_no_header_to_repeat() -> None:
    def row(*kinds: str) -> dict[str, Json]:
        return {
            "type": "tableRow",
            "content": [{"type": kind, "content": paragraphs("0123456789")} for kind in kinds],
        }

    for rows in (
        [row("tableHeader", "tableHeader")],
        [row("tableCell", "tableCell")] * 3,
        [row("tableHeader", "tableCell"), *[row("tableCell", "tableCell")] * 3],
        [row(), *[row("tableCell", "tableCell")] * 3],
    ):
        doc = {"type": "doc", "version": 1, "content": [{"type": "table", "content": rows}]}
        for limit in (16, 30, 60):
            parts = split(doc, limit=limit)
            assert len(parts) > 1 or len(adf.to_text(doc)) < limit
            assert "".join(map(words, parts)) == words(doc)


def test_a_header_that_takes_more_than_half_the_room_leaves_the_table_whole() -> None:
    def table(header: str) -> dict[str, Json]:
        text = f"| {header} | b |\n|---|---|\n" + "\n".join(["| 0123 | 5678 |"] * 4)
        return adf.from_markdown(text)

    assert len(split(table("x" * 17), limit=40)) > 1
    assert len(split(table("x" * 18), limit=40)) == 1


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
