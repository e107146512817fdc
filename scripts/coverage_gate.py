"""Print what the tests covered and hold it against two thresholds.

    python -m scripts.coverage_gate --package PERCENT --rules PERCENT

The package as a whole has one threshold, the rules modules have their own. Which modules those are
is written down once: in the import-linter contract `rules` of `pyproject.toml`.
"""

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent


def main() -> int:
    """Report twice, once for the package and once for its rules; fail if either is too low."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=float, required=True)
    parser.add_argument("--rules", type=float, required=True)
    wanted = parser.parse_args()
    package_kept = report("the package", wanted.package, [])
    rules = ",".join(rules_patterns())
    rules_kept = report("rules modules", wanted.rules, [f"--include={rules}"])
    return 0 if package_kept and rules_kept else 1


def rules_patterns() -> list[str]:
    """Return the file patterns of the rules modules: `a.*.b` is a/*/b.py or a/*/b/."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contract = next(each for each in settings["contracts"] if each["id"] == "rules")
    stems = [f"src/{module.replace('.', '/')}" for module in contract["source_modules"]]
    return [pattern for stem in stems for pattern in (f"{stem}.py", f"{stem}/*.py")]


def report(title: str, threshold: float, options: list[str]) -> bool:
    """Print one coverage report and tell whether it reached its threshold."""
    print(f"\ncoverage of {title} (at least {threshold:g} %)", flush=True)
    command = [sys.executable, "-m", "coverage", "report", f"--fail-under={threshold:g}", *options]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
