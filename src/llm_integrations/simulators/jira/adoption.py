"""Makes the site know an issue that only a recorded webhook body tells about.

In flows the `issue` object of a body captured elsewhere; out flows an issue of this site with the
same id and key, in a project made for it when there is none. So a service that reads an issue back
after a recorded webhook finds it. Fires no webhook and counts as no write.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from . import wiki
from .records import Issue, IssueType, Json, Option, Priority, Project, Resolution, Status
from .state import Site

_Named = TypeVar("_Named", IssueType, Priority, Option, Resolution)


def adopt_issue(site: Site, shown: Json) -> Issue | None:
    """Return the issue a recorded body shows, made when unknown; None when it names no key."""
    key, issue_id = shown.get("key"), shown.get("id")
    if not isinstance(key, str) or not isinstance(issue_id, str) or "-" not in key:
        return None
    known = site.find_issue(issue_id) or site.find_issue(key)
    if known is not None:
        return known
    fields = shown.get("fields") or {}
    project = _project_of(site, key, fields.get("project") or {})
    issue = site.place_issue(project, issue_id, key, str(fields.get("summary") or key))
    issue.status = _status_of(site, fields.get("status") or {})
    issue.fields["issuetype"] = _named(project.issue_types, fields.get("issuetype"))
    issue.fields["labels"] = [label for label in fields.get("labels") or () if label]
    if fields.get("priority"):
        issue.fields["priority"] = _named(site.priorities, fields["priority"])
    if isinstance(fields.get("description"), str):
        issue.fields["description"] = wiki.rich_text(fields["description"])
    return issue


def _project_of(site: Site, key: str, shown: Json) -> Project:
    """Return the issue's project; a new one takes types from the site and has no components."""
    prefix = key.rpartition("-")[0].upper()
    known = site.find_project(prefix)
    if known is not None:
        return known
    project = Project(
        id=str(20_000 + len(site.projects)),
        key=prefix,
        name=str(shown.get("name") or prefix),
        description="Known from a recorded webhook.",
        type_key="software",
        lead=next(iter(site.users.values())),
        issue_types=tuple(site.issue_types),
    )
    site.projects[prefix] = project
    return project


def _named(choices: Iterable[_Named], shown: Any) -> _Named:
    """Return the choice of the shown name, or the first one."""
    options = list(choices)
    name = shown.get("name") if isinstance(shown, dict) else None
    return next((option for option in options if option.name == name), options[0])


def _status_of(site: Site, shown: Json) -> Status:
    """Return the status of the shown category, the only portable part of a status."""
    category = (shown.get("statusCategory") or {}).get("key")
    fits = (status for status in site.statuses if status.category.key == category)
    return next(fits, site.statuses[0])
