"""Find the browser that the console is tested in; as root, install it where it is missing.

`make test` runs this once before pytest; the `chromium` fixture asks `find` and skips with
`SKIP_REASON`. It never fails a test run: without a browser the other tests still say what they say.
"""

import shutil
import time

from scripts import apt

PACKAGE = "chromium"
SKIP_REASON = f"no Chromium here; install it: {apt.command(PACKAGE)}"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Return the path of a Chromium on this machine, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def main() -> None:
    """Make sure of a browser where this user can, and say what happens otherwise."""
    if find() is not None:
        return
    if not apt.is_possible():
        print(f"browser tests will be skipped: {SKIP_REASON}")
        return
    print("browser tests: installing Debian's chromium with apt-get", flush=True)
    started = time.monotonic()
    if apt.install(PACKAGE) and find() is not None:
        print(f"browser tests: installed in {time.monotonic() - started:.0f} s")
    else:
        print(f"browser tests will be skipped: {SKIP_REASON}")


if __name__ == "__main__":
    main()
