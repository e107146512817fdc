"""The address of a PostgreSQL: every form that libpq takes flows in, one form flows out.

psycopg hands an address to libpq, DBOS to SQLAlchemy, and the two split an odd one differently. So
what people write is taken apart once, here, and written anew as
`postgresql://user:password@/database?host=a,b&port=5432,5433&...`, which both read alike.

Patience with the network is part of the address, because DBOS makes connections of its own: a peer
that is gone without a word (half-open TCP) is noticed in about ten seconds. What the address says
itself wins. Must not let a password, or pieces of an address that was misread, into a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from llm_integrations.errors import ConfigError

__all__ = ["Address", "read_address"]

_SCHEMES: Final = frozenset({"postgres", "postgresql", "postgresql+psycopg"})
_HAS_SCHEME: Final = re.compile(r"[a-z+]+://")
_FORM: Final = (
    "postgresql://user:password@host:5432/database (write special characters of the password as"
    " %40 and so on)"
)
# In seconds, but for the last, which is in milliseconds and known to Linux only.
_OVER_TCP: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
_IN_THE_URL: Final = frozenset({"user", "password", "dbname"})


@dataclass(frozen=True, slots=True)
class Address:
    """A checked address: what to connect with, and how to name it to people.

    Attributes:
        dsn: for psycopg and for DBOS; may hold a password, so it is never printed.
        name: hosts, ports and database, without the password.
        hosts: how many hosts are tried, one after the other.
    """

    dsn: str = field(repr=False)
    password: str = field(repr=False)
    name: str
    hosts: int


def read_address(text: str) -> Address:
    """Take an address apart: a URL, with one host or several, or libpq's `host=... dbname=...`.

    Raises:
        ConfigError: it cannot be read, or two readers would split it differently; the message does
            not quote it.
    """
    text = text.strip()
    wrong = ConfigError(f"the address of the PostgreSQL is not of the form {_FORM}")
    if _HAS_SCHEME.match(text):
        scheme, _, rest = text.partition("://")
        if scheme not in _SCHEMES:
            raise wrong
        text = f"postgresql://{rest}"
    elif "=" not in text:
        raise wrong
    try:
        known = {name: str(value) for name, value in conninfo_to_dict(text).items()}
        is_clear = not text.startswith("postgresql://") or _is_clear(urlsplit(text), known)
    except (ValueError, psycopg.Error):
        raise wrong from None  # libpq quotes what it cannot read
    if not is_clear:
        raise wrong
    hosts = known.get("host", "").split(",")
    if any(host and not host.startswith(("/", "@")) for host in hosts):
        known = {**_OVER_TCP, **known}
        if len(hosts) > 1:
            known.setdefault("target_session_attrs", "read-write")
    return Address(_render(known), known.get("password", ""), _name(known), len(hosts))


def to_environment(dsn: str) -> dict[str, str]:
    """Return libpq's variables for an address, so that a program hears its password from no list.

    What has no variable (keepalives) is left out.
    """
    options = psycopg.pq.Conninfo.parse(dsn.encode())
    return {
        option.envvar.decode(): option.val.decode()
        for option in options
        if option.envvar and option.val
    }


def _is_clear(parts: SplitResult, known: Mapping[str, str]) -> bool:
    """Tell whether libpq and URL libraries split it alike.

    They do not where a password holds a raw `@`, `/`, `#` or `%`, and then take pieces of it for a
    host or a port.
    """
    where = parts.netloc.rpartition("@")[2]
    ports = [found[1] for one in where.split(",") if (found := re.search(r":(\d*)$", one))]
    has_ports = bool(ports) and not where.endswith("]")
    return (
        unquote(parts.username or "") == known.get("user", "")
        and unquote(parts.password or "") == known.get("password", "")
        and not parts.fragment
        and "@" not in parts.path
        and parts.netloc.count("@") <= 1
        and (not has_ports or ("," in where) or parts.port is not None)
    )


def _render(known: Mapping[str, str]) -> str:
    user, password = (quote(known.get(name, ""), safe="") for name in ("user", "password"))
    who = f"{user}:{password}@" if password else f"{user}@" if user else ""
    # Host and port first, and in the query: there a list of them has a form that both readers know.
    names = sorted(
        known.keys() - _IN_THE_URL, key=lambda name: (name not in {"host", "port"}, name)
    )
    query = urlencode([(name, known[name]) for name in names], quote_via=quote, safe="")
    path = quote(known.get("dbname") or known.get("user", ""), safe="")
    return f"postgresql://{who}/{path}" + (f"?{query}" if query else "")


def _name(known: Mapping[str, str]) -> str:
    hosts = (known.get("host") or "localhost").split(",")
    ports = known.get("port", "").split(",")
    if len(ports) != len(hosts):
        ports = ports[:1] * len(hosts)
    at = ",".join(
        f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True)
    )
    return f"{at}/{known.get('dbname') or known.get('user', '')}"
