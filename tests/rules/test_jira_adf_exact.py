"""Every valid document survives Markdown: documents drawn from Atlassian's own schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira import adf
from llm_integrations.jira.adf import nodes
from llm_integrations.jira.adf.fences import write_fence
from tests.rules.test_jira_adf import SCHEMA, Schema, doc_of, item, node, para, text

Json = Any  # a test looks at JSON as it comes
LINKS = ["https://x.org/a", "http://y.example/?q=1&r=(2)", "mailto:a@b.example"]
TEXTS = [
    "a",
    "b c",
    "**bold**",
    "x`y",
    "- z",
    "é",
    "😀",
    "<u>",
    "a\nb",
    "\t",
    "&",
    "\x7f",
    "\uffff",
]
DEEPEST = 6


class Maker:
    """Draws values that a JSON schema allows; near the bottom it takes the shallow way."""

    def __init__(self, root: Mapping[str, Json], draw: st.DrawFn) -> None:
        self._root = root
        self._draw = draw

    def make(self, rule: Mapping[str, Json], name: str = "", depth: int = 0) -> Json:
        rule = self.merged(rule)
        if "enum" in rule:
            return self._draw(st.sampled_from(rule["enum"]))
        if "anyOf" in rule:
            ways = sorted(rule["anyOf"], key=self._is_deep)
            ways = [way for way in ways if not self._is_deep(way)] if depth > DEEPEST - 2 else ways
            way = self._draw(st.sampled_from(ways or rule["anyOf"]))
            return self.make(way, name, depth)
        match rule.get("type"):
            case "object":
                return self._object(rule, depth)
            case "array":
                return self._array(rule, depth)
            case "string":
                return self._string(rule, name)
            case "number":
                low, high = rule.get("minimum", 0), rule.get("maximum", 9)
                return self._draw(st.integers(int(low), int(high)))
            case "boolean":
                return self._draw(st.booleans())
            case _:
                return self._draw(st.sampled_from([None, 1, "x", {"k": [1.5]}]))

    def _object(self, rule: Mapping[str, Json], depth: int) -> Json:
        needed = rule.get("required", [])
        made = {}
        for name, member in rule.get("properties", {}).items():
            if name in needed or (depth < DEEPEST and self._draw(st.booleans())):
                made[name] = self.make(member, name, depth + 1)
        return made

    def _array(self, rule: Mapping[str, Json], depth: int) -> Json:
        items, least = rule.get("items"), rule.get("minItems", 0)
        if items is None:  # "marks" of nodes whose marks are named elsewhere
            return []
        if isinstance(items, list):
            return [self.make(each, "", depth + 1) for each in items[: max(least, 1)]]
        most = min(rule.get("maxItems", 3), 3 if depth < DEEPEST else least)
        size = self._draw(st.integers(least, max(least, most)))
        return [self.make(items, "", depth + 1) for _ in range(size)]

    def _string(self, rule: Mapping[str, Json], name: str) -> str:
        if "pattern" in rule:
            pattern: str = rule["pattern"]
            return self._draw(st.from_regex(pattern, fullmatch=True)).rstrip("\n")
        if name in {"href", "url"}:
            return self._draw(st.sampled_from(LINKS))
        return self._draw(st.sampled_from(TEXTS))

    def merged(self, rule: Mapping[str, Json]) -> Mapping[str, Json]:
        """Resolve references, and lay the parts of `allOf` over each other."""
        while "$ref" in rule:
            rule = self._root["definitions"][rule["$ref"].removeprefix("#/definitions/")]
        if "allOf" not in rule:
            return rule
        merged: dict[str, Json] = {"properties": {}, "type": "object", "required": []}
        parts = [self.merged(part) for part in rule["allOf"]]
        for part in parts:
            merged["properties"] |= part.get("properties", {})
            merged["required"] += part.get("required", [])
        for part in parts:
            if part.get("additionalProperties") is False:
                known = part["properties"].keys()
                merged["additionalProperties"] = False
                merged["properties"] = {k: v for k, v in merged["properties"].items() if k in known}
        return merged

    def children(self, rule: Mapping[str, Json]) -> set[str]:
        """Return the types of nodes that may stand in a node."""
        items = self.merged(rule["properties"].get("content", {})).get("items", [])
        return set().union(*map(self._types, items if isinstance(items, list) else [items]))

    def needed_attributes(self, rule: Mapping[str, Json]) -> set[str]:
        """Return the attributes that every form of a node has."""
        attrs = rule["properties"].get("attrs", {})
        if "attrs" not in rule.get("required", []):
            return set()
        forms = attrs.get("anyOf", [attrs])
        return set.intersection(*(set(self.merged(form).get("required", [])) for form in forms))

    def needs_content(self, rule: Mapping[str, Json]) -> bool:
        """Whether a node must have children."""
        content = self.merged(rule["properties"].get("content", {}))
        return "content" in rule.get("required", []) and content.get("minItems", 0) > 0

    def _types(self, rule: Mapping[str, Json]) -> set[str]:
        rule = self.merged(rule)
        if "anyOf" in rule:
            return set().union(*map(self._types, rule["anyOf"]))
        return set(rule["properties"]["type"]["enum"])

    def _is_deep(self, rule: Mapping[str, Json]) -> bool:
        return "content" in self.merged(rule).get("properties", {})


@pytest.fixture(scope="module")
def schema() -> Schema:
    if not SCHEMA.exists():
        pytest.skip("the ADF schema (../shared/data/adf) is not here")
    return Schema(SCHEMA)


@settings(
    max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data())
def test_a_document_that_the_schema_allows_comes_back_as_it_was(
    data: st.DataObject, schema: Schema
) -> None:
    doc = data.draw(st.composite(lambda draw: Maker(schema.root, draw).make(schema.root))())
    doc["version"] = 1
    assert schema.allows(doc)
    assert adf.from_markdown(adf.to_markdown(doc)) == doc


EXACT = [
    para(text("hi "), node("mention", id="a1", text="@Ada")),
    para(node("status", text="BLOCKED", color="red")),
    para(node("date", timestamp="1700000000000")),
    node("panel", para(text("mind")), panelType="success"),
    node("expand", para(text("in")), title="More"),
    node("mediaSingle", node("media", id="m", type="file", collection="c", width=1.5)),
    node("taskList", node("taskItem", text("do"), localId="1", state="TODO"), localId="0"),
    node("codeBlock", text('{"type":"rule"}'), language="adf"),
    node("codeBlock", text("a ``` b"), language="adf"),
    para(text("x ", "underline"), text("y")),
    para(text("red")) | {"marks": [{"type": "alignment", "attrs": {"align": "center"}}]},
    node("paragraph") | {"content": []},
    node("table", node("tableRow", node("tableCell", node("codeBlock", text("x|y"))))),
]


@pytest.mark.parametrize("block", EXACT)
def test_what_markdown_cannot_say_travels_whole(block: dict[str, Json]) -> None:
    doc = doc_of(para(text("before")), block, para(text("after")))
    said = adf.to_markdown(doc)
    assert said.startswith("before\n\n```")
    assert adf.from_markdown(said) == doc


def test_what_markdown_can_say_is_said_in_markdown() -> None:
    doc = doc_of(node("heading", text("Title"), level=2), node("bulletList", item(para(text("a")))))
    assert adf.to_markdown(doc) == "## Title\n\n- a"


@pytest.mark.parametrize(
    "source", ["> a", "- a", "3. a", "| a |\n|---|", "# a", "a", "```\na\n```"]
)
@pytest.mark.parametrize("after", ["> b", "- b", "7. b", "| b |\n|---|", "# b", "b", "    b"])
def test_blocks_do_not_run_into_each_other(source: str, after: str) -> None:
    parts = [adf.from_markdown(part)["content"] for part in (source, after, source)]
    doc = doc_of(*(block for part in parts for block in part))  # type: ignore[attr-defined] # JSON
    assert adf.from_markdown(adf.to_markdown(doc)) == doc


def test_code_of_blanks_and_ticks_is_code_again() -> None:
    doc = doc_of(para(text(" ", "code")), para(text("`a", "code")), para(text("b ", "code")))
    assert adf.to_readable(doc) == "` `\n\n`` `a ``\n\n` b  `"


@pytest.mark.parametrize(
    "forged",
    [
        '{"type":"paragraph","content":[{"type":"text","text":""}]}',
        '{"type":"paragraph","content":[{"type":"text"}]}',
        '{"type":"paragraph","content":[{"type":"paragraph"}]}',
        '{"type":"paragraph","content":"x"}',
        '{"type":"paragraph","more":1}',
        '{"type":"nonsense"}',
        '{"type":"text","text":"x"}',
        '{"type":["rule"]}',
        '{"type":"rule","attrs":[]}',
        '{"type":"rule","marks":{}}',
        '{"type":"rule","marks":[1]}',
        '{"type":"rule","marks":[{"type":"odd"}]}',
        '{"type":"rule","marks":[{"type":[]}]}',
        '{"type":"rule","marks":[{"type":"link","attrs":1}]}',
        '{"type":"heading"}',
        '{"type":"bulletList","content":[]}',
        '{"type":"blockCard","attrs":{"url":"javascript:1"}}',
        '{"type":"blockCard","attrs":{"url":7}}',
        '{"type":"rule","marks":[{"type":"link","attrs":{"href":"javascript:alert(1)"}}]}',
        "[]",
        "{",
        '{"type":"panel","attrs":{"panelType":"info"},"content":' * 70 + "[]" + "}" * 70,
    ],
)
def test_a_forged_fence_is_a_code_block(forged: str) -> None:
    doc: Json = adf.from_markdown(f"```adf\n{forged}\n```")
    assert [block["type"] for block in doc["content"]] == ["codeBlock"]


def test_a_node_may_be_sixty_levels_deep_and_no_deeper() -> None:
    def nested(levels: int) -> Json:
        inner: Json = {"type": "taskItem", "attrs": {"localId": "i", "state": "TODO"}}
        for _ in range(levels):
            inner = {"type": "taskList", "attrs": {"localId": "l"}, "content": [inner]}
        return inner

    assert nodes.is_block(nested(60))
    assert not nodes.is_block(nested(61))


def test_a_text_may_have_every_member_that_a_node_can_have() -> None:
    whole = {"type": "text", "text": "a", "attrs": {}, "content": [], "marks": []}
    assert nodes.is_block({"type": "paragraph", "content": [whole]})
    assert not nodes.is_block({"type": "paragraph", "content": [{**whole, "more": 1}]})


def test_a_link_without_an_address_is_no_node() -> None:
    linked = {"type": "text", "text": "a", "marks": [{"type": "link", "attrs": {}}]}
    assert not nodes.is_block({"type": "paragraph", "content": [linked]})


@pytest.mark.parametrize(("said", "ticks"), [("a", 3), ("``", 3), ("```", 4), ("` ````` ``", 6)])
def test_a_fence_is_one_longer_than_any_run_of_ticks_in_it(said: str, ticks: int) -> None:
    panel = {
        "type": "panel",
        "attrs": {"panelType": "custom"},
        "content": [{"type": "paragraph", "content": [{"type": "text", "text": said}]}],
    }
    fence = write_fence(panel)
    assert fence is not None
    first, _, last = fence.splitlines()
    assert (first, last) == ("`" * ticks + "adf", "`" * ticks)
    assert adf.from_markdown(fence)["content"] == [panel]


def test_fences_of_strangers_stay_code() -> None:
    fence = '```adf\n{"type":"rule"}\n```'
    assert adf.from_markdown(fence)["content"] == [{"type": "rule"}]
    doc: Json = adf.from_markdown(fence, fences=False)
    assert [block["type"] for block in doc["content"]] == ["codeBlock"]


def test_a_document_that_no_fence_can_hold_is_still_said_in_words() -> None:
    odd = para(text("x", href="javascript:alert(1)"), node("mention", id="a", text="@Ada"))
    assert adf.to_markdown(doc_of(odd, node("rule"))) == "x@Ada\n\n---"
    lone = para(node("emoji", shortName="\ud800"))
    assert isinstance(adf.to_markdown(doc_of(lone)), str)


def test_a_fence_counts_by_its_text_against_the_limit() -> None:
    media = node("mediaSingle", node("media", id="m" * 1_000, type="file"))
    doc = doc_of(*[media] * 40)
    assert adf.from_markdown(adf.to_markdown(doc)) == doc
    with pytest.raises(InvalidRequest):
        adf.from_markdown("word " * 7_000)


def variants(root: Mapping[str, Json]) -> dict[str, list[Mapping[str, Json]]]:
    """Return the schema's definitions of nodes, by type."""
    maker = Maker(root, lambda strategy: strategy)  # type: ignore[arg-type] # draws nothing
    found: dict[str, list[Mapping[str, Json]]] = {}
    for name, rule in root["definitions"].items():
        if name.endswith("_node") and name != "inline_node":
            merged = maker.merged(rule)
            found.setdefault(merged["properties"]["type"]["enum"][0], []).append(merged)
    return found


def test_the_tables_of_places_are_those_of_the_schema(schema: Schema) -> None:
    maker = Maker(schema.root, lambda strategy: strategy)  # type: ignore[arg-type] # as above
    for kind, rules in variants(schema.root).items():
        if kind == "doc":
            (rule,) = rules
            assert maker.children(rule) == nodes.IN_DOCUMENT
            continue
        assert set().union(*map(maker.children, rules)) == nodes.CHILDREN[kind], kind
        needed = [maker.needed_attributes(rule) for rule in rules]
        assert set.intersection(*needed) == nodes.NEEDED.get(kind, frozenset()), kind
        is_filled = all(map(maker.needs_content, rules))
        assert is_filled == (kind in nodes.NOT_EMPTY), kind
