"""Where the embedded PostgreSQL lives, and as which user it runs.

The real user and a wished folder flow in; an `Account` and folders that this account can use
flow out. Two rules hold everywhere:

1. A folder that exists already is never changed: no chmod, no chown, whoever asks.
2. As root, everything that root writes lies in folders which only root may write. The server's
   user owns nothing but the data and the socket folder.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llm_integrations.errors import ConfigError

try:
    import pwd
except ImportError:  # Windows: `require_posix` refuses before an account is looked up.
    pwd = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

SYSTEM_USER = "llm-integrations"
SYSTEM_HOME = Path("/var/lib/llm-integrations")
_USERADD_S = 30
# File locks and fsync are not to be trusted there (PostgreSQL docs, "Creating a Database Cluster").
_NETWORK_FILE_SYSTEMS = frozenset({"9p", "afs", "cifs", "fuse.sshfs", "nfs", "nfs4", "smb3"})


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system user that PostgreSQL runs as; `is_other` when that is not us."""

    name: str
    uid: int
    gid: int
    is_other: bool


def require_posix() -> None:
    """Refuse Windows, where neither the socket nor the locks used here exist."""
    if sys.platform == "win32":
        raise ConfigError(
            "the embedded PostgreSQL needs Linux or macOS: set DATABASE_URL to a real server"
        )


def find_account(progress: Callable[[str], None]) -> Account:
    """Return the user to run as: ourselves, or a system user (made if missing) when root."""
    if os.geteuid() == 0:
        entry = _find_user(SYSTEM_USER) or _create_system_user(progress)
        return Account(SYSTEM_USER, entry.pw_uid, entry.pw_gid, is_other=True)
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise ConfigError(
            f"the embedded PostgreSQL needs a user with a name, and uid {os.geteuid()} has none"
            " in /etc/passwd: add it there, or set DATABASE_URL to a real server"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, is_other=False)


def home_folder() -> Path:
    """Return the folder that holds all embedded databases of this user; may not exist yet."""
    if os.geteuid() == 0:
        return SYSTEM_HOME
    state = os.environ.get("XDG_STATE_HOME", "")
    if Path(state).is_absolute():  # The XDG specification: a relative path must be ignored.
        return Path(state) / "llm-integrations"
    try:
        return Path.home() / ".local" / "state" / "llm-integrations"
    except RuntimeError:
        raise ConfigError(
            "no home folder for the embedded PostgreSQL: set HOME, XDG_STATE_HOME or DATABASE_URL"
        ) from None


def make_folder(folder: Path, account: Account) -> None:
    """Make `folder` and what is missing above it; what exists already stays as it is.

    New folders can be passed through by the server's user, and are closed to everybody else
    where that user is ourselves. An existing one is refused when others could write in it.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        try:
            each.mkdir()
        except FileExistsError:
            continue
        each.chmod(0o755 if account.is_other else 0o700)  # mkdir's own mode obeys the umask
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"others own or may write the folder of the embedded database: {folder}")


def make_private_folder(folder: Path, account: Account) -> None:
    """Make `folder` for the server's user alone (0700), unless it is there and just so."""
    with suppress(FileNotFoundError):
        found = folder.lstat()
        if found.st_uid == account.uid and stat.S_IMODE(found.st_mode) == 0o700:
            return
        folder.rmdir()  # we died between the next two steps; anything else in it is an error
    folder.mkdir(mode=0o700)
    if account.is_other:
        os.chown(folder, account.uid, account.gid)


def check_place(folder: Path, account: Account) -> None:
    """Refuse a folder that the server's user cannot reach, or one on a network file system."""
    if account.is_other:
        for each in reversed(folder.parents):
            if each.exists() and not _may_enter(each, account):
                mode = stat.S_IMODE(each.stat().st_mode)
                raise ConfigError(
                    f"PostgreSQL runs as user {account.name}, who may not enter {each}"
                    f" (mode {mode:04o}): choose a data folder outside it, or none"
                )
    kind = _file_system(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise ConfigError(
            f"the embedded PostgreSQL cannot live on a network file system ({kind}): {folder}"
        )


def _may_enter(folder: Path, account: Account) -> bool:
    found = folder.stat()
    if found.st_uid == account.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _file_system(folder: Path) -> str:
    """Return the kind of file system `folder` is (or will be) on; empty where unknown."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    kinds = {Path(line.split()[1]): line.split()[2] for line in mounts.splitlines()}
    return next((kinds[each] for each in (folder, *folder.parents) if each in kinds), "")


def _find_user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _create_system_user(progress: Callable[[str], None]) -> pwd.struct_passwd:
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    progress(f"creating the system user {SYSTEM_USER}: PostgreSQL refuses to run as root")
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is not None:
        subprocess.run(
            [useradd, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_USERADD_S,
            check=False,
        )
    entry = _find_user(SYSTEM_USER)  # Another process may have been first: look, do not judge.
    if entry is None:
        raise ConfigError(
            f"PostgreSQL refuses to run as root and no user could be made; run: {' '.join(command)}"
        )
    return entry
