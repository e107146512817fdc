"""An environment for peers that do not fit into ours: `build/peers`, from requirements/bench.txt.

It is made when a benchmark first needs it, and again when the lock changed. LiteLLM is in it: it
pins httpx 0.28 and brings 59 packages, which no user of this project should get.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from typing import Final

from bench.processes import Unavailable
from scripts import bootstrap

__all__ = ["peers_python"]

PLACE: Final = bootstrap.ROOT / "build" / "peers"
LOCK: Final = bootstrap.LOCKS / "bench.txt"
STAMP: Final = PLACE / "made-from"
TIMEOUT_S: Final = 300


def peers_python() -> str:
    """Return the Python of the peers' environment, which is made if it is not there.

    Raises:
        Unavailable: it cannot be made here; the installer's own words went to stderr.
    """
    python = PLACE / "bin" / "python"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    made_from = f"{platform.python_version()} {digest}"
    if STAMP.exists() and STAMP.read_text() == made_from:
        return str(python)
    shutil.rmtree(PLACE, ignore_errors=True)
    uv = bootstrap.uv_on_path() or str(bootstrap.VENV / "bin" / "uv")
    base = bootstrap.base_python()
    settings = bootstrap.index_settings(bootstrap.pip_of(base) or [base, "-m", "pip"])
    strict = ("--require-hashes", "--no-build", "--compile-bytecode")
    for command in (
        [uv, "venv", "--quiet", "--python", base, str(PLACE)],
        [uv, "pip", "sync", "--quiet", "--python", str(python), *strict, str(LOCK)],
    ):
        run(command, settings)
    STAMP.write_text(made_from)
    return str(python)


def run(command: list[str], settings: dict[str, str]) -> None:
    """Run a step of the installation."""
    environ = bootstrap.environment(settings)
    try:
        subprocess.run(command, env=environ, stdout=sys.stderr, check=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        raise Unavailable(f"requirements/{LOCK.name} could not be installed here") from None
