"""A relay before a database, for what happens when that is cut off or says nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg

__all__ = ["Gate"]


class Gate:
    """A way to the database that can be shut, or hangs behind open connections."""

    def __init__(self, dsn: str) -> None:
        with psycopg.connect(dsn) as connection:
            info = connection.info
            self._host, self._port = info.host, info.port
        self.is_open = True
        self.hangs = False
        self.hangs_at = b""  # from when a client says this
        self._cables: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def __call__(self, dsn: str) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        parts = urlsplit(dsn)
        login = parts.netloc.rpartition("@")[0]
        netloc = f"{login}@127.0.0.1:{port}" if login else f"127.0.0.1:{port}"
        try:
            yield urlunsplit(parts._replace(netloc=netloc, query=""))
        finally:
            self.shut()
            server.close()
            await server.wait_closed()

    def shut(self) -> None:
        self.is_open = False
        for cable in self._cables:
            cable.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        if self._host.startswith("/"):
            path = f"{self._host}/.s.PGSQL.{self._port}"
            there, back = await asyncio.open_unix_connection(path)
        else:
            there, back = await asyncio.open_connection(self._host, self._port)
        self._cables |= {writer, back}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65_536):
                    if self.hangs_at and self.hangs_at in data:
                        self.hangs = True
                    if self.hangs:
                        continue
                    sink.write(data)
                    await sink.drain()
            except ConnectionError:
                pass
            finally:
                while self.hangs and self.is_open:  # noqa: ASYNC110 - nor does it hang up
                    await asyncio.sleep(0.05)
                sink.close()

        await asyncio.gather(pump(reader, back), pump(there, writer))
        self._cables -= {writer, back}
