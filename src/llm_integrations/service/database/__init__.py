"""The service's PostgreSQL: one that is given by its address, or one of our own.

A setting (`DATABASE_URL` or nothing) flows in, a `Database` with an address that is known to
answer flows out. Nothing here knows a table: the rooms above create and read those.
"""

from llm_integrations.service.database.embedded import missing_folder
from llm_integrations.service.database.opening import (
    Database,
    keep_up,
    open_database,
    wait_until_up,
)
from llm_integrations.service.database.place import home_folder

__all__ = [
    "Database",
    "home_folder",
    "keep_up",
    "missing_folder",
    "open_database",
    "wait_until_up",
]
