"""Least privilege: the SQL that makes an owner, who migrates, and an application role, who works.

Names flow in, a script for `psql` flows out; it holds no password. Default privileges give the
application role what each later migration creates, so it is granted once and never again.
"""

from __future__ import annotations

import re
from typing import Final

from llm_integrations.errors import ConfigError

__all__ = ["render_roles"]

_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SCHEMAS: Final = ("llm_integrations", "dbos")
_BEGIN: Final = """\
-- Run as an administrator: psql -v ON_ERROR_STOP=1 -f roles.sql postgresql://.../postgres
CREATE ROLE {owner} LOGIN;
CREATE ROLE {app} LOGIN;
CREATE DATABASE {database} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8';
REVOKE ALL ON DATABASE {database} FROM PUBLIC;
GRANT CONNECT ON DATABASE {database} TO {app};
\\connect {database}
REVOKE ALL ON SCHEMA public FROM PUBLIC;
"""
_SCHEMA: Final = """\
CREATE SCHEMA {schema} AUTHORIZATION {owner};
GRANT USAGE ON SCHEMA {schema} TO {app};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema}
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema}
    GRANT USAGE ON SEQUENCES TO {app};
"""


def render_roles(*, owner: str, app: str, database: str) -> str:
    """Return the script.

    Raises:
        ConfigError: a name would have to be quoted.
    """
    for name in (owner, app, database):
        if not _PLAIN.fullmatch(name):
            raise ConfigError(f"{name!r} is no plain name: use a-z, 0-9 and _")
    names = {"owner": owner, "app": app, "database": database}
    return _BEGIN.format(**names) + "".join(
        _SCHEMA.format(schema=schema, **names) for schema in _SCHEMAS
    )
