"""Opens the service's database for commands that ask or switch, without the service itself.

In: settings, or the address of another ledger. Out: deliveries and money. Nothing of the engine is
loaded, which takes longer than most of these commands do, and stored budgets stay as they were set.
An alert that is due is left to a process that people listen to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llm_integrations.cli.failures import complain
from llm_integrations.cli.reading import load
from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from llm_integrations.governance import Governor
    from llm_integrations.service.settings import Settings
    from llm_integrations.store.deliveries import DeliveryStore

__all__ = ["Books", "open_books", "open_ledger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The service's database, open.

    Attributes:
        deliveries: list, show, replay, pause and resume.
        governor: ledger and reports.
        dsn: its address; may hold a password.
    """

    deliveries: DeliveryStore
    governor: Governor
    dsn: str = field(repr=False)


@asynccontextmanager
async def open_books(settings: Settings) -> AsyncIterator[Books]:
    """Open the database of these settings; what takes time is told on stderr.

    Raises:
        ConfigError: a setting is wrong, or the extra `[embedded]` is missing.
        StoreError: the database is of a newer version, or away.
    """
    from llm_integrations.governance import Governor
    from llm_integrations.service.database import open_database
    from llm_integrations.store.deliveries import DeliveryStore

    async with AsyncExitStack() as stack:
        database = await open_database(
            settings.database_url.reveal() or None, folder=_folder(settings), progress=complain
        )
        stack.push_async_callback(database.stop)
        governor = await stack.enter_async_context(Governor.open(database.dsn, tells_alerts=False))
        deliveries = DeliveryStore(database.dsn)
        stack.push_async_callback(deliveries.close)
        await deliveries.open()
        yield Books(deliveries=deliveries, governor=governor, dsn=database.dsn)


@asynccontextmanager
async def open_ledger(url: str | None, settings: Path | None) -> AsyncIterator[Governor]:
    """Open the ledger at `url`, or the service's without one; make no database to report on.

    Raises:
        ConfigError: there is no ledger, or it is too old; else as `open_books`.
        StoreError: the database is of a newer version, or away.
    """
    if url is None:
        loaded = load(settings)[0]
        _refuse_to_make(loaded)
        async with open_books(loaded) as books:
            yield books.governor
        return
    from llm_integrations.governance import Governor
    from llm_integrations.store.existing import check_books

    await check_books(url, setting="--ledger")
    async with Governor.open(url, tells_alerts=False) as governor:
        yield governor


def _refuse_to_make(settings: Settings) -> None:
    """Raise `ConfigError` where opening the books would make an embedded database."""
    from llm_integrations.service.database import missing_folder

    if not settings.database_url.reveal() and (folder := missing_folder(_folder(settings))):
        raise ConfigError(
            f"there is no ledger yet: no database is in {folder}, and DATABASE_URL is not set;"
            " `llm-integrations serve` makes one, --ledger sqlite:///FILE names another"
        )


def _folder(settings: Settings) -> Path | None:
    return Path(settings.data_dir) if settings.data_dir else None
