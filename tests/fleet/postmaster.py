"""Restarts a PostgreSQL under running services: in order, by a crash, or by one of a backend.

Works on any server of this machine that we may send signals to, embedded or Debian's: it is asked
where its data is, stopped by its pid, and started again by its own command line.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Literal

import psycopg

__all__ = ["HOW", "CannotRestart", "How", "restart"]

How = Literal["fast", "crash", "backend"]
HOW: tuple[How, ...] = ("fast", "crash", "backend")

WAIT_S = 30.0
_PLACES = """
SELECT current_setting('data_directory'),
       (SELECT pid FROM pg_stat_activity
        WHERE backend_type = 'client backend' ORDER BY pid <> pg_backend_pid() DESC LIMIT 1)
"""
_SIGNALS = {"fast": signal.SIGINT, "crash": signal.SIGQUIT}


class CannotRestart(Exception):
    """The server is elsewhere, or somebody else's."""


async def restart(dsn: str, how: How, *, down_s: float) -> None:
    """Stop the server, leave it down for a while, start it and wait until it answers.

    When a backend is killed, the server drops all sessions and recovers by itself: all locks are
    gone, and its start is as long ago as before.
    """
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        row = await (await connection.execute(_PLACES)).fetchone()
    assert row is not None
    if how == "backend":
        _kill(row[1], signal.SIGKILL)
        await asyncio.sleep(down_s)
    else:
        await asyncio.to_thread(_stop_and_start, Path(row[0]), how, down_s)
    async with asyncio.timeout(WAIT_S):
        while not await _answers(dsn):  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.05)


def _kill(pid: int, sign: signal.Signals) -> None:
    try:
        os.kill(pid, sign)
    except OSError as error:
        raise CannotRestart(f"the server's process {pid}: {error.strerror}") from error


def _stop_and_start(data: Path, how: How, down_s: float) -> None:
    try:
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        process = Path(f"/proc/{pid}")
        words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        program = (process / "exe").readlink()
        folder = (process / "cwd").readlink()
        owner = process.stat()
        os.kill(pid, _SIGNALS[how])
    except OSError as error:
        raise CannotRestart(f"the server with its data in {data}: {error.strerror}") from error
    pause = threading.Event()
    while process.exists() and not _is_zombie(process):
        pause.wait(0.02)
    pause.wait(down_s)
    other = os.geteuid() != owner.st_uid
    server = subprocess.Popen(
        [program, *words[1:]],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        user=owner.st_uid if other else None,
        group=owner.st_gid if other else None,
        extra_groups=[] if other else None,
    )
    # Whoever started it must collect it, or its dead pid looks alive to the next start.
    threading.Thread(target=server.wait, name="postgres-reaper", daemon=True).start()


def _is_zombie(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def _answers(dsn: str) -> bool:
    try:
        connection = await psycopg.AsyncConnection.connect(dsn)
    except psycopg.OperationalError:
        return False
    await connection.close()
    return True
