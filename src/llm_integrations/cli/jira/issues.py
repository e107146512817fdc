"""`jira get|search|create|comment|transition`: one call each."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import Parameter

from llm_integrations.cli.failures import OK, complain
from llm_integrations.cli.printing import local_time, print_json, print_table, printable
from llm_integrations.cli.reading import Text, read_text
from llm_integrations.errors import IntegrationError

if TYPE_CHECKING:
    from llm_integrations.jira import Issue, JiraClient

__all__ = ["comment", "create", "get", "search", "transition"]

_SHOWN: Final = ("summary", "status", "issuetype", "priority", "assignee", "updated")


def get(issue_key: str, /, *, json: bool = False) -> int:
    """Show an issue with its description as Markdown.

    For example: `llm-integrations jira get ABC-1 --json | jq .fields.labels`

    Args:
        issue_key: The key or the numeric id.
        json: Print the issue as Jira sent it.
    """

    async def run(jira: JiraClient) -> int:
        issue = await jira.get_issue(issue_key)
        if json:
            print_json(msgspec.Raw(issue.raw))
        else:
            _print_issue(issue)
        return OK

    return with_client(run)


def search(
    jql: str, /, *, limit: int = 50, fields: tuple[str, ...] = (), json: bool = False
) -> int:
    """Find issues by JQL; Cloud wants a restriction in it.

    For example: `llm-integrations jira search "project = ABC AND statusCategory != Done"`

    Args:
        jql: The query.
        limit: At most so many.
        fields: Id of a field to fetch, with `--json`; may be given several times. All navigable
            ones by default.
        json: Print a list of the issues as Jira sent them.
    """

    async def run(jira: JiraClient) -> int:
        wanted = (list(fields) or None) if json else ["key", *_SHOWN]
        found = [issue async for issue in jira.iter_issues(jql, fields=wanted, limit=limit)]
        if json:
            print_json([msgspec.Raw(issue.raw) for issue in found])
            return OK
        print_table(
            ("key", "type", "status", "priority", "assignee", "updated", "summary"),
            [_row(issue) for issue in found],
            whole="key",
        )
        if len(found) == limit:
            await _tell_count(jira, jql, limit)
        return OK

    return with_client(run)


def create(
    project: str,
    summary: str,
    /,
    *,
    type: str = "Task",  # noqa: A002 - the flag is called what Jira calls it
    description: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    priority: str | None = None,
    label: tuple[str, ...] = (),
    json: bool = False,
) -> int:
    """Create an issue and print its key.

    For example: `llm-integrations jira create ABC "Login fails" --type Bug --label urgent`

    Args:
        project: The project's key.
        summary: One line.
        type: The issue type's name.
        description: Markdown; "-" reads it from stdin.
        priority: The priority's name.
        label: May be given several times.
        json: Print id, key and address instead of the key.
    """
    from llm_integrations.jira import CreateIssueRequest

    text = sys.stdin.read() if description == "-" else description

    async def run(jira: JiraClient) -> int:
        request = CreateIssueRequest(
            project=project,
            issue_type=type,
            summary=summary,
            description=text,
            priority=priority,
            labels=label,
        )
        issue = await jira.create_issue(request)
        if json:
            print_json(msgspec.Raw(issue.raw))
        else:
            print(issue.key)
        return OK

    return with_client(run)


def comment(
    issue_key: str,
    text: Text = None,
    /,
    *,
    json: bool = False,
) -> int:
    """Comment on an issue, in Markdown.

    For example: `git log -1 | llm-integrations jira comment ABC-1`

    Args:
        issue_key: The key or the numeric id.
        text: What to say, which may begin with a hyphen; without it stdin is read.
        json: Print the comment's id and author as JSON.
    """
    said = read_text(text, command="jira comment")

    async def run(jira: JiraClient) -> int:
        made = await jira.add_comment(issue_key, said)
        if json:
            author = made.author.id if made.author is not None else None
            print_json({"id": made.id, "issue": issue_key, "author": author})
        else:
            print(made.id)
        return OK

    return with_client(run)


def transition(issue_key: str, to: str, /, *, json: bool = False) -> int:
    """Move an issue to a status.

    For example: `llm-integrations jira transition ABC-1 "In Progress"`

    Args:
        issue_key: The key or the numeric id.
        to: The name of a status, of a transition, or of a status category (new, indeterminate,
            done), whichever one way out of the present status fits.
        json: Print the way taken as JSON.
    """

    async def run(jira: JiraClient) -> int:
        way = await jira.move_issue(issue_key, to)
        status = way.to.name if way.to is not None else ""
        if json:
            print_json({"issue": issue_key, "transition": way.name, "status": status})
        else:
            print(f"{issue_key}: {printable(status or way.name)}")
        return OK

    return with_client(run)


def with_client(run: _Run) -> int:
    """Run a command on a client from the environment."""
    from llm_integrations.jira import JiraClient, JiraConfig

    async def opened() -> int:
        async with JiraClient(JiraConfig.from_env()) as jira:
            return await run(jira)

    return asyncio.run(opened())


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    _Run = Callable[[JiraClient], Awaitable[int]]


async def _tell_count(jira: JiraClient, jql: str, shown: int) -> None:
    """Say how many issues there are; the answer is printed already, so nothing fails here."""
    try:
        about = await jira.count_issues(jql)
    except IntegrationError as error:
        complain(f"{shown} issues; how many more there are is not known: {error}")
    else:
        print(f"{shown} of about {about}; --limit shows more", file=sys.stderr)


def _row(issue: Issue) -> tuple[str, ...]:
    fields = issue.fields
    return (
        issue.key,
        fields.issue_type.name if fields.issue_type else "",
        fields.status.name if fields.status else "",
        fields.priority.name if fields.priority else "",
        (fields.assignee.display_name or "") if fields.assignee else "",
        local_time(fields.updated),
        fields.summary,
    )


def _print_issue(issue: Issue) -> None:
    """Print the fields everybody looks for, then the description."""
    key, kind, status, priority, assignee, updated, summary = _row(issue)
    reporter = issue.fields.reporter
    lines = {
        "type": kind,
        "status": status,
        "priority": priority,
        "assignee": assignee or "nobody",
        "reporter": (reporter.display_name or "") if reporter else "",
        "labels": ", ".join(issue.fields.labels),
        "components": ", ".join(each.name for each in issue.fields.components),
        "updated": updated,
    }
    print(printable(f"{key}  {summary}"))
    for name, value in lines.items():
        if value:
            print(f"  {name:<10} {printable(value)}")
    description = issue.fields.description_markdown.strip()
    if description:
        print(f"\n{printable(description)}")
