"""The simulated site's JQL: what it finds, in which order, and what it refuses to read."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.simulators.jira.clock import Dice, SiteClock
from llm_integrations.simulators.jira.fields import FIELDS
from llm_integrations.simulators.jira.jql import Call, Clause, Order, Value, parse
from llm_integrations.simulators.jira.query import Search
from llm_integrations.simulators.jira.refusal import Refused
from llm_integrations.simulators.jira.seed import PEOPLE, new_site
from llm_integrations.simulators.jira.state import Site

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "id", "key", "add", "set", "value", "accountId"]), inner
        )
    ),
    max_leaves=6,
)


@pytest.fixture
def site() -> Site:
    site = new_site(SiteClock(), Dice(0, "test"), is_cloud=True)
    fields = {
        "project": {"key": "DEMO"},
        "issuetype": {"name": "Bug"},
        "summary": 'Cannot sign in with "remember me"',
        "description": "The session cookie expires at once.",
        "labels": ["web", "urgent"],
        "components": [{"name": "Login"}],
        "priority": {"name": "Highest"},
        "assignee": {"accountId": PEOPLE[1].account_id},
        "duedate": "2026-12-01",
        "customfield_10016": 5,
        "parent": {"key": "DEMO-2"},
    }
    issue = site.create_issue(PEOPLE[0], {"fields": fields}, documents=False)
    site.add_comment(PEOPLE[1], issue, {"body": "Seen in Firefox only"}, documents=False)
    return site


def found(site: Site, jql: str) -> set[str]:
    search = Search(site, PEOPLE[0], site.clock.now_s())
    return {issue.key for issue in search.run(jql, bounded=False)}


@pytest.mark.parametrize(
    "jql",
    [
        "key = DEMO-6",
        "issue in (demo-6)",
        "project = DEMO AND labels = web",
        "project = 10000 and labels in (web, nothing)",
        "component = Login",
        "priority = Highest",
        "priority > High",
        "assignee = 'ben@example.com'",
        f'assignee = "{PEOPLE[1].account_id}"',
        "reporter = currentUser() AND type = Bug AND labels is not EMPTY",
        'summary ~ "sign remember"',
        'summary ~ "\\"sign in\\""',
        "description ~ 'cook*'",
        "comment ~ firefox",
        "text ~ firefox AND text ~ cookie",
        'labels = urgent AND NOT status = Done AND status != "In Progress"',
        'statusCategory = new and labels = "web"',
        "due <= 2026-12-01",
        "duedate = '2026-12-01'",
        'cf[10016] >= 5 and "Story point estimate" < 6',
        "parent = DEMO-2",
        "created >= -5m AND created < 5d AND labels = web",
        "(labels = web OR labels = nothing) AND (project = DEMO)",
        "key > DEMO-5",
        "component is not null",
        "component not in (Billing, Search)",
        "project = DEMO AND text !~ firefox OR labels = web AND key != DEMO-1 AND key = DEMO-6",
    ],
)
def test_an_issue_is_found_by(site: Site, jql: str) -> None:
    assert "DEMO-6" in found(site, jql)


@pytest.mark.parametrize(
    "jql",
    [
        "labels = nothing",
        "component is EMPTY",
        "priority < Highest",
        'summary ~ "remember sign in now"',
        'summary ~ "\\"in sign\\""',
        "NOT labels = web",
        "assignee != 'ben@example.com'",
        "project = OPS",
        "sprint in openSprints()",
        "created < -1d",
        "created >= endOfDay()",
        "text !~ firefox",
    ],
)
def test_an_issue_is_not_found_by(site: Site, jql: str) -> None:
    assert "DEMO-6" not in found(site, jql)


@pytest.mark.parametrize(
    ("jql", "keys"),
    [
        ("sprint in openSprints()", {"DEMO-2", "DEMO-3"}),
        ("sprint in closedSprints() OR sprint = 'DEMO Sprint 3'", {"DEMO-1", "DEMO-4"}),
        ("statusCategory = Done", {"DEMO-1"}),
        ("project != DEMO AND project != OPS", {"HR-1"}),
        ("resolution is not EMPTY", {"DEMO-1"}),
    ],
)
def test_a_query_finds_exactly(site: Site, jql: str, keys: set[str]) -> None:
    assert found(site, jql) == keys


def test_order_is_by_the_named_fields_and_newest_first_without(site: Site) -> None:
    search = Search(site, PEOPLE[0], site.clock.now_s())

    def keys(jql: str) -> list[str]:
        return [issue.key for issue in search.run(jql, bounded=True)]

    assert keys("project in (DEMO, OPS)")[:2] == ["DEMO-6", "OPS-2"]
    assert keys("project = DEMO order by key") == [f"DEMO-{n}" for n in range(1, 7)]
    assert keys("project = DEMO ORDER BY priority DESC, key DESC")[0] == "DEMO-6"
    by_project = keys("project in (OPS, HR) ORDER BY project ASC, created DESC")
    assert by_project == ["OPS-2", "OPS-1", "HR-1"]
    assert keys("project = DEMO ORDER BY created")[0] == "DEMO-6"


@pytest.mark.parametrize(
    ("jql", "words"),
    [
        ("project =", "but got the end of the query"),
        ("project = DEMO AND", "Expecting a field name"),
        ("project DEMO", "operator"),
        ("project in ()", "either a value, list or function"),
        ('summary ~ "open', "has not been completed"),
        ('summary ~ "trailing\\"', "has not been completed"),
        ('summary ~ "bad \\q"', "illegal JQL escape"),
        ('summary ~ "bell \x07"', "Illegal character U+0007"),
        ("summary ~ a@b", "reserved JQL character"),
        ("project = select", "reserved JQL word"),
        ("colour = red", "Field 'colour' does not exist"),
        ("project = NOPE", "'NOPE' does not exist for the field 'project'"),
        ("priority = Urgent", "'Urgent' does not exist"),
        ("key = DEMO-999", "does not exist"),
        ("created > soon", "Date value 'soon' is invalid"),
        ("assignee = nobodyKnows()", "Unable to find JQL function"),
        ("summary = exact", "not supported"),
        ("labels > a", "not supported"),
        ("labels ~ a", "not supported"),
        ("project = DEMO order by a,b,c,d,e,f,g,h", "at most 7 fields"),
        ("project = DEMO order by colour", "Field 'colour' does not exist"),
        ("(project = DEMO", "')'"),
        ("project = DEMO project = OPS", "either 'OR' or 'AND'"),
        ("labels is web", "EMPTY"),
    ],
)
def test_text_that_is_no_jql_is_refused_with_400(site: Site, jql: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        found(site, jql)
    assert refused.value.status == 400
    assert words in refused.value.messages[0]


def test_quoted_values_take_the_escapes_of_atlassians_parser() -> None:
    query = parse(r'''summary ~ "a\"b\\c\u0041\t" and x = 'it\'s' order by y desc, "Z z"''')
    assert query.order == (Order("y", descending=True), Order("Z z", descending=None))
    assert str(query.where).count("Value") == 2
    assert 'a"b\\cA\t' in repr(query.where).encode().decode("unicode_escape")
    assert parse("a = now()").where == Clause("a", "=", (Call("now", ()),))
    assert parse("a = the").where == Clause("a", "=", (Value("the"),))


@given(
    st.dictionaries(st.sampled_from([*FIELDS, "nope"]), ANY_JSON, max_size=3),
    st.dictionaries(st.sampled_from([*FIELDS, "comment"]), ANY_JSON, max_size=2),
    ANY_JSON,
)
def test_any_write_is_taken_or_refused(
    fields: dict[str, object], update: dict[str, object], properties: object
) -> None:
    site = new_site(SiteClock(), Dice(0, "test"), is_cloud=True)
    basics = {"project": {"key": "DEMO"}, "summary": "s", "issuetype": {"name": "Task"}}
    for documents in (True, False):
        payload = {"fields": basics | fields, "update": update, "properties": properties}
        with contextlib.suppress(Refused):
            issue = site.create_issue(PEOPLE[0], payload, documents=documents)
            site.edit_issue(PEOPLE[0], issue, {"update": update}, documents=documents)


@given(st.text(max_size=40))
def test_any_text_is_read_as_jql_or_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        parse(text)


def test_an_injected_value_stays_a_value(site: Site) -> None:
    value = 'x" OR project = HR OR summary ~ "'
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert found(site, f"labels = {quoted}") == set()
