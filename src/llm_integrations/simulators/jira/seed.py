"""What a fresh simulated site holds: people, projects, workflow, boards, and a few old issues.

Three projects: DEMO (a service-desk-like team, first board, scrum with sprints), OPS (kanban) and
HR (for what must stay untouched). The catalogue is the same for every seed; the seed chooses only
who reported and who works on the old issues. Old issues fire no webhooks: nobody listens yet.
"""

from __future__ import annotations

from typing import Final

from .clock import Dice, SiteClock
from .fields import SPRINT_FIELD
from .records import (
    Board,
    Component,
    IssueType,
    Option,
    Priority,
    Project,
    Resolution,
    Sprint,
    Status,
    StatusCategory,
    Transition,
    User,
    Version,
)
from .state import Catalogue, Site

_ACCOUNT: Final = "712020:00000000-0000-4000-8000-0000000000"
SERVICE_ACCOUNT: Final = User(
    f"{_ACCOUNT}01", "Automation service", "bot@example.com", "automation", "app", "Etc/UTC"
)
OTHER_BOT: Final = User(
    f"{_ACCOUNT}02", "Release bot", "release-bot@example.com", "release-bot", "app", "Etc/UTC"
)
PEOPLE: Final = (
    User(f"{_ACCOUNT}10", "Ada Moreau", "ada@example.com", "ada"),
    User(f"{_ACCOUNT}11", "Ben Okafor", "ben@example.com", "ben", time_zone="Africa/Lagos"),
    User(f"{_ACCOUNT}12", "Chiara Rossi", "chiara@example.com", "chiara"),
    User(f"{_ACCOUNT}13", "Dmitri Vale", "dmitri@example.com", "dmitri", "customer"),
)

_TYPES: Final = {
    "Task": IssueType("10001", "Task", "A small, distinct piece of work."),
    "Bug": IssueType("10002", "Bug", "A problem or error."),
    "Story": IssueType("10003", "Story", "Functionality expressed as a user goal."),
    "Epic": IssueType("10004", "Epic", "A big user story that needs to be broken down."),
    "Sub-task": IssueType("10005", "Sub-task", "A part of a task.", subtask=True),
    "Incident": IssueType("10006", "Incident", "An outage or a degraded service."),
    "Question": IssueType("10007", "Question", "Somebody asks how something works."),
}
_PRIORITIES: Final = [
    Priority("1", "Highest", "This problem will block progress.", "#d04437"),
    Priority("2", "High", "Serious problem that could block progress.", "#f15C75"),
    Priority("3", "Medium", "Has the potential to affect progress.", "#f79232"),
    Priority("4", "Low", "Minor problem or easily worked around.", "#707070"),
    Priority("5", "Lowest", "Trivial problem with little or no impact.", "#999999"),
]
_TO_DO: Final = Status("10010", "To Do", StatusCategory(2, "new", "To Do", "blue-gray"))
_DOING: Final = Status(
    "10011", "In Progress", StatusCategory(4, "indeterminate", "In Progress", "yellow")
)
_DONE: Final = Status("10012", "Done", StatusCategory(3, "done", "Done", "green"))

_OLD_ISSUES: Final = (
    ("DEMO", "Story", "Customers can export their invoices", 1),
    ("DEMO", "Bug", "Login page times out on slow connections", 2),
    ("DEMO", "Task", "Rotate the certificate of the billing gateway", 2),
    ("DEMO", "Story", "Search remembers the last filter", 3),
    ("DEMO", "Question", "How do we reset a customer's second factor?", None),
    ("OPS", "Incident", "Disk usage alert on the report database", None),
    ("OPS", "Task", "Upgrade the cluster's ingress", None),
    ("HR", "Task", "Prepare the onboarding week of December", None),
)


def new_site(clock: SiteClock, dice: Dice, *, is_cloud: bool) -> Site:
    """Build a site with its catalogue and its old issues."""
    site = Site(_catalogue(), clock, is_cloud=is_cloud)
    for project, kind, summary, sprint in _OLD_ISSUES:
        reporter = site.users[dice.pick([user.account_id for user in PEOPLE])]
        fields: dict[str, object] = {
            "project": {"key": project},
            "issuetype": {"name": kind},
            "summary": summary,
            "description": f"{summary}. Reported during the weekly review.",
            "priority": {"name": dice.pick(["High", "Medium", "Low"])},
        }
        issue = site.create_issue(reporter, {"fields": fields}, documents=False)
        if sprint is not None:
            issue.fields[SPRINT_FIELD] = site.sprints[sprint]
    _finish(site, "DEMO-1")
    site.writes.clear()
    return site


def _finish(site: Site, key: str) -> None:
    """Close the issue that belongs to the closed sprint."""
    issue = site.issue(key)
    arrow = next(arrow for arrow in site.transitions if arrow.to is _DONE)
    site.transition_issue(issue.creator, issue, {"transition": {"id": arrow.id}}, documents=False)


def _catalogue() -> Catalogue:
    projects = _projects()
    return Catalogue(
        users=[SERVICE_ACCOUNT, OTHER_BOT, *PEOPLE],
        service_account_id=SERVICE_ACCOUNT.account_id,
        issue_types=list(_TYPES.values()),
        priorities=_PRIORITIES,
        statuses=[_TO_DO, _DOING, _DONE],
        transitions=[
            Transition("11", "To Do", _TO_DO),
            Transition("21", "In Progress", _DOING),
            Transition("31", "Done", _DONE),
        ],
        resolutions=[
            Resolution("10000", "Done", "Work has been completed on this issue."),
            Resolution("10001", "Won't Do", "This issue won't be actioned."),
            Resolution("10002", "Duplicate", "The problem is a duplicate of an existing issue."),
        ],
        severities=[
            Option("10100", "Minor"),
            Option("10101", "Major"),
            Option("10102", "Critical"),
        ],
        projects=projects,
        boards=[
            Board(1, "DEMO board", "scrum", projects[0], "10100"),
            Board(2, "OPS board", "kanban", projects[1], "10101"),
        ],
        sprints=_sprints(),
    )


def _projects() -> list[Project]:
    ada, ben, chiara, _ = PEOPLE
    return [
        Project(
            "10000",
            "DEMO",
            "Demo service",
            "Requests and bugs of the demo product.",
            "software",
            ada,
            tuple(_TYPES.values()),
            (
                Component("10200", "Billing", "Invoices and payments"),
                Component("10201", "Login", "Sign-in and sessions"),
                Component("10202", "Search", "Finding things"),
                Component("10203", "Mobile", "The phone apps"),
            ),
            (
                Version("10300", "1.0", "First release", released=True, release_date="2026-09-01"),
                Version("10301", "1.1", "Winter release"),
            ),
        ),
        Project(
            "10001",
            "OPS",
            "Operations",
            "Running the machines.",
            "software",
            ben,
            tuple(_TYPES[name] for name in ("Task", "Bug", "Incident", "Question", "Sub-task")),
            (
                Component("10210", "Database", "Storage and backups"),
                Component("10211", "Network", "Routing and certificates"),
                Component("10212", "Monitoring", "Alerts and dashboards"),
            ),
        ),
        Project(
            "10002",
            "HR",
            "People",
            "Confidential matters; no automation.",
            "business",
            chiara,
            tuple(_TYPES[name] for name in ("Task", "Question")),
        ),
    ]


def _sprints() -> list[Sprint]:
    return [
        Sprint(
            1,
            1,
            "DEMO Sprint 1",
            "closed",
            "Invoices leave on time",
            "2026-10-26T08:00:00.000Z",
            "2026-11-06T17:00:00.000Z",
            "2026-11-06T16:30:00.000Z",
        ),
        Sprint(
            2,
            1,
            "DEMO Sprint 2",
            "active",
            "Sign-in is boring",
            "2026-11-16T08:00:00.000Z",
            "2026-11-27T17:00:00.000Z",
        ),
        Sprint(3, 1, "DEMO Sprint 3", "future"),
    ]
