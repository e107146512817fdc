"""The policy's rules, and the own-write rule, as sentences."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.jira import adf, parse_event
from llm_integrations.service.actions import (
    Action,
    AddComment,
    AddLabels,
    EditComment,
    NoAction,
    SetFields,
    Transition,
    decode_actions,
    describe_action,
    encode_actions,
)
from llm_integrations.service.marks import mark_in
from llm_integrations.service.policy import Facts, PolicyRules, Verdict, is_own_write, judge

APPLY = PolicyRules(mode="apply", projects=frozenset({"ABC"}), link_hosts=frozenset({"ok.test"}))
FACTS = Facts(project_key="ABC")
MARK = "*Written by Claude through llm-integrations · ref li-0123456789ab*"

texts = st.text(max_size=200)
actions = st.one_of(
    st.builds(AddComment, text=texts, slot=texts),
    st.builds(EditComment, comment_id=texts, text=texts),
    st.builds(Transition, to=texts),
    st.builds(SetFields, fields=st.dictionaries(texts, texts, max_size=3)),
    st.builds(AddLabels, labels=st.lists(texts, max_size=3).map(tuple)),
    st.builds(NoAction, reason=texts),
)


@given(st.lists(actions, max_size=5))
def test_actions_survive_a_round_trip_through_the_store(decided: list[Action]) -> None:
    assert decode_actions(encode_actions(decided)) == decided


def test_an_action_of_an_unknown_version_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_actions(b'[{"action":"DropDatabase"}]')


@given(actions)
def test_a_dry_run_never_allows_a_write(action: Action) -> None:
    rules = msgspec.structs.replace(APPLY, mode="dry-run")
    verdict = judge(action, FACTS, rules)
    assert verdict.decision != "allow" or isinstance(action, NoAction)


@given(actions, st.sampled_from(["", "OTHER", "abc"]))
def test_a_project_that_is_not_mapped_is_never_written_to(action: Action, project: str) -> None:
    verdict = judge(action, Facts(project_key=project), APPLY)
    assert verdict.decision == "refuse" or isinstance(action, NoAction)


def test_a_plain_comment_in_a_mapped_project_is_allowed() -> None:
    assert judge(AddComment(text="Looks like a *network* fault."), FACTS, APPLY).decision == "allow"


def test_an_action_type_that_is_not_listed_is_refused() -> None:
    verdict = judge(Transition(to="Done"), FACTS, APPLY)
    assert (verdict.decision, verdict.reason) == ("refuse", "Transition is not allowed")


def test_a_field_that_is_not_listed_is_refused_by_name() -> None:
    action = SetFields(fields={"priority": {"name": "High"}, "assignee": {"accountId": "x"}})
    assert judge(action, FACTS, APPLY).reason == "field assignee is not allowed"


@pytest.mark.parametrize(
    "text",
    [
        "see https://evil.test/x?q=secret",
        "see HTTPS://EVIL.test",
        "![x](https://evil.test/p.png)",
        "[x](//evil.test)",
        "[x](javascript:alert(1))",
        "[click|mailto:a@evil.test]",
        "www.evil.test",
        "https://ok.test@evil.test/",
        "https://ok.test.evil.test/",
        "ftp://evil.test",
        "<https://evil.test>",
        r"https://evil.test\@ok.test",
        "https://evil.test*@ok.test/",
        "https://evil.test`x`@ok.test",
        r"https:\/\/evil.test/x",
        r"[x](https:\/\/evil.test)",
        r"[x](http:\\evil.test)",
        "<https://[2001:db8::1]/?q=secret>",
        "<mailto:a@evil.test>",
        "write to mailto:a@evil.test",
        "https:///evil.test",
        "https://ok.test\u3002evil.test",
        "https://ok.test%2eevil.test",
        "https://\u043ek.test",
        "see [the page][1]\n\n[1]: https://evil.test",
    ],
)
def test_a_link_to_a_host_that_is_not_listed_is_refused(text: str) -> None:
    assert judge(AddComment(text=text), FACTS, APPLY).decision == "refuse"
    assert judge(AddLabels(labels=(text,)), FACTS, APPLY).decision == "refuse"
    nested = SetFields(fields={"priority": {"name": [text]}})
    assert judge(nested, FACTS, APPLY).decision == "refuse"


@pytest.mark.parametrize(
    "text",
    [
        "https://ok.test/a",
        "https://OK.test:443/a?b=c@d#e",
        "[a](https://ok.test)",
        "**https://ok.test/a**",
        "a/b",
        "9:30 - 10:00",
    ],
)
def test_a_link_to_a_listed_host_and_plain_text_are_allowed(text: str) -> None:
    assert judge(EditComment(comment_id="1", text=text), FACTS, APPLY).decision == "allow"


def test_a_mention_is_refused() -> None:
    assert "mention" in judge(AddComment(text="hi [~accountid:5]"), FACTS, APPLY).reason


def test_a_link_that_no_host_can_be_read_from_is_refused_even_if_a_setting_is_empty() -> None:
    rules = msgspec.structs.replace(APPLY, link_hosts=frozenset({"", "ok.test"}))
    assert judge(AddComment(text="https:///x"), FACTS, rules).decision == "refuse"


def test_an_allowed_host_may_be_written_in_any_case() -> None:
    rules = msgspec.structs.replace(APPLY, link_hosts=frozenset({"Docs.Ok.Test"}))
    assert judge(AddComment(text="https://docs.OK.test/x"), FACTS, rules).decision == "allow"


def test_a_mention_is_refused_in_disguise_too() -> None:
    assert "mention" in judge(AddComment(text=r"hi [\~admin]"), FACTS, APPLY).reason
    node = {"type": "doc", "content": [{"type": "mention", "attrs": {"id": "5"}}]}
    action = SetFields(fields={"priority": node})
    assert "mention" in judge(action, FACTS, APPLY).reason


@given(st.text(alphabet=st.sampled_from("htps:/\\@*_~`<>()[]|.,?#evilok ts\n"), max_size=60))
def test_what_is_allowed_is_sent_without_links_to_other_hosts(text: str) -> None:
    if judge(AddComment(text=text), FACTS, APPLY).decision == "allow":
        hrefs = re.findall(r'"href": "([^"]*)"', json.dumps(adf.from_markdown(text)))
        assert all(re.match(r"https?://ok\.test(?![^/?#:])", href) for href in hrefs)


@pytest.mark.parametrize("text", ["", " \n\t", "\N{NO-BREAK SPACE}"])
def test_a_comment_that_says_nothing_is_refused(text: str) -> None:
    assert judge(AddComment(text=text), FACTS, APPLY) == Verdict("refuse", "the text is empty")
    edit = EditComment(comment_id="1", text=text)
    assert judge(edit, FACTS, APPLY) == Verdict("refuse", "the text is empty")


def test_a_text_longer_than_a_comment_may_be_is_refused() -> None:
    assert "longer" in judge(AddComment(text="x" * 32_001), FACTS, APPLY).reason


def test_too_many_writes_on_an_issue_close_the_storm_guard() -> None:
    below = Facts(project_key="ABC", writes_last_hour=APPLY.storm_limit - 1)
    at = Facts(project_key="ABC", writes_last_hour=APPLY.storm_limit)
    assert judge(AddComment(text="x"), below, APPLY).decision == "allow"
    assert judge(AddComment(text="x"), at, APPLY).reason.startswith("storm:")


def _comment_event(text: str, author: str) -> dict[str, object]:
    return {
        "timestamp": 1,
        "webhookEvent": "comment_created",
        "comment": {"id": "1", "body": text, "author": {"accountId": author}},
        "issue": {"id": "10", "key": "ABC-1", "fields": {"project": {"key": "ABC", "id": "1"}}},
    }


@pytest.mark.parametrize(
    ("text", "author", "own"),
    [
        (f"Summary\n\n{MARK}", "bot", True),
        (f"Summary\n\n_{MARK.strip('*')}_\r\n", "bot", True),
        ("a person types under the same account", "bot", False),
        (f"{{quote}}\nSummary\n\n{MARK}\n{{quote}}\n\nI disagree.", "bot", False),
        (f"quoting: {MARK}", "person", False),
    ],
)
def test_a_comment_is_ours_by_mark_and_author_together(text: str, author: str, own: bool) -> None:
    event = parse_event(msgspec.json.encode(_comment_event(text, author)))
    assert is_own_write(event, own_account_id="bot", own_fields=frozenset()) is own


@pytest.mark.parametrize(
    ("fields", "own_fields", "own"),
    [
        (["priority"], {"priority", "labels"}, True),
        (["priority", "assignee"], {"priority"}, False),
        ([], {"priority"}, False),
    ],
)
def test_a_change_is_ours_when_it_touches_only_what_we_set(
    fields: list[str], own_fields: set[str], own: bool
) -> None:
    body = {
        "timestamp": 1,
        "webhookEvent": "jira:issue_updated",
        "user": {"accountId": "bot"},
        "issue": {"id": "10", "key": "ABC-1", "fields": {"project": {"key": "ABC", "id": "1"}}},
        "changelog": {"id": "7", "items": [{"field": f, "fieldtype": "jira"} for f in fields]},
    }
    event = parse_event(msgspec.json.encode(body))
    assert is_own_write(event, own_account_id="bot", own_fields=frozenset(own_fields)) is own


def test_the_mark_is_found_in_wiki_and_markdown_forms() -> None:
    assert mark_in("_Written · ref li-0123456789ab_") == "li-0123456789ab"
    assert mark_in(MARK) == "li-0123456789ab"
    assert mark_in("ref li-0123456789abc") is None


@given(actions)
def test_a_description_is_short_enough_for_a_table(action: Action) -> None:
    assert describe_action(action)


def test_a_link_whose_host_cannot_be_read_is_refused() -> None:
    verdict = judge(AddComment(text="see [it](http://[::1/)"), FACTS, APPLY)
    assert verdict.reason == "link to an unnamed place is not allowed"


def test_an_action_without_text_is_judged_by_the_lists_alone() -> None:
    rules = msgspec.structs.replace(
        APPLY, actions=APPLY.actions | {"Transition"}, fields=frozenset({"customfield_1"})
    )
    assert judge(Transition(to="Done"), FACTS, rules).decision == "allow"
    assert judge(SetFields(fields={"customfield_1": 3}), FACTS, rules).decision == "allow"
