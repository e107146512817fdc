"""Set up `.venv` from a lock, with any Python >= 3.11 and nothing else.

    python -m scripts.bootstrap demo|dev

In: `requirements/<lock>.txt` (hashes, no index address: the machine's own configuration says where
packages come from) and `pyproject.toml`. Out: `.venv` with exactly those packages and the project
itself, editable, and a stamp that makes the next run return at once. What this user cannot do is
said in one line with the command that can, exit 2. Standard library only; nothing outside `.venv`
is touched, but for Debian's own `venv` package, and that as root only.

How it gets an installer, best first:
1. `uv` from the path.
2. `python -m venv`, and `uv` by its pip, from requirements/bootstrap.txt.
3. Without ensurepip: `python -m venv --without-pip`, and `uv` by the pip beside that Python, told
   to install into `.venv`; so an externally managed Python stays as it is.
4. With neither: Debian's venv package, then 2.
"""

import ast
import fcntl
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from scripts import apt

ROOT: Final = Path(__file__).resolve().parent.parent
VENV: Final = ROOT / ".venv"
VENV_PYTHON: Final = VENV / "bin" / "python"
STAMP: Final = VENV / "set-up.json"
LOCKS: Final = ROOT / "requirements"
# A lock that is installed already serves for the ones that it contains.
CONTAINED_IN: Final[Mapping[str, Sequence[str]]] = {"demo": ("demo", "dev"), "dev": ("dev",)}
VERSION: Final = ".".join(str(part) for part in sys.version_info[:3])
TICK_S: Final = 10
OLDEST_UV: Final = (0, 5)
# What pip is told about the machine's packages, under the names by which uv wants to hear it.
PIP_TO_UV: Final = {
    "index-url": "UV_DEFAULT_INDEX",
    "cert": "SSL_CERT_FILE",
    "trusted-host": "UV_INSECURE_HOST",
}


def main() -> None:
    """Bring `.venv` to the lock named on the command line, unless it is there already."""
    lock = sys.argv[1] if len(sys.argv) == 2 else ""
    if lock not in CONTAINED_IN:
        stop("which lock? sh scripts/bootstrap.sh demo|dev")
    if is_ready(lock):
        return
    check_writable()
    with LOCKS.joinpath("bootstrap.txt").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # `make -j demo test` sets up once
        if not is_ready(lock):
            set_up(lock)


def is_ready(lock: str) -> bool:
    """Tell whether `.venv` was made here, by this Python, from this lock or one containing it."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    return VENV_PYTHON.exists() and any(stamp == stamp_of(each) for each in CONTAINED_IN[lock])


def stamp_of(lock: str) -> dict[str, str]:
    """Return what identifies a finished set-up."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    digest = hashlib.sha256((LOCKS / f"{lock}.txt").read_bytes())
    digest.update(json.dumps([declared["build-system"], declared["project"]]).encode())
    return {"root": str(ROOT), "python": VERSION, "lock": lock, "digest": digest.hexdigest()}


def write_stamp(lock: str) -> None:
    """Leave the mark of a finished set-up."""
    STAMP.write_text(json.dumps(stamp_of(lock)))


def set_up(lock: str) -> None:
    """Make `.venv`, find an installer, install the lock and the project, leave the stamp."""
    started = time.monotonic()
    base = base_python()
    say(f"Python {VERSION} ({base})")
    pip = None
    if not is_usable():
        shutil.rmtree(VENV, ignore_errors=True)
    else:
        STAMP.unlink(missing_ok=True)
        pip = pip_of(base)
    uv = uv_on_path()
    if uv is not None:
        if not VENV.exists():
            say("making .venv with uv")
            run([uv, "venv", "--python", base, str(VENV)], "make .venv")
    else:
        pip = pip or make_venv(base)
        uv = uv_in_venv(pip)
    install(lock, uv, index_settings(pip or [base, "-m", "pip"]))
    write_stamp(lock)
    say(f"ready after {time.monotonic() - started:.0f} s; next time this is skipped")


def base_python() -> str:
    """Return the Python that `.venv` is made from, also when this runs inside `.venv`."""
    return str(getattr(sys, "_base_executable", sys.executable) or sys.executable)


def is_usable() -> bool:
    """Tell whether the `.venv` that is there can be kept: it runs, is this Python, stands here."""
    try:
        root = json.loads(STAMP.read_text())["root"]
    except (OSError, ValueError, KeyError):
        root = str(ROOT)  # not finished, or made by hand: worth keeping if it runs
    code = "import sys; print(*sys.version_info[:2])"
    try:
        seen = subprocess.run(
            [VENV_PYTHON, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return False
    return root == str(ROOT) and seen == [str(part) for part in sys.version_info[:2]]


def uv_on_path() -> str | None:
    """Return an installed uv that is new enough to read the locks."""
    found = shutil.which("uv")
    if found is None:
        return None
    shown = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    try:
        version = tuple(int(part) for part in shown.split()[1].split(".")[:2])
    except (IndexError, ValueError):
        return None
    return found if version >= OLDEST_UV else None


def make_venv(base: str) -> list[str]:
    """Make `.venv` with this Python and return the pip that can install into it."""
    say("making .venv")
    if not has_module("venv"):
        install_debian_venv(base)
    if has_module("ensurepip") and try_run([base, "-m", "venv", str(VENV)]):
        return [str(VENV_PYTHON), "-m", "pip"]
    shutil.rmtree(VENV, ignore_errors=True)
    if not has_module("pip"):
        install_debian_venv(base)
        run([base, "-m", "venv", str(VENV)], "make .venv")
        return [str(VENV_PYTHON), "-m", "pip"]
    run([base, "-m", "venv", "--without-pip", str(VENV)], "make .venv")
    return [base, "-m", "pip", "--python", str(VENV_PYTHON)]


def pip_of(base: str) -> list[str] | None:
    """Return the pip for a `.venv` that is there: its own, else the one beside `base`."""
    if try_run([str(VENV_PYTHON), "-m", "pip", "--version"]):
        return [str(VENV_PYTHON), "-m", "pip"]
    if try_run([base, "-m", "pip", "--version"]):
        return [base, "-m", "pip", "--python", str(VENV_PYTHON)]
    return None


def has_module(name: str) -> bool:
    """Tell whether the base Python has this module; `.venv` shares its standard library."""
    return importlib.util.find_spec(name) is not None


def install_debian_venv(base: str) -> None:
    """Install the half of `venv` that Debian keeps in a package of its own, or say how."""
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    if not Path(base).resolve().is_relative_to("/usr/bin") or shutil.which("apt-get") is None:
        stop(f"{base} has neither ensurepip nor pip; name a Python that has: make PYTHON=python3.x")
    if not apt.is_possible():
        stop(f"this Python can make no environment yet; run: {apt.command(package)}")
    say(f"installing Debian's {package} with apt-get")
    if not apt.install(package):
        stop(f"apt-get could not install it; see why: {apt.command(package)}")
    importlib.invalidate_caches()


def uv_in_venv(pip: Sequence[str]) -> str:
    """Return the locked uv inside `.venv`, installed by pip if it is not there."""
    lock = LOCKS / "bootstrap.txt"
    uv = VENV / "bin" / "uv"
    pinned = lock.read_text().partition("uv==")[2].split()[0]
    if not (uv.exists() and try_run([str(uv), "--version"], expect=pinned)):
        say(f"installing uv {pinned} with pip")
        arguments = ["install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        run([*pip, *arguments, "-r", str(lock)], "install uv")
    return str(uv)


def index_settings(pip: Sequence[str]) -> dict[str, str]:
    """Hand the machine's pip configuration to uv, which does not read it by itself."""
    shown = subprocess.run(
        [*pip, "config", "list"], env=environment({}), capture_output=True, text=True, check=False
    ).stdout
    settings: dict[str, str] = {}
    for line in shown.splitlines():  # global.index-url='...'; later lines are nearer to the user
        key, _, value = line.partition("=")
        name = PIP_TO_UV.get(key.rpartition(".")[2])
        if name is not None and not os.environ.get(name):
            settings[name] = " ".join(str(ast.literal_eval(value)).split())
    if os.environ.get("UV_INDEX_URL"):
        settings.pop("UV_DEFAULT_INDEX", None)
    return settings


def install(lock: str, uv: str, settings: Mapping[str, str]) -> None:
    """Make `.venv` hold exactly the lock, compiled, and the project itself."""
    path = LOCKS / f"{lock}.txt"
    count = path.read_text().count("==")
    say(f"installing {count} packages from requirements/{path.name}")
    into = ["--quiet", "--python", str(VENV_PYTHON)]
    into += [] if os.access(Path.home(), os.W_OK) else ["--no-cache"]
    strict = ["--require-hashes", "--no-build", "--compile-bytecode"]
    run([uv, "pip", "sync", *into, *strict, str(path)], "install the packages", settings)
    say("installing the project itself")
    editable = ["--no-deps", "--no-build-isolation", "--offline", "--editable", str(ROOT)]
    run([uv, "pip", "install", *into, *editable], "install the project")
    run([str(VENV_PYTHON), "-m", "compileall", "-q", str(ROOT / "src")], "compile the project")


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for an installer, without what points it at another place."""
    misleading = {"VIRTUAL_ENV", "CONDA_PREFIX", "UV_SYSTEM_PYTHON", "UV_PROJECT_ENVIRONMENT"}
    misleading |= {"PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV"}
    kept = {name: value for name, value in os.environ.items() if name not in misleading}
    ours = {"PIP_USER": "0", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    if has_system_certificates():  # as pip does; a company's own root is there and nowhere else
        ours |= {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    return kept | ours | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | dict(settings)


def has_system_certificates() -> bool:
    """Tell whether this machine keeps root certificates; a bare container may have none."""
    paths = ssl.get_default_verify_paths()
    folder = Path(paths.openssl_capath)
    return Path(paths.openssl_cafile).exists() or (folder.is_dir() and any(folder.iterdir()))


def run(arguments: Sequence[str], purpose: str, settings: Mapping[str, str] | None = None) -> None:
    """Run a command, saying every few seconds that it still runs; stop the set-up if it fails."""
    with tempfile.TemporaryFile("w+") as shown:
        started = time.monotonic()
        with subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=environment(settings or {}),
            stdin=subprocess.DEVNULL,
            stdout=shown,
            stderr=subprocess.STDOUT,
        ) as process:
            while process.returncode is None:
                try:
                    process.wait(TICK_S)
                except subprocess.TimeoutExpired:
                    say(f"  still at it after {time.monotonic() - started:.0f} s")
        if process.returncode != 0:
            shown.seek(0)
            sys.stderr.writelines(shown.readlines()[-20:])
            stop(f"could not {purpose}; again, by hand: {shlex.join(arguments)}")


def try_run(arguments: Sequence[str], *, expect: str = "") -> bool:
    """Run a command that may fail, and tell whether it went well and printed what is expected."""
    try:
        done = subprocess.run(
            arguments, env=environment({}), capture_output=True, text=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0 and expect in done.stdout


def check_writable() -> None:
    """Stop where this user may not write, before anything is half done."""
    for path in (ROOT, VENV):
        if path.exists() and not os.access(path, os.W_OK):
            mend = f"sudo chown -R $(id -u) {shlex.quote(str(path))}"
            stop(f"this user may not write to {path}; run: {mend}")


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"set-up: {text}", flush=True)


def stop(text: str) -> NoReturn:
    """Print why there is no set-up, and how there can be one."""
    print(f"set-up: {text}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
