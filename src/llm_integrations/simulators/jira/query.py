"""What a parsed JQL query means on this site: which issues, in which order.

In flow a tree from `jql`, the site's issues and who asks; out flow issues. Names that the site
does not know are refused with 400, as Jira does; a missing value matches no comparison except
EMPTY. Text search is by whole words (`word*` for a prefix, an inner quoted phrase for a phrase).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, assert_never

from .fields import FIELDS, Field
from .jql import All, Call, Clause, Empty, Node, Not, Operand, Order, Query, Some, Value, parse
from .records import Issue, RichText, Sprint, User
from .refusal import Refused
from .state import Site

UNBOUNDED: Final = (
    "Unbounded JQL queries are not allowed here. Please add a search restriction to your query."
)

_Reader = Callable[[Issue], list[Any]]
_UNITS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "": 60}
_RELATIVE: Final = re.compile(r"([+-]?)(\d+)([mhdw]?)")
_ABSOLUTE: Final = ("%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M", "%Y-%m-%d", "%Y/%m/%d")
_DATES: Final = frozenset({"created", "updated", "resolutiondate", "resolved", "due", "duedate"})
_TEXTS: Final = frozenset({"summary", "description", "environment", "comment", "text"})
_ALIASES: Final = {
    "type": "issuetype",
    "issue": "key",
    "issuekey": "key",
    "id": "key",
    "component": "components",
    "fixversion": "fixVersions",
    "affectedversion": "versions",
    "due": "duedate",
    "resolved": "resolutiondate",
    **{
        clause.lower(): field.id
        for field in FIELDS.values()
        if field.custom is not None
        for clause in field.clauses
    },
}
_SPECIAL: Final = frozenset(
    "key project status statuscategory text comment created updated resolutiondate creator".split()
)
_FUNCTIONS: Final = frozenset(
    "currentuser now startofday endofday startofweek "
    "opensprints closedsprints futuresprints".split()
)


@dataclass(slots=True, frozen=True)
class Search:
    """One search: the site, who asks, and what time it is."""

    site: Site
    user: User
    now_s: float

    def run(self, text: str, *, bounded: bool) -> list[Issue]:
        """Return the issues a query finds, in its order (newest first when it names none)."""
        query = parse(text)
        if bounded and query.where is None:
            raise Refused(400, UNBOUNDED)
        matches = self._compile(query)
        found = [issue for issue in self.site.issues.values() if matches(issue)]
        return self._sorted(found, query.order)

    def matches(self, text: str, issue: Issue) -> bool:
        """Say whether one issue is found by a query."""
        return self._compile(parse(text))(issue)

    def _compile(self, query: Query) -> Callable[[Issue], bool]:
        if query.where is None:
            return lambda _issue: True
        return self._node(query.where)

    def _node(self, node: Node) -> Callable[[Issue], bool]:
        match node:
            case All(parts):
                tests = [self._node(part) for part in parts]
                return lambda issue: all(test(issue) for test in tests)
            case Some(parts):
                tests = [self._node(part) for part in parts]
                return lambda issue: any(test(issue) for test in tests)
            case Not(part):
                test = self._node(part)
                return lambda issue: not test(issue)
            case Clause():
                return self._clause(node)
            case _:
                assert_never(node)

    def _clause(self, clause: Clause) -> Callable[[Issue], bool]:
        name = _canonical(clause.field)
        read = self._reader(name)
        operator = clause.operator
        empty = any(isinstance(operand, Empty) for operand in clause.operands)
        if empty and operator in {"is", "="}:
            return lambda issue: not read(issue)
        if empty and operator in {"is not", "!="}:
            return lambda issue: bool(read(issue))
        wanted = [text for operand in clause.operands for text in self._texts(operand, name)]
        if operator in {"~", "!~"}:
            return _contains(clause, name, read, wanted)
        if operator in {">", "<", ">=", "<="}:
            return self._compared(clause, name, read, wanted)
        self._check_known(clause.field, name, wanted)
        return self._equal(operator, name, read, wanted)

    def _equal(
        self, operator: str, name: str, read: _Reader, wanted: list[str]
    ) -> Callable[[Issue], bool]:
        if name in _DATES:
            moments = {self._moment(text) for text in wanted}
            return lambda issue: bool(moments & set(read(issue))) == (operator in {"=", "in"})
        if name in {"summary", "description", "text", "comment"}:
            message = f"The operator '{operator}' is not supported by the '{name}' field."
            raise Refused(400, message)
        lowered = {text.lower() for text in wanted}
        if operator in {"=", "in"}:
            return lambda issue: any(spelling in lowered for spelling in _spellings(read(issue)))
        return lambda issue: (
            bool(values := read(issue))
            and not any(spelling in lowered for spelling in _spellings(values))
        )

    def _compared(
        self, clause: Clause, name: str, read: _Reader, wanted: list[str]
    ) -> Callable[[Issue], bool]:
        """Compare dates, numbers, priorities and keys; everything else has no order."""
        if name in _DATES:
            limit: Any = self._moment(wanted[0])
            value: Callable[[Issue], Any] = lambda issue: next(iter(read(issue)), None)  # noqa: E731
        elif name == "priority":
            ranks = {p.name.lower(): -at for at, p in enumerate(self.site.priorities)}
            self._check_known(clause.field, name, wanted)
            limit = ranks[wanted[0].lower()]
            value = lambda issue: ranks.get((issue.priority or "").lower())  # noqa: E731
        elif name == "key":
            anchor = self.site.find_issue(wanted[0])
            if anchor is None:
                raise _unknown_value(clause.field, wanted[0])
            limit = anchor.number
            value = lambda issue: issue.number if issue.project is anchor.project else None  # noqa: E731
        elif name == "customfield_10016":
            limit = float(wanted[0])
            value = lambda issue: issue.fields[name]  # noqa: E731
        else:
            field = clause.field
            message = f"The operator '{clause.operator}' is not supported by the '{field}' field."
            raise Refused(400, message)
        return lambda issue: _ordered(value(issue), clause.operator, limit)

    def _texts(self, operand: Operand, name: str) -> list[str]:
        """Return the literals an operand stands for."""
        if isinstance(operand, Value):
            return [operand.text]
        if isinstance(operand, Empty):
            return []
        return self._call(operand, name)

    def _call(self, call: Call, name: str) -> list[str]:
        if call.name not in _FUNCTIONS:
            message = f"Unable to find JQL function '{call.name}({', '.join(call.arguments)})'."
            raise Refused(400, message)
        if call.name == "currentuser":
            return [self.user.account_id]
        if call.name.endswith("sprints"):
            state = {"opensprints": "active", "closedsprints": "closed"}.get(call.name, "future")
            return [str(s.id) for s in self.site.sprints.values() if s.state == state] or ["-1"]
        if name not in _DATES:
            raise Refused(
                400, f"The function '{call.name}' is not supported by the '{name}' field."
            )
        day = datetime.fromtimestamp(self.now_s, UTC).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        moments = {
            "now": datetime.fromtimestamp(self.now_s, UTC),
            "startofday": day,
            "endofday": day + timedelta(days=1),
            "startofweek": day - timedelta(days=day.weekday()),
        }
        return [f"{moments[call.name]:%Y-%m-%d %H:%M}"]

    def _moment(self, text: str) -> int:
        """Return a date literal as ms: `-5m`, `2026-11-22`, `2026-11-22 10:00`, or plain ms."""
        relative = _RELATIVE.fullmatch(text)
        if relative and (relative[1] or relative[3]):
            seconds = int(relative[2]) * _UNITS[relative[3]]
            sign = -1 if relative[1] == "-" else 1
            # Minute resolution, as Jira's index has it.
            return int((self.now_s + sign * seconds) // 60 * 60_000)
        for form in _ABSOLUTE:
            try:
                return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp() * 1000)
            except ValueError:
                continue
        if text.isdigit():
            return int(text)
        raise Refused(
            400,
            f"Date value '{text}' is invalid. Valid formats include: 'yyyy/MM/dd HH:mm', "
            "'yyyy-MM-dd HH:mm', 'yyyy/MM/dd', 'yyyy-MM-dd', or a period format, e.g. '-5d'.",
        )

    def _reader(self, name: str) -> _Reader:
        """Return how a field's values are read off an issue; refuse unknown fields."""
        special: dict[str, _Reader] = {
            "key": lambda issue: [issue],
            "project": lambda issue: [issue.project],
            "status": lambda issue: [issue.status],
            "statuscategory": lambda issue: [issue.status.category],
            "creator": lambda issue: [issue.creator],
            "created": lambda issue: [issue.created_ms],
            "updated": lambda issue: [issue.updated_ms],
            "resolutiondate": lambda issue: [issue.resolved_ms] if issue.resolved_ms else [],
            "comment": lambda issue: [comment.text for comment in issue.comments],
            "text": _all_text,
        }
        if name in special:
            return special[name]
        if name not in FIELDS:
            raise Refused(
                400,
                f"Field '{name}' does not exist or you do not have permission to view it.",
            )
        if name == "duedate":
            return lambda issue: [self._moment(d)] if (d := issue.fields["duedate"]) else []
        return lambda issue: _listed(issue.fields[name])

    def _check_known(self, shown: str, name: str, wanted: Iterable[str]) -> None:
        """Refuse names of closed sets that the site does not have, as Jira does."""
        sets: dict[str, Iterable[Any]] = {
            "project": self.site.projects.values(),
            "status": self.site.statuses,
            "statuscategory": [status.category for status in self.site.statuses],
            "priority": self.site.priorities,
            "issuetype": self.site.issue_types,
            "components": [c for p in self.site.projects.values() for c in p.components],
        }
        if name == "key":
            for text in wanted:
                if self.site.find_issue(text) is None:
                    message = f"An issue with key '{text}' does not exist for field '{shown}'."
                    raise Refused(400, message)
        elif name in sets:
            known = set(_spellings(sets[name]))
            for text in wanted:
                if text.lower() not in known:
                    raise _unknown_value(shown, text)

    def _sorted(self, issues: list[Issue], order: tuple[Order, ...]) -> list[Issue]:
        """Sort by the named fields; without any, the newest issue comes first."""
        issues.sort(key=lambda issue: issue.created_ms, reverse=True)
        for entry in reversed(order):
            name = _canonical(entry.field)
            key = self._sort_key(name, self._reader(name))
            falling = entry.descending
            if falling is None:
                falling = name in _DATES or name == "priority"
            issues.sort(key=key, reverse=falling)
        return issues

    def _sort_key(self, name: str, read: _Reader) -> Callable[[Issue], Any]:
        if name == "key":
            return lambda issue: (issue.project.key, issue.number)
        if name == "priority":
            ranks = {p.name: -at for at, p in enumerate(self.site.priorities)}
            return lambda issue: ranks.get(issue.priority or "", -99)
        if name in _DATES:
            return lambda issue: next(iter(read(issue)), 0)
        return lambda issue: next(iter(_spellings(read(issue))), "")


def _canonical(field: str) -> str:
    lowered = field.lower()
    if lowered in _ALIASES or lowered in _SPECIAL:
        return _ALIASES.get(lowered, lowered)
    return next((name for name in FIELDS if name.lower() == lowered), field)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _all_text(issue: Issue) -> list[str]:
    rich = (issue.fields[name] for name in FIELDS if isinstance(issue.fields.get(name), RichText))
    return [issue.summary, *(text.text for text in rich), *(c.text for c in issue.comments)]


def _spellings(values: Iterable[Any]) -> list[str]:
    """Return every way to name the values: ids, keys, names, in lower case."""
    spelled: list[str] = []
    for value in values:
        if isinstance(value, User):
            spelled += [value.account_id, value.name, value.email, value.display_name]
        elif isinstance(value, Issue):
            spelled += [value.key, value.id]
        elif isinstance(value, (str, int, float)):
            spelled.append(str(value))
        elif isinstance(value, Sprint):
            spelled += [str(value.id), value.name]
        else:
            spelled += [value.name, str(value.id), str(getattr(value, "key", value.name))]
    return [text.lower() for text in spelled]


def _contains(
    clause: Clause, name: str, read: _Reader, wanted: list[str]
) -> Callable[[Issue], bool]:
    """Search text by words or phrase."""
    field = FIELDS.get(name)
    if name not in _TEXTS and not (isinstance(field, Field) and field.is_rich):
        message = (
            f"The operator '{clause.operator}' is not supported by the '{clause.field}' field."
        )
        raise Refused(400, message)
    tests = [_text_test(text) for text in wanted]

    def found(issue: Issue) -> bool:
        texts = [value.text if isinstance(value, RichText) else str(value) for value in read(issue)]
        return all(any(test(text) for text in texts) for test in tests)

    return found if clause.operator == "~" else lambda issue: not found(issue)


def _text_test(text: str) -> Callable[[str], bool]:
    """Return a test for one `~` value: an inner quoted phrase, or words that must all be there."""
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] == '"':
        pieces = [re.escape(word) for word in re.findall(r"\w+", stripped.lower())]
        phrase = re.compile(r"\b" + r"\W+".join(pieces) + r"\b")
        return lambda value: bool(phrase.search(value.lower()))
    plain = re.sub(r"\\(.)", r"\1", stripped.lower())
    patterns = [
        re.compile(rf"\b{re.escape(word)}" + ("" if star else r"\b"))
        for word, star in re.findall(r"(\w+)(\*?)", plain)
    ]
    return lambda value: all(pattern.search(value.lower()) for pattern in patterns)


def _ordered(value: Any, operator: str, limit: Any) -> bool:
    if value is None:
        return False
    match operator:
        case ">":
            return bool(value > limit)
        case "<":
            return bool(value < limit)
        case ">=":
            return bool(value >= limit)
        case _:
            return bool(value <= limit)


def _unknown_value(field: str, text: str) -> Refused:
    return Refused(400, f"The value '{text}' does not exist for the field '{field}'.")
