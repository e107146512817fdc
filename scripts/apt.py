"""Install a Debian package as root, or say which command would.

In: the name of a package. Out: whether it was installed. What it must not do: ask a question, or
try anything as a plain user.
"""

import os
import shutil
import subprocess


def is_possible() -> bool:
    """Tell whether this user may install Debian packages on this machine."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def command(package: str) -> str:
    """Return the command by which a person installs the package."""
    return f"sudo apt-get install -y {package}"


def install(package: str) -> bool:
    """Install the package; the list of packages is brought up to date only when that is needed."""
    return _apt_get("install", package) or (_apt_get("update") and _apt_get("install", package))


def _apt_get(verb: str, *packages: str) -> bool:
    done = subprocess.run(
        ["apt-get", "-qq", "-y", "--no-install-recommends", verb, *packages],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
