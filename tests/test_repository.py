"""Facts about the repository that no tool checks for us."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "src" / "llm_integrations"
LOCKS: Final = ("bootstrap", "demo", "dev")
EXTRAS: Final = """
    jira anthropic postgres httpx2 tokenizer simulators cli service embedded gateway govern oauth
    otel demo
""".split()
TEXT: Final = {
    "", ".cfg", ".css", ".html", ".ini", ".js", ".json", ".md", ".py", ".sh", ".sql", ".svg",
    ".toml", ".txt", ".yaml", ".yml",
}  # fmt: skip
# Written in two halves, so that this file does not find itself.
ADDRESSES: Final = re.compile(
    r"py" r"pi\.org|python" r"hosted\.org|registry\.npm" r"js\.|/sim" r"ple/"
)
HOME_PATHS: Final = re.compile(
    r"/(?:home|Users)/(?!user\b|you\b|me\b)[a-z][\w.-]*/|(?<![\w.])/ro"
    r"ot/|(?<![\w.~/-])/wo"
    r"rk/"
)
LIBRARIES_AT_IMPORT: Final = """
    aiohttp httpx2 anthropic psycopg dbos starlette uvicorn rich cyclopts structlog splintr
""".split()


@cache
def extras() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared: dict[str, list[str]] = project["optional-dependencies"]
    return declared


def declared_dependencies() -> set[str]:
    """Return the names of all packages that the project may ask for at run time."""
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = [*base, *(line for extra in extras().values() for line in extra)]
    return {re.split(r"[\[<>=~!; ]", line)[0] for line in lines} - {"llm-integrations"}


@cache
def contracts() -> dict[str, dict[str, list[str]]]:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    return {contract["id"]: contract for contract in tools["importlinter"]["contracts"]}


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files that git tracks; of a tree without git, those of the package."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so nothing says which files belong to the repository")
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def tracked_text() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        if path.suffix in TEXT and path.name != "LICENSE":
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


def requirements(lock: str) -> dict[str, str]:
    """Return the pinned packages of a lock, with their versions and markers as one string."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==([^\\\n]+?)\s*\\$", text, re.MULTILINE))


def layer_names(contract: str) -> set[str]:
    layers = " | ".join(contracts()[contract]["layers"])
    return {name.strip().strip("()") for name in layers.split("|")}


def modules_of(folder: Path) -> set[str]:
    """Return the names of a package's modules and packages."""
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    return files | {path.parent.name for path in folder.glob("*/__init__.py")}


@pytest.mark.parametrize("pattern", [ADDRESSES, HOME_PATHS], ids=["index address", "home folder"])
def test_no_tracked_file_names_a_machine_of_ours(pattern: re.Pattern[str]) -> None:
    found = [
        f"{path}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]}"
        for path, text in tracked_text()
        for hit in pattern.finditer(text)
    ]
    assert not found


def test_there_is_no_lock_that_records_an_index() -> None:
    forbidden = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock"}
    assert not [path.name for path in tracked() if path.name in forbidden]


@pytest.mark.parametrize("lock", [*LOCKS, "bench"])
def test_every_locked_package_has_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    blocks = [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]
    assert blocks
    assert not [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block]
    assert "://" not in text


def test_the_dev_lock_contains_the_demo_lock_and_both_contain_the_installer() -> None:
    bootstrap, demo, dev = (requirements(lock) for lock in LOCKS)
    assert bootstrap.items() <= demo.items() <= dev.items()


def test_every_declared_dependency_is_locked() -> None:
    assert declared_dependencies() <= set(requirements("dev"))


def test_the_documented_extras_exist() -> None:
    assert set(extras()) == set(EXTRAS)


def test_the_licence_is_there_in_full() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_make_command_in_the_documents_is_a_task() -> None:
    tasks = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        (path.name, task)
        for path, text in tracked_text()
        if path.suffix == ".md"
        for task in re.findall(r"(?:^|`|\$ )make ([a-z]+)", text, re.MULTILINE)
    }
    assert {("README.md", "demo"), ("README.md", "test")} <= named
    assert not {(name, task) for name, task in named if task not in tasks}


def test_make_lists_every_task_with_what_it_does() -> None:
    tasks = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^make ([a-z]+) +\w", shown, re.MULTILINE)) == tasks


def test_every_relative_link_in_the_documents_leads_somewhere() -> None:
    dead = [
        f"{path}: {target}"
        for path, text in tracked_text()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
        if "://" not in target and not target.startswith("mailto:")
        if not (ROOT / path.parent / target).exists()
    ]
    assert not dead


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    decisions = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert decisions
    assert not [name for name in decisions if f"({name})" not in index]


def test_every_dependency_is_accounted_for() -> None:
    text = (ROOT / "docs" / "decisions" / "0004-dependencies.md").read_text()
    assert not {name for name in declared_dependencies() if f"`{name}`" not in text}


@pytest.mark.parametrize("contract", ["rooms", "service"])
def test_every_module_has_a_place_among_the_layers(contract: str) -> None:
    folder = PACKAGE if contract == "rooms" else PACKAGE / "service"
    assert modules_of(folder) == layer_names(contract)


def test_the_rooms_are_those_of_the_design() -> None:
    layers = [re.sub(r"[()]", "", layer) for layer in contracts()["rooms"]["layers"]]
    assert layers == [
        "__main__",
        "cli",
        "demo",
        "service | simulators",
        "anthropic | jira",
        "governance",
        "store",
        "_core",
        "errors",
    ]


def test_every_rules_module_named_in_the_contract_exists() -> None:
    patterns = [
        name.removeprefix("llm_integrations.") for name in contracts()["rules"]["source_modules"]
    ]
    missing = [
        pattern
        for pattern in patterns
        if not [*PACKAGE.glob(pattern.replace(".", "/") + ".py")]
        and not [*PACKAGE.glob(pattern.replace(".", "/") + "/__init__.py")]
    ]
    assert not missing


def test_no_module_has_a_name_that_says_nothing() -> None:
    forbidden = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [path for path in PACKAGE.rglob("*.py") if path.stem in forbidden]


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        path.relative_to(ROOT)
        for path in PACKAGE.rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_every_suppressed_warning_of_a_tool_names_its_code() -> None:
    bare = re.compile(r"#\s*(?:noqa|type:\s*ignore|pyright:\s*ignore)(?![:\[]|:)")
    found = [
        f"{path}:{number}"
        for path, text in tracked_text()
        if path.suffix == ".py" and path.parts[0] == "src"
        for number, line in enumerate(text.splitlines(), 1)
        if bare.search(line)
    ]
    assert not found


@pytest.mark.parametrize("half", ["anthropic", "jira"])
def test_importing_a_client_loads_no_engine_and_nothing_of_the_other(half: str) -> None:
    other = {"anthropic": "jira", "jira": "anthropic"}[half]
    unwanted = [*LIBRARIES_AT_IMPORT, f"llm_integrations.{other}", "llm_integrations.service"]
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, llm_integrations.{half}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not set(unwanted) & set(loaded)


def test_every_command_of_the_package_starts_without_a_warning() -> None:
    program = Path(sys.executable).parent / "llm-integrations"
    shown = subprocess.run(
        [sys.executable, "-W", "error", program, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "demo" in shown.stdout
