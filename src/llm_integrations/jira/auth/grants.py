"""OAuth grants in a file: sealed, readable by its owner only, one refresher at a time.

In: bytes under a name. Out: the same bytes, in any process of this host that has the key. A grant
is written to a new file that replaces the old one, so a crash leaves either of them whole. Who
holds a grant holds a lock that the operating system takes back when the process dies. Must not:
know what a grant means; `oauth` does. For a fleet: `store/grants`.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from llm_integrations._core.clock import Clock, SystemClock
from llm_integrations._core.seal import Seal
from llm_integrations.errors import ConfigError, InvalidRequest, StoreUnavailable

__all__ = ["FileGrants"]

PATIENCE_S: Final = 60.0
POLL_S: Final = 0.02


class FileGrants:
    """Grants in a folder of one host, each in a sealed file of its own (mode 0600).

    Args:
        folder: made with mode 0700 if it is not there; may be shared by all processes of a user.
        key: from `FileGrants.generate_key()`; keep it apart from the folder. A file without its
            key is of no use, to you either.
        clock: for waiting.

    Raises:
        ConfigError: the key is none, or the `oauth` extra is missing.
    """

    def __init__(self, folder: str | Path, *, key: str, clock: Clock | None = None) -> None:
        self._folder = Path(folder)
        self._seal = Seal(key)
        self._clock = clock or SystemClock()

    @staticmethod
    def generate_key() -> str:
        """Return a new key."""
        return Seal.generate_key()

    async def load(self, name: str) -> bytes | None:
        """See `GrantStore`."""
        return await asyncio.to_thread(self._read, self._path(name))

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[_Slot]:
        """See `GrantStore`.

        Raises:
            StoreUnavailable: another process has held the grant for a minute.
            ConfigError: the folder cannot be used, or the key is not the file's.
        """
        path = self._path(name)
        lock = await asyncio.to_thread(self._open_lock, path)
        try:
            await self._take_turn(lock)
            yield _Slot(self._seal, path, await asyncio.to_thread(self._read, path))
        finally:
            os.close(lock)  # and with it the lock

    async def _take_turn(self, lock: int) -> None:
        deadline = self._clock.monotonic() + PATIENCE_S
        while not _try_lock(lock):
            if self._clock.monotonic() > deadline:
                raise StoreUnavailable("another process has held the Jira grant for a minute")
            await self._clock.sleep(POLL_S)

    def _path(self, name: str) -> Path:
        if not name or not all(letter.isalnum() or letter in "-_" for letter in name):
            raise InvalidRequest("a grant's name has letters, digits, '-' and '_' only")
        return self._folder / f"{name}.grant"

    def _open_lock(self, path: Path) -> int:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self._folder, error) from None

    def _read(self, path: Path) -> bytes | None:
        try:
            sealed = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(path, error) from None
        return self._seal.open(sealed)


class _Slot:
    """A grant that this process holds."""

    def __init__(self, seal: Seal, path: Path, value: bytes | None) -> None:
        self._seal = seal
        self._path = path
        self.value = value

    async def save(self, value: bytes) -> None:
        """Replace the file, and return when the disk has it."""
        await asyncio.to_thread(self._replace, self._seal.close(value))
        self.value = value

    def _replace(self, sealed: bytes) -> None:
        folder = self._path.parent
        try:
            handle, name = tempfile.mkstemp(dir=folder, prefix=".grant-")  # made with mode 0600
        except OSError as error:
            raise _unusable(folder, error) from None
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
            _sync_folder(folder)
        except OSError as error:
            with suppress(OSError):
                Path(name).unlink()
            raise _unusable(self._path, error) from None


def _try_lock(descriptor: int) -> bool:
    """Take the lock if it is free; another handle of this process counts as somebody else."""
    try:
        import fcntl  # noqa: PLC0415 - absent on Windows
    except ImportError:
        raise ConfigError(
            "sealed grant files need a POSIX system; use PostgresGrants here"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot use {path} for Jira grants: {error.strerror}")
