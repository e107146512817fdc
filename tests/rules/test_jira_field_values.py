"""Values as people write them become what each field's schema takes."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from llm_integrations._core.codec import Raw
from llm_integrations.errors import InvalidRequest
from llm_integrations.jira import FieldInfo, Priority, Sprint, User, Version
from llm_integrations.jira.dialect import CLOUD, SERVER
from llm_integrations.jira.field_values import (
    SYSTEM_FIELDS,
    FieldShape,
    jira_time,
    needs_schema,
    shape_of,
)

KINDS = "com.atlassian.jira.plugin.system.customfieldtypes"
SPRINT = FieldShape("array", items="json", custom="com.pyxis.greenhopper.jira:gh-sprint")
MOMENT = datetime(2026, 11, 22, 10, 0, 0, 5_000, timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("shape", "given", "wanted"),
    [
        (FieldShape("option"), "Red", {"value": "Red"}),
        (FieldShape("option"), {"id": "10100"}, {"id": "10100"}),
        (FieldShape("option"), None, None),
        (
            FieldShape("array", items="option"),
            ["Red", "Blue"],
            [{"value": "Red"}, {"value": "Blue"}],
        ),
        (FieldShape("array", items="option"), (), []),
        (FieldShape("array", items="option"), None, None),
        (FieldShape("option-with-child"), "Europe", {"value": "Europe"}),
        (FieldShape("option-with-child"), ["Europe"], {"value": "Europe"}),
        (
            FieldShape("option-with-child"),
            ("Europe", "Norway"),
            {"value": "Europe", "child": {"value": "Norway"}},
        ),
        (FieldShape("group"), "staff", {"name": "staff"}),
        (FieldShape("version"), "2026", {"name": "2026"}),
        (FieldShape("version"), Version(id="7", name="1.0"), {"id": "7"}),
        (FieldShape("priority"), Priority(id="2", name="High"), {"id": "2"}),
        (FieldShape("project"), "ABC", {"key": "ABC"}),
        (FieldShape("issuelink"), "ABC-1", {"key": "ABC-1"}),
        (FieldShape("number"), 5, 5),
        (FieldShape("number"), Decimal("0.5"), 0.5),
        (FieldShape("date"), date(2026, 11, 22), "2026-11-22"),
        (FieldShape("date"), MOMENT, "2026-11-22"),
        (FieldShape("date"), "2026-11-22", "2026-11-22"),
        (FieldShape("datetime"), MOMENT, "2026-11-22T10:00:00.005+0200"),
        (FieldShape("datetime"), "2026-11-22T10:00:00.000+0000", "2026-11-22T10:00:00.000+0000"),
        (FieldShape("array", items="string", custom=f"{KINDS}:labels"), ["a", "b"], ["a", "b"]),
        (FieldShape("string", custom=f"{KINDS}:textfield"), "**plain**", "**plain**"),
        (SPRINT, 5, 5),
        (SPRINT, Sprint(id=5), 5),
        (SPRINT, [Sprint(id=5)], 5),
        (SPRINT, None, None),
        (FieldShape("array", items="sd-customerorganization"), 7, 7),
        (FieldShape("any", custom="app:own"), "as it is", "as it is"),
    ],
)
def test_a_value_becomes_what_its_schema_takes(
    shape: FieldShape, given: object, wanted: object
) -> None:
    assert shape.shaped("F", given, CLOUD) == wanted
    assert shape.shaped("F", given, SERVER) == wanted


def test_a_person_is_an_account_id_on_cloud_and_a_name_on_data_center() -> None:
    people = FieldShape("array", items="user")
    cloud, server = User(account_id="5b1"), User(name="ada", key="JIRAUSER1")
    assert people.shaped("F", [cloud, "5b2"], CLOUD) == [{"accountId": "5b1"}, {"accountId": "5b2"}]
    assert people.shaped("F", [server, "ben"], SERVER) == [{"name": "ada"}, {"name": "ben"}]


def test_markdown_is_a_document_on_cloud_and_markup_on_data_center() -> None:
    notes = FieldShape("string", custom=f"{KINDS}:textarea")
    document = notes.shaped("F", "It is **bold**", CLOUD)
    assert isinstance(document, dict)
    assert document["type"] == "doc"
    assert notes.shaped("F", document, CLOUD) == document
    assert notes.shaped("F", "It is **bold**", SERVER) == "It is *bold*"
    assert notes.shaped("F", document, SERVER) == "It is *bold*"


def test_a_verb_takes_one_of_a_list_and_set_takes_all_of_it() -> None:
    browsers = FieldShape("array", items="option")
    assert browsers.shaped("F", "Firefox", CLOUD, verb="add") == {"value": "Firefox"}
    assert browsers.shaped("F", ["Firefox"], CLOUD, verb="set") == [{"value": "Firefox"}]
    assert FieldShape("number").shaped("F", 5, CLOUD, verb="set") == 5


@pytest.mark.parametrize(
    ("shape", "given", "why"),
    [
        (FieldShape("number"), "5", "a number"),
        (FieldShape("number"), True, "a number"),
        (FieldShape("number"), math.nan, "finite"),
        (FieldShape("datetime"), date(2026, 11, 22), "a datetime with a time zone"),
        (FieldShape("datetime"), MOMENT.replace(tzinfo=None), "time zone"),
        (FieldShape("array", items="option"), "Red", "a list"),
        (FieldShape("array", items="string", custom=f"{KINDS}:labels"), ["a b"], "white space"),
        (FieldShape("option-with-child"), ("a", "b", "c"), "one choice, or a pair"),
        (FieldShape("option-with-child"), ("a", 5), "one choice, or a pair"),
        (FieldShape("string", custom=f"{KINDS}:textarea"), "x" * 40_000, "32767"),
    ],
)
def test_what_a_field_never_takes_is_refused_by_the_name_it_was_given(
    shape: FieldShape, given: object, why: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^field 'Some field': .*{why}"):
        shape.shaped("Some field", given, CLOUD)


def test_the_schema_is_read_as_the_instance_tells_it() -> None:
    told = {"type": "array", "items": "option", "custom": f"{KINDS}:multiselect", "customId": 7}
    info = FieldInfo(id="customfield_7", schema=Raw(json.dumps(told).encode()))
    assert shape_of(info) == FieldShape("array", items="option", custom=f"{KINDS}:multiselect")
    assert shape_of(FieldInfo(id="issuekey")) == FieldShape()
    assert SYSTEM_FIELDS["fixVersions"].shaped("F", ["1.0"], CLOUD) == [{"name": "1.0"}]
    assert SYSTEM_FIELDS["duedate"].shaped("F", MOMENT.astimezone(UTC), CLOUD) == "2026-11-22"


def test_only_what_means_something_beside_a_schema_needs_one() -> None:
    for says_itself in (None, True, 5, 0.5, {"value": "a"}, [{"value": "a"}], [1, 2]):
        assert not needs_schema(says_itself)
    for needs in ("a", ["a"], [], math.inf, date(2026, 1, 1), User(), {"type": "doc"}):
        assert needs_schema(needs)


def test_a_moment_is_spelled_without_a_colon_in_its_offset() -> None:
    assert jira_time(MOMENT) == "2026-11-22T10:00:00.005+0200"
