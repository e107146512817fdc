"""One embedded PostgreSQL cluster: made when missing, started when down, shared, stopped last.

A folder flows in, a running server flows out. All of it blocks: call it from a worker thread.

Layout below the cluster's folder (as root, root owns it and the server's user owns two parts):

    data/            PostgreSQL's own files, 0700, the server's user
    socket/          the only way in, 0700, the server's user; no TCP listener exists
    postgresql.conf  pg_hba.conf  pg_ident.conf   written by us at every start
    log              what the server says, without statements and rows
    lock             held alone while the cluster is made, started, stopped or deleted
    in-use           held together by every process of ours that uses it, for as long as it does

Rules:

1. Who finds `in-use` free on leaving was the last one, and stops the server. The kernel frees
   the locks of a killed process, so nothing needs to be cleaned up after `kill -9`: a server
   left running is found by the next start and used again, one that was killed recovers.
2. `data` appears by a rename, complete or not at all.
3. Everything is settled under `lock`, so processes may start and stop in any order.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import psycopg
from psycopg.pq import PGconn, Ping

from llm_integrations._core.clock import SystemClock
from llm_integrations.errors import ConfigError, IntegrationError, StoreUnavailable
from llm_integrations.service.database.binaries import MAJOR, NEWEST_KNOWN, Programs, find_programs
from llm_integrations.service.database.locks import FileLock, held_alone, pause
from llm_integrations.service.database.place import (
    check_place,
    find_account,
    home_folder,
    make_folder,
    make_private_folder,
    require_posix,
)

ROLE = "llm_integrations"
DATABASE = "llm_integrations"

_PORT = 5432  # only the socket's name: nothing listens on TCP
_SOCKET_PATH_BYTES = 90  # sun_path is 108 bytes on Linux, 104 on macOS
_LOCK_S = 60
_INITDB_S = 120
_START_S = 60
_STOP_S = 30
_POLL_S = 0.01
_OLD_SERVER_S = 10
_LOG_BYTES = 10 * 1024 * 1024
_LOG_READ_BYTES = 64 * 1024
_REASON = re.compile(
    r"(?:FATAL|PANIC|error): +(?! |the database system is )"  # that is said to who asks too early
)
_FULL_BYTES = 16 * 1024 * 1024  # a segment of the write-ahead log: without it nothing starts

_CLOCK = SystemClock()

_SETTINGS = """\
# Written by llm-integrations at every start: changes here are lost.
data_directory = {data}
hba_file = {hba}
ident_file = {ident}
listen_addresses = ''
port = {port}
unix_socket_directories = {socket}
unix_socket_permissions = 0700
cluster_name = 'llm-integrations'
max_connections = 200
shared_buffers = 128MB
# A promise of ours hangs on these three: what was acknowledged survives a power cut.
fsync = on
full_page_writes = on
synchronous_commit = on
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
# No statement and no row (DETAIL) in the log: both may hold bodies.
log_min_error_statement = panic
log_error_verbosity = terse
log_checkpoints = off
"""


def open_cluster(
    folder: Path | None, *, temporary: bool, progress: Callable[[str], None]
) -> Cluster:
    """Return the cluster in `folder` (or at its usual place), running and in use by us."""
    require_posix()
    account = find_account(progress)
    home = home_folder().resolve()
    with _one_line_errors(folder or home):
        with held_alone(home / "lock", _LOCK_S, partial(make_folder, home, account)):
            programs = find_programs(home, account, progress)
        if temporary:
            _clear_away_abandoned(home, programs)
        folder = _choose_folder(folder, home, temporary=temporary)
        check_place(folder, account)
        cluster = Cluster(folder, programs, home, temporary=temporary)
        cluster.enter(progress)
        return cluster


def missing_folder(folder: Path | None) -> Path | None:
    """Return where an embedded database would be made, or None where there is one already.

    Nothing is made and nothing is started to find out.
    """
    require_posix()
    place = folder.resolve() if folder else _default_folder(home_folder().resolve())
    try:
        (place / "data").lstat()
    except (FileNotFoundError, NotADirectoryError):
        return place
    except OSError:  # whoever opens it says what is wrong
        return None
    return None


@contextmanager
def _one_line_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system says into an error of ours."""
    try:
        yield
    except OSError as error:
        message = f"the embedded PostgreSQL cannot use {error.filename or folder}: {error.strerror}"
        raise StoreUnavailable(message) from error
    except subprocess.TimeoutExpired as error:
        message = f"the embedded PostgreSQL hung: {Path(error.cmd[0]).name} in {folder}"
        raise StoreUnavailable(message) from error


def _choose_folder(wish: Path | None, home: Path, *, temporary: bool) -> Path:
    """Return the cluster's folder; what will be deleted has a place of its own."""
    throw_aways = home / "temporary"
    if wish is None:
        return throw_aways / secrets.token_hex(6) if temporary else _default_folder(home)
    folder = wish.resolve()
    if temporary != (throw_aways in folder.parents):
        raise ConfigError(f"temporary databases, and only they, live below {throw_aways}")
    if folder.exists() and any(folder.iterdir()) and not (folder / "lock").exists():
        raise ConfigError(f"not an embedded database, and not empty: {folder}")
    return folder


def _default_folder(home: Path) -> Path:
    return home / "default"


def _clear_away_abandoned(home: Path, programs: Programs) -> None:
    """Delete the temporary clusters whose processes were all killed."""
    folders = home / "temporary"
    for folder in sorted(folders.iterdir()) if folders.exists() else ():
        # Busy, because somebody makes it or stops it just now; or a stray file.
        with suppress(IntegrationError), _one_line_errors(folder):
            Cluster(folder, programs, home, temporary=True).clear_away()


class Cluster:
    """One data folder and its server, used by this process until `leave`."""

    def __init__(self, folder: Path, programs: Programs, home: Path, *, temporary: bool) -> None:
        self.folder = folder
        self._programs = programs
        self._temporary = temporary
        self._data = folder / "data"
        self._log = folder / "log"
        self._socket_folder = _choose_socket_folder(folder, home)
        self._log_start = 0
        self._in_use: FileLock | None = None

    @property
    def version(self) -> str:
        """The version of the server's programs, such as "18.4"."""
        return self._programs.version

    @property
    def programs(self) -> Path:
        """The folder of PostgreSQL's programs."""
        return self._programs.folder

    def dsn(self, database: str = DATABASE) -> str:
        """Return the address of a database, good for libpq and SQLAlchemy alike."""
        host = quote(str(self._socket_folder), safe="")
        return f"postgresql://{ROLE}@/{database}?host={host}&port={_PORT}"

    def enter(self, progress: Callable[[str], None]) -> None:
        """Use the cluster: make it and start it as needed, or join the server that runs."""
        with _one_line_errors(self.folder), self._settled():
            self._check_version()
            is_new = self._in_use is None  # else a server that has ended is started again
            if self._in_use is None:
                self._in_use = FileLock(self.folder / "in-use")
                self._in_use.try_together()
            try:
                if not self.is_up():
                    if not self._data.exists():
                        progress(f"creating a PostgreSQL {MAJOR} database in {self.folder}")
                        self._create()
                    progress(f"starting PostgreSQL {self.version}{self._age()}")
                    self._start()
                self._ensure_database()
            except BaseException:
                if is_new:
                    self._let_go()
                raise

    def leave(self) -> None:
        """Stop using the cluster; the last one stops it, and deletes it when it is temporary."""
        if self._in_use is None:
            return
        with _one_line_errors(self.folder), self._settled():
            self._let_go()

    def clear_away(self) -> None:
        """Stop and delete a temporary cluster whose users all died without leaving it."""
        with self._settled(wait_s=0):
            self._stop_if_unused()

    def is_up(self) -> bool:
        """Say whether a server answers; waits for one that is recovering or shutting down."""
        deadline = _CLOCK.monotonic() + _START_S
        while (answer := self._ping()) == Ping.REJECT:
            if _CLOCK.monotonic() > deadline:
                raise self._failed(f"PostgreSQL was not ready after {_START_S} s")
            pause(_POLL_S)
        return answer == Ping.OK

    def is_answering(self) -> bool:
        """Say whether there is a server, be it one that is recovering."""
        return self._ping() != Ping.NO_RESPONSE

    def _ping(self) -> int:
        return PGconn.ping(self.dsn("postgres").encode())

    def _settled(self, wait_s: float = _LOCK_S) -> AbstractContextManager[None]:
        """Hold `lock`, in a folder that is there: the last user may just have deleted it."""
        make = partial(make_folder, self.folder, self._programs.account)
        return held_alone(self.folder / "lock", wait_s, make)

    def _age(self) -> str:
        if self._temporary or self.version == NEWEST_KNOWN:
            return ""
        return f" (the wheel is behind {NEWEST_KNOWN}; DATABASE_URL takes a server of your own)"

    def _check_version(self) -> None:
        try:
            found = (self._data / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return
        if found != str(MAJOR):
            raise ConfigError(
                f"{self._data} was written by PostgreSQL {found} and this release brings {MAJOR}:"
                f" dump it with pg_dump {found}, move the folder away, start again and restore"
                " (docs/backup.md)"
            )

    def _create(self) -> None:
        account = self._programs.account
        half_made = self.folder / "data.half-made"
        shutil.rmtree(half_made, ignore_errors=True)
        make_private_folder(half_made, account)
        options = ["--username", ROLE, "--auth", "peer", "--encoding", "UTF8"]
        options += ["--locale-provider", "builtin", "--locale", "C.UTF-8"]
        options += ["--no-sync"] if self._temporary else []
        with self._open_log() as log:
            done = self._programs.run(
                "initdb", *options, "--pgdata", str(half_made), timeout_s=_INITDB_S, log=log
            )
        if done.returncode != 0:
            shutil.rmtree(half_made, ignore_errors=True)
            raise self._failed("PostgreSQL could not create its data folder")
        half_made.rename(self._data)

    def _start(self) -> None:
        self._write_settings()
        make_folder(self._socket_folder.parent, self._programs.account)
        make_private_folder(self._socket_folder, self._programs.account)
        give_up = _CLOCK.monotonic() + _OLD_SERVER_S
        self._forget_reused_pid()
        while not self._try_start():
            # A killed postmaster and its children end by themselves, a moment after it.
            said = self._last_words()
            is_old = "shared memory block" in said or "lock file" in said
            if _CLOCK.monotonic() > give_up or not is_old:
                raise self._failed("PostgreSQL did not start")
            pause(0.1)
            self._forget_reused_pid()

    def _try_start(self) -> bool:
        settings = f"--config-file={self.folder / 'postgresql.conf'}"
        with self._open_log() as log:
            server = self._programs.start("postgres", settings, "-D", str(self._data), log=log)
        # Whoever started it must collect it, or its dead pid looks alive to the next start.
        threading.Thread(target=server.wait, name="postgres-reaper", daemon=True).start()
        deadline = _CLOCK.monotonic() + _START_S
        while server.returncode is None:
            if self._is_ready(server.pid):
                return True
            if _CLOCK.monotonic() > deadline:
                raise self._failed(f"PostgreSQL was not ready after {_START_S} s")
            pause(_POLL_S)
        return False

    def _is_ready(self, pid: int) -> bool:
        lines = self._pid_file_lines()
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _ensure_database(self) -> None:
        question = "SELECT 1 FROM pg_database WHERE datname = %s"
        try:
            with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
                if connection.execute(question, [DATABASE]).fetchone() is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error as error:
            raise self._failed("PostgreSQL did not let us in") from error

    def _let_go(self) -> None:
        if self._in_use is not None:
            self._in_use.close()
            self._in_use = None
            self._stop_if_unused()

    def _stop_if_unused(self) -> None:
        last = FileLock(self.folder / "in-use")
        try:
            if not last.try_alone():
                return
            if self._ping() != Ping.NO_RESPONSE:
                self._stop()
            if self._temporary:
                self._delete()
        finally:
            last.close()

    def _stop(self) -> None:
        # What is deleted next needs no clean shutdown.
        mode = "immediate" if self._temporary else "fast"
        options = ["--pgdata", str(self._data), "--mode", mode, "--timeout", str(_STOP_S)]
        with self._open_log() as log:
            done = self._programs.run("pg_ctl", "stop", *options, timeout_s=2 * _STOP_S, log=log)
        if done.returncode != 0:
            raise self._failed("PostgreSQL did not stop")

    def _delete(self) -> None:
        for folder in (self._data, self._socket_folder, self.folder):
            shutil.rmtree(folder, ignore_errors=True)

    def _write_settings(self) -> None:
        files = {name: self.folder / name for name in ("pg_hba.conf", "pg_ident.conf")}
        settings = _SETTINGS.format(
            data=_quote(str(self._data)),
            hba=_quote(str(files["pg_hba.conf"])),
            ident=_quote(str(files["pg_ident.conf"])),
            port=_PORT,
            socket=_quote(f'"{self._socket_folder}"'),
        )
        account = self._programs.account
        owners = {account.name, "root"} if account.is_other else {account.name}
        idents = "".join(f'owners "{name}" {ROLE}\n' for name in sorted(owners))
        for path, text in (
            (self.folder / "postgresql.conf", settings),
            (files["pg_hba.conf"], "local all all peer map=owners\n"),
            (files["pg_ident.conf"], idents),
        ):
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)

    def _forget_reused_pid(self) -> None:
        """Remove lock files whose pid is that of something else now, or of nothing that runs.

        PostgreSQL refuses to start while the pid in them is alive, whatever that process is: of a
        container that restarted, or one that was killed and that nobody collects.
        """
        lines = self._pid_file_lines()
        if not lines:
            return
        try:
            program = Path(f"/proc/{int(lines[0])}/exe").readlink().name
        except FileNotFoundError:
            if not Path("/proc/self/exe").exists():
                return  # no /proc here: PostgreSQL's own check decides
            program = ""
        except (OSError, ValueError):
            return
        if program.partition(" ")[0] != "postgres":
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            (self._socket_folder / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)

    def _pid_file_lines(self) -> list[str]:
        try:
            text = (self._data / "postmaster.pid").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return text.splitlines()

    @contextmanager
    def _open_log(self) -> Iterator[BinaryIO]:
        with suppress(FileNotFoundError):
            if self._log.stat().st_size > _LOG_BYTES:
                self._log.replace(self.folder / "log.1")
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            yield log

    def _last_words(self) -> str:
        """Return why the last program failed: what it said that looks most like a reason."""
        try:
            with self._log.open("rb") as log:
                log.seek(self._log_start)
                lines = log.read(_LOG_READ_BYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        said = [line.strip() for line in lines if line.strip()]
        reasons = [line for line in said if _REASON.search(line)]
        return _REASON.split((reasons or said or [""])[-1])[-1].strip()

    def _failed(self, what: str) -> StoreUnavailable:
        why = self._last_words()
        if not why and shutil.disk_usage(self.folder).free < _FULL_BYTES:
            why = "No space left on device"  # nor any for the log to say so
        return StoreUnavailable(f"{what}: {why + '; ' if why else ''}see {self._log}")


def _choose_socket_folder(folder: Path, home: Path) -> Path:
    """Return a folder whose socket path is short enough, and plain enough for libpq."""
    name = sha256(os.fsencode(folder)).hexdigest()[:12]
    for choice in (folder / "socket", home / "sockets" / name):
        path = os.fsencode(choice / f".s.PGSQL.{_PORT}")
        if len(path) <= _SOCKET_PATH_BYTES and not set(path) & set(b",\"'\\\n"):
            return choice
    raise ConfigError(f"the path of the database is too long or odd for a Unix socket: {home}")


def _quote(value: str) -> str:
    """Quote a value for postgresql.conf."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
