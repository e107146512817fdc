"""`purge`: what is stored about an issue or a site is deleted now, not when it is old."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from llm_integrations.cli.books import open_books
from llm_integrations.cli.failures import FAILED, OK, complain
from llm_integrations.cli.printing import print_json
from llm_integrations.cli.reading import SettingsFile, load
from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from llm_integrations.service.settings import Settings
    from llm_integrations.store.retention import Purged

__all__ = ["purge"]


def purge(
    *,
    issue: str = "",
    site: str = "",
    yes: bool = False,
    json: bool = False,
    settings: SettingsFile = None,
) -> int:
    """Delete at once all that is stored about an issue, or a whole site: bodies, answers, names.

    What has not ended is left as it is, and the exit code is 1: purge again when it has. Money
    stays in the ledger, under the tag "(purged)". Nothing is deleted in Jira.

    For example:

    - `llm-integrations purge --issue ABC-1`
    - `llm-integrations purge --site acme --yes`

    Args:
        issue: The issue's key, of today or of before, in any case; or its id.
        site: Only that site's, by its name in the settings or in those of before; without an issue
            everything of it.
        yes: Do not ask.
        json: Print a JSON object.
        settings: The TOML file.
    """
    if not issue and not site:
        raise ConfigError("say what to purge: --issue KEY, --site NAME or both; see --help")
    loaded, _ = load(settings)
    issue = issue.upper()
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("a purge cannot be undone, and nobody is there to ask: add --yes")
        counted = asyncio.run(_purge(loaded, issue, site, dry_run=True))
        what = " of ".join(each for each in (issue, site) if each)
        print(f"{what}: {counted.forgotten} ended, {counted.open} open", file=sys.stderr)
        print("delete what is stored of those that have ended? [y/N] ", end="", file=sys.stderr)
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            complain("nothing was deleted")
            return FAILED
    done = asyncio.run(_purge(loaded, issue, site, dry_run=False))
    if json:
        print_json(done)
    else:
        print(f"deleted: what {done.forgotten} deliveries said")
        print(f"renamed: {done.ledger_rows} ledger rows to (purged)")
    if done.open:
        complain(f"{done.open} deliveries have not ended and were left: purge again when they have")
        return FAILED
    return OK


async def _purge(settings: Settings, issue: str, site: str, *, dry_run: bool) -> Purged:
    from llm_integrations.store.retention import purge as purge_stored

    async with open_books(settings) as books:
        return await purge_stored(books.dsn, issue=issue, site=site, dry_run=dry_run)
