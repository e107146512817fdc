"""Find Debian's PostgreSQL, which the tests use beside the embedded one; as root, install it.

`make test` runs this once before pytest. It never fails a test run: without a server the other
tests still say what they say.
"""

from pathlib import Path

from scripts import apt

PACKAGE = "postgresql"
SKIP_REASON = f"no PostgreSQL of the system here; install it: {apt.command(PACKAGE)}"


def find() -> Path | None:
    """Return the folder of the newest server's programs on this machine, or None."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return max(
        (path.parent for path in found), key=lambda path: int(path.parent.name), default=None
    )


def main() -> None:
    """Make sure of a server where this user can, and say what happens otherwise."""
    if find() is not None:
        return
    if apt.is_possible():
        print("database tests: installing Debian's postgresql with apt-get", flush=True)
        apt.install(PACKAGE)
    if find() is None:
        print(f"database tests over TCP will be skipped: {SKIP_REASON}")


if __name__ == "__main__":
    main()
