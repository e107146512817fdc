"""A change of an issue, built verb by verb. Pure.

In: fields by id or by the name people see, and values. Out: an `UpdateIssueRequest`. Must not: look
names up; `field_names` does, when `update_issue` is called.

Rules (reference: Jira page, section 2.2):
1. `set` gives a field a whole new value; `add`, `remove` and `edit` change what it has.
2. A field is either set or changed: Jira refuses it in both `fields` and `update`.
3. Which verbs a field takes is the instance's to say: `get_edit_fields` shows its `operations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from llm_integrations.errors import InvalidRequest
from llm_integrations.jira.field_values import labels
from llm_integrations.jira.models import UpdateIssueRequest
from llm_integrations.jira.requests import check_verb

__all__ = ["IssueUpdate"]


class IssueUpdate:
    """What `update_issue` is to do, in the order it is told.

    Fields go by id (`labels`, `customfield_10010`) or by name (`Story Points`); names are looked up
    when the update is sent, and values shaped by the field's schema: Markdown in rich text fields,
    names of options, components, versions, priorities, dates, people.

    Example:
        await jira.update_issue(
            "ABC-1",
            IssueUpdate().set("Story Points", 5).add("labels", "seen").comment("**Done**"),
        )
    """

    __slots__ = ("_fields", "_notify_users", "_properties", "_verbs")

    def __init__(self) -> None:
        self._fields: dict[str, object] = {}
        self._verbs: dict[str, list[dict[str, object]]] = {}
        self._properties: dict[str, object] = {}
        self._notify_users = True

    @property
    def fields(self) -> frozenset[str]:
        """The fields it names, as they were given."""
        return frozenset(self._fields) | frozenset(self._verbs)

    def set(self, field: str, value: object) -> Self:
        """Give a field a whole new value; None clears it.

        Raises:
            InvalidRequest: the field is set or changed already.
        """
        if field in self.fields:
            raise InvalidRequest(f"{field} is in this update already")
        self._fields[field] = value
        return self

    def add(self, field: str, *values: object) -> Self:
        """Add values to a list.

        Raises:
            InvalidRequest: the field is set in this update, or a label holds white space.
        """
        return self._each("add", field, values)

    def remove(self, field: str, *values: object) -> Self:
        """Remove values from a list.

        Raises:
            InvalidRequest: the field is set in this update, or a label holds white space.
        """
        return self._each("remove", field, values)

    def edit(self, field: str, value: Mapping[str, object]) -> Self:
        """Change members of a value, such as `{"remainingEstimate": "2h"}` of `timetracking`.

        Raises:
            InvalidRequest: the field is set in this update.
        """
        return self._each("edit", field, (value,))

    def verb(self, field: str, verb: str, value: object) -> Self:
        """Do to a field what has no method here: `copy`, or `set` beside other verbs.

        Raises:
            InvalidRequest: Jira has no such verb, or the field is set in this update.
        """
        return self._each(check_verb(verb), field, (value,))

    def comment(self, markdown: str, *, visibility: Mapping[str, str] | None = None) -> Self:
        """Add a comment in the same write, such as `visibility={"type": "role", "value": "x"}`.

        Raises:
            InvalidRequest: it has no text.
        """
        if not markdown.strip():
            raise InvalidRequest("a comment needs text")
        told: dict[str, object] = {"body": markdown}
        if visibility is not None:
            told["visibility"] = dict(visibility)
        return self._each("add", "comment", (told,))

    def property(self, name: str, value: object) -> Self:
        """Set an entity property in the same write."""
        self._properties[name] = value
        return self

    def silently(self) -> Self:
        """Send no mail to watchers; needs an administrator of the project."""
        self._notify_users = False
        return self

    def request(self) -> UpdateIssueRequest:
        """Return the request; its fields still go by the names they were given.

        Raises:
            InvalidRequest: nothing to do.
        """
        if not (self._fields or self._verbs or self._properties):
            raise InvalidRequest("an update without changes")
        return UpdateIssueRequest(
            fields=dict(self._fields),
            update={name: list(verbs) for name, verbs in self._verbs.items()},
            properties=dict(self._properties),
            notify_users=self._notify_users,
        )

    def _each(self, verb: str, field: str, values: tuple[object, ...]) -> Self:
        if field in self._fields:
            raise InvalidRequest(f"{field} is in this update already")
        if not values:
            raise InvalidRequest(f"nothing to {verb} in {field}")
        if field == "labels":
            labels([str(value) for value in values])
        self._verbs.setdefault(field, []).extend({verb: value} for value in values)
        return self
