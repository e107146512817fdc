"""Write `requirements/*.txt` from `pyproject.toml`: universal, with hashes, without any address.

    .venv/bin/python -m scripts.lock [--upgrade]

Out: `bootstrap.txt` (the installer), `demo.txt` (what `make demo` runs on), `dev.txt` (all of
that, in the same versions, and the tools) and `bench.txt` (peers that `make bench` keeps apart).
One file serves Python 3.11 to 3.14 on Linux and macOS. No file may say where packages come from:
that is the machine's own business.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCKS: Final = ROOT / "requirements"
SET_UP: Final = ("--group", "bootstrap", "--group", "build")
EXTRAS: Final = tuple(
    word for name in "demo httpx2 oauth otel tokenizer".split() for word in ("--extra", name)
)
# In this order: a lock is made after the ones whose versions it keeps.
SOURCES: Final[dict[str, tuple[str, ...]]] = {
    "bootstrap": ("--group", "bootstrap"),
    "demo": ("pyproject.toml", "--extra", "demo", *SET_UP, "-c", "requirements/bootstrap.txt"),
    "dev": ("pyproject.toml", *EXTRAS, *SET_UP, "--group", "dev", "-c", "requirements/demo.txt"),
    "bench": ("--group", "bench"),
}
STYLE: Final = (
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-annotate",
    "--no-header",
    "--quiet",
)


def main() -> int:
    """Write every lock and check what must hold of each."""
    for name, source in SOURCES.items():
        path = LOCKS / f"{name}.txt"
        subprocess.run(
            [ROOT / ".venv/bin/uv", "pip", "compile", *STYLE, *source, "-o", path, *sys.argv[1:]],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        text = path.read_text()
        if "://" in text or "--hash=sha256:" not in text:
            print(f"{path.name} names an address or lacks hashes", file=sys.stderr)
            return 1
        header = f"# Made by `make lock` from pyproject.toml ({' '.join(source)}).\n"
        path.write_text(header + text)
        print(f"requirements/{path.name}: {text.count('==')} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
