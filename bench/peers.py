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
from functools import cache
from typing import Final

from bench.processes import Unavailable
from scripts import bootstrap

__all__ = ["locked_version", "peers_python"]

PLACE: Final = bootstrap.ROOT / "build" / "peers"
PYTHON: Final = PLACE / "bin" / "python"
LOCK: Final = bootstrap.LOCKS / "bench.txt"
STAMP: Final = PLACE / "made-from"
TIMEOUT_S: Final = 300


def locked_version(name: str) -> str:
    """Return the version of a peer in that environment."""
    return LOCK.read_text().partition(f"\n{name}==")[2].split()[0]


def peers_python() -> str:
    """Return the Python of the peers' environment, which is made if it is not there.

    Raises:
        Unavailable: it cannot be made here; the installer's own words went to stderr.
    """
    if not is_made():
        raise Unavailable(f"requirements/{LOCK.name} could not be installed here")
    return str(PYTHON)


@cache
def is_made() -> bool:
    """Make the environment unless it is there; try that once, however many sides ask for it."""
    made_from = f"{platform.python_version()} {hashlib.sha256(LOCK.read_bytes()).hexdigest()}"
    if STAMP.exists() and STAMP.read_text() == made_from:
        return True
    print(f"making {PLACE.relative_to(bootstrap.ROOT)}", file=sys.stderr)
    shutil.rmtree(PLACE, ignore_errors=True)
    uv = bootstrap.uv_on_path() or str(bootstrap.VENV / "bin" / "uv")
    base = bootstrap.base_python()
    settings = bootstrap.index_settings(bootstrap.pip_of(base) or [base, "-m", "pip"])
    strict = ("--require-hashes", "--no-build", "--compile-bytecode")
    steps = (
        [uv, "venv", "--quiet", "--python", base, str(PLACE)],
        [uv, "pip", "sync", "--quiet", "--python", str(PYTHON), *strict, str(LOCK)],
    )
    environ = bootstrap.environment(settings)
    try:
        for step in steps:
            subprocess.run(step, env=environ, stdout=sys.stderr, check=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return False
    STAMP.write_text(made_from)
    return True
