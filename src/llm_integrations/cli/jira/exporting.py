"""`jira export`: every issue of a project as JSON lines, resumable.

The unfinished file is its own bookmark: issues come in order of their keys, so the last whole line
says where to go on. Killed anywhere and run again, the file ends as an unbroken run would have
written it, as long as nobody changed the issues meanwhile.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from llm_integrations.cli.failures import OK
from llm_integrations.cli.jira.files import blaming
from llm_integrations.cli.jira.issues import with_client
from llm_integrations.cli.printing import print_json
from llm_integrations.errors import (
    AuthFailed,
    ConfigError,
    ConnectFailed,
    IntegrationError,
    NotFound,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from llm_integrations.jira import Issue, JiraClient

__all__ = ["export"]

_PAGE: Final = 100
_NEWS_S: Final = 5.0
_MOST_GONE: Final = 20  # issues that went away between two runs


def export(
    project: str,
    /,
    *,
    to: Path,
    fields: tuple[str, ...] = (),
    restart: bool = False,
    json: bool = False,
) -> int:
    """Write every issue of a project to a file, one JSON object a line.

    Run it again after an interruption and it goes on where it was. `FILE.part` becomes `FILE` when
    all is there.

    For example: `llm-integrations jira export ABC --to abc.jsonl`

    Args:
        project: The project's key.
        to: The file to write.
        fields: Id of a field; may be given several times. All by default.
        restart: Begin anew, whatever is there.
        json: Print the result as JSON.
    """
    with blaming(to, "write"):
        if to.is_dir():
            raise ConfigError(f"{to} is a folder; name a file in it")
        if to.exists() and not restart:
            raise ConfigError(f"{to} is complete; --restart writes it anew")

    part = to.with_name(to.name + ".part")
    with _opened(part, anew=restart) as file:

        async def run(jira: JiraClient) -> int:
            with blaming(part, "write"), closing(file):
                written, fetched = await _write(jira, project, file, list(fields) or ["*all"])
            part.replace(to)
            if json:
                print_json({"file": str(to), "issues": written, "fetched_now": fetched})
            else:
                print(f"{to}: {written} issues, {fetched} of them fetched now")
            return OK

        return with_client(run)


def _opened(part: Path, *, anew: bool) -> BinaryIO:
    try:
        return part.open("wb+" if anew or not part.exists() else "rb+")
    except OSError as error:
        raise ConfigError(f"cannot write {part}: {error.strerror}") from None


async def _write(
    jira: JiraClient, project: str, file: BinaryIO, fields: list[str]
) -> tuple[int, int]:
    """Append what is missing; return how many issues there are and how many came now."""
    before, last_key = await _found_again(jira, project, file)
    progress = _Progress(before, await _count(jira, _jql(project, "")))
    fetched = 0
    try:
        async for issue in _issues(jira, _jql(project, last_key), fields):
            file.write(issue.raw.replace(b"\n", b" ") + b"\n")
            fetched += 1
            if fetched % _PAGE == 0:
                file.flush()
                progress.show(fetched)
    finally:
        progress.end()
    file.flush()
    os.fsync(file.fileno())
    return before + fetched, fetched


async def _count(jira: JiraClient, jql: str) -> int | None:
    """Return how many issues there are about, None if that is not to be had: it is for show."""
    try:
        return await jira.count_issues(jql)
    except (AuthFailed, ConnectFailed):
        raise  # nor would the issues come
    except IntegrationError:
        return None


def _issues(jira: JiraClient, jql: str, fields: list[str]) -> AsyncIterator[Issue]:
    return jira.iter_issues(jql, fields=["key", *fields], page_size=_PAGE)


def _jql(project: str, last_key: str) -> str:
    from llm_integrations.jira.jql import project_key, quote

    after = f" AND key > {quote(last_key)}" if last_key else ""
    return f"project = {quote(project_key(project))}{after} ORDER BY key ASC"


class _Mark(NamedTuple):
    """Where a line ends: how many lines and bytes there are up to it, and the key of its issue."""

    lines: int
    size_bytes: int
    key: str


async def _found_again(jira: JiraClient, project: str, file: BinaryIO) -> tuple[int, str]:
    """Cut off what cannot be gone on from; return how many lines stay, and the last key.

    That is a line that was not finished, and issues that were deleted or moved since: JQL knows no
    "after" for them.

    Raises:
        ConfigError: the file does not say where to go on.
    """
    marks = _marks(file)
    if marks and not project.isdigit():
        theirs = marks[-1].key.rpartition("-")[0]
        if theirs.casefold() != project.casefold():
            raise ConfigError(f"{file.name} holds issues of {theirs}; --restart writes it anew")
    for mark in reversed(marks):
        if await _is_there(jira, mark.key):
            break
    else:
        if marks and marks[0].lines > 1:
            raise ConfigError(
                f"the last {len(marks)} issues in {file.name} are gone; --restart writes it anew"
            )
        mark = _Mark(0, 0, "")
    file.truncate(mark.size_bytes)
    file.seek(mark.size_bytes)
    return mark.lines, mark.key


async def _is_there(jira: JiraClient, key: str) -> bool:
    try:
        return (await jira.get_issue(key, fields=["key"])).key == key
    except NotFound:
        return False


def _marks(file: BinaryIO) -> Sequence[_Mark]:
    """Return the ends of the last whole lines.

    Raises:
        ConfigError: one of them is no issue.
    """
    from llm_integrations.jira import parse_issue

    ends: deque[tuple[int, int, bytes]] = deque(maxlen=_MOST_GONE)
    lines = size_bytes = 0
    for line in file:
        if not line.endswith(b"\n"):
            break
        lines, size_bytes = lines + 1, size_bytes + len(line)
        ends.append((lines, size_bytes, line))
    marks = []
    for number, end, line in ends:
        key = ""
        with suppress(ValueError):
            key = parse_issue(line).key
        if not key:
            raise ConfigError(f"{file.name} holds no export of issues; --restart writes it anew")
        marks.append(_Mark(number, end, key))
    return marks


class _Progress:
    """How far the export is: a bar on a terminal, else a line now and then."""

    def __init__(self, before: int, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._before = before
        self._total = None if total is None else max(total, before)
        self._told_at = time.monotonic()
        self._bar = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("issues", total=self._total, completed=before)
        self._bar.start()

    def show(self, found: int) -> None:
        """Say how many issues came in this run."""
        self._bar.update(self._task, completed=self._before + found)
        now = time.monotonic()
        if not sys.stderr.isatty() and now - self._told_at > _NEWS_S:
            self._told_at = now
            of_all = "" if self._total is None else f" of about {self._total}"
            print(f"{self._before + found}{of_all} issues", file=sys.stderr)

    def end(self) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()
