"""`jira attach|download`: files of issues, from and to this machine's disk."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llm_integrations.cli.failures import OK
from llm_integrations.cli.jira.issues import with_client
from llm_integrations.cli.printing import print_json, printable
from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from llm_integrations.jira import Attachment, JiraClient

__all__ = ["attach", "blaming", "download"]

# Names come from whoever attached the file: none may lead out of a folder, or hide in it.
_SAFE_NAME: Final = re.compile(r'(?![. ])[^/\\:<>"|?*\x00-\x1f\x7f]{1,200}')
_MOST_NAME_BYTES: Final = 255  # a file system counts bytes, of which a letter has up to four


def attach(issue_key: str, /, *file: Path, json: bool = False) -> int:
    """Attach files to an issue and print their ids.

    For example: `llm-integrations jira attach ABC-1 trace.log screenshot.png`

    Args:
        issue_key: The key or the numeric id.
        file: One or more.
        json: Print a list with id, name and size of each instead.
    """
    if not file:
        raise ConfigError("name at least one file; see: llm-integrations jira attach --help")
    missing = []
    for path in file:
        with blaming(path, "read"):
            missing += [] if path.is_file() else [str(path)]
    if missing:
        raise ConfigError(f"no file: {', '.join(missing)}; nothing was attached")

    async def run(jira: JiraClient) -> int:
        attached: list[Attachment] = []
        try:
            for path in file:
                with blaming(path, "read"):
                    made = await jira.add_attachment(issue_key, path)
                attached += made
                if not json:
                    print(*(each.id for each in made), sep="\n")
        finally:  # what was attached is told, also if the next file fails
            if json:
                print_json([_shown(each) for each in attached])
        return OK

    return with_client(run)


def download(
    attachment_id: str, /, *, to: Path = Path(), overwrite: bool = False, json: bool = False
) -> int:
    """Fetch an attachment and print where it is.

    For example: `llm-integrations jira download 10007 --to trace.log`

    Args:
        attachment_id: As `attach` prints it, and `get --json` shows it.
        to: A file, or a folder, in which it gets its own name; this folder by default.
        overwrite: Replace a file that is there.
        json: Print id, name, size and path instead.
    """

    async def run(jira: JiraClient) -> int:
        found = await jira.get_attachment(attachment_id)
        with blaming(to, "write"):
            path = await asyncio.to_thread(_target, to, found, overwrite=overwrite)
        with blaming(path, "write"):
            await jira.download_attachment(found, path, max_bytes=found.size_bytes or _MOST_BYTES)
        if json:
            print_json(_shown(found) | {"path": str(path)})
        else:
            print(printable(str(path)))
        return OK

    return with_client(run)


_MOST_BYTES: Final = 10 * 1024**3


@contextmanager
def blaming(path: Path, what: str) -> Iterator[None]:
    """Name the file of an error of the disk, which does not always name it.

    Raises:
        ConfigError: the file cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot {what} {printable(str(path))}: {error.strerror}") from None


def _target(to: Path, attachment: Attachment, *, overwrite: bool) -> Path:
    """Return the path to write."""
    if to.is_dir():
        name = attachment.filename
        is_safe = _SAFE_NAME.fullmatch(name) and len(name.encode()) <= _MOST_NAME_BYTES
        to = to / (name if is_safe else f"attachment-{attachment.id}")
    if to.exists() and not overwrite:
        raise ConfigError(f"{printable(str(to))} is there already; --overwrite replaces it")
    return to


def _shown(attachment: Attachment) -> dict[str, object]:
    return {
        "id": attachment.id,
        "filename": attachment.filename,
        "size_bytes": attachment.size_bytes,
    }
