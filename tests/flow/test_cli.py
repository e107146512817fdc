"""The command line as people run it: a process, its output and its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest

from llm_integrations.governance import Governor
from llm_integrations.jira import BasicAuth, JiraClient, JiraConfig, UpdateIssueRequest
from llm_integrations.simulators import ClaudeSimulator, JiraSimulator

DEADLINE_S = 60
GOOD = "open-sesame"
CLAUDE = {"ANTHROPIC_API_KEY": "sk-hush-hush"}


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("llm-integrations: ")
        return lines[0]


def _environment(given: dict[str, str]) -> dict[str, str]:
    """Return this machine's environment without anybody's settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JIRA_", "ANTHROPIC_", "DATABASE_", "CONSOLE_"))
    }
    return kept | given


async def start(*words: str, cwd: Path, program: str = "", **environ: str) -> Process:
    code = ("-c", program) if program else ("-m", "llm_integrations")
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *code,
        *words,
        cwd=cwd,
        env=_environment(environ),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )


async def ended(process: Process, text: str = "") -> Ended:
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate(text.encode())
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@dataclass
class Shell:
    """Runs commands in a folder of their own."""

    folder: Path

    async def run(self, *words: str, text: str = "", **environ: str) -> Ended:
        return await ended(await start(*words, cwd=self.folder, **environ), text)

    async def python(self, program: str, *words: str) -> Ended:
        return await ended(await start(*words, cwd=self.folder, program=program))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


# --- the program ---------------------------------------------------------------------------------


async def test_help_names_every_command_and_loads_no_engine_and_no_server(shell: Shell) -> None:
    found = await shell.python(
        "import sys\n"
        "from llm_integrations.cli.program import run\n"
        "code = run(['--help'])\n"
        "heavy = {'aiohttp', 'dbos', 'msgspec', 'psycopg', 'sqlalchemy', 'starlette', 'uvicorn'}\n"
        "print(code, sorted(heavy & set(sys.modules)))\n"
    )
    assert found.out.endswith("0 []\n") or found.out.endswith("0 ['msgspec']\n")
    for (
        command
    ) in "demo serve simulate gateway pause resume purge deliveries costs ask jira".split():
        assert f" {command} " in found.out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("words", [("--version",), ("costs", "--json"), ("costs", "export")])
async def test_output_that_finds_no_room_is_one_line(shell: Shell, words: tuple[str, ...]) -> None:
    async with Governor.open(f"sqlite:///{shell.folder}/costs.db"):
        pass
    about = () if words[0] == "--version" else ("--ledger", "sqlite:///costs.db")
    found = await shell.python(
        "import os, sys\n"
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
        "from llm_integrations.cli.program import run\n"
        "sys.exit(run(sys.argv[1:]))\n",
        *words,
        *about,
    )
    assert found == Ended(1, "", "llm-integrations: standard output: No space left on device\n")


async def test_version_is_that_of_the_package(shell: Shell) -> None:
    found = await shell.run("--version")
    assert (found.code, found.out.split()[0]) == (0, "llm-integrations")


@pytest.mark.parametrize(
    "words",
    [
        ("serv",),
        ("serve", "--role", "boss"),
        ("ask",),
        ("deliveries", "show"),
        ("deliveries", "list", "--limit", "0"),
        ("deliveries", "list", "--before", str(2**63)),
        ("purge", "--yes"),
        ("simulate", "jira", "--port", "many"),
        ("costs", "--by", "moon"),
    ],
    ids=" ".join,
)
async def test_wrong_usage_is_one_line_and_exit_code_2(
    shell: Shell, words: tuple[str, ...]
) -> None:
    found = await shell.run(*words)
    assert (found.code, found.out) == (2, "")
    assert "--help" in found.complaint


@pytest.mark.parametrize(
    ("module", "words", "extra"),
    [
        ("cyclopts", "ask hello", "cli"),
        ("psycopg", "costs", "service"),
        ("structlog", "serve", "service"),
        ("uvicorn", "simulate jira", "simulators"),
        ("genai_prices", "simulate claude", "simulators"),
    ],
)
async def test_a_missing_extra_is_one_line_that_names_it(
    shell: Shell, module: str, words: str, extra: str
) -> None:
    (shell.folder / "llm-integrations.toml").write_text(
        'claude.api_key = "k"\n[sites.jira]\nbase_url = "http://127.0.0.1:1"\npat = "p"\n'
        'webhook_secrets = ["s"]\n'
    )
    found = await shell.python(
        f"import sys; sys.modules[{module!r}] = None\n"
        "from llm_integrations.cli import main; main()",
        *words.split(),
    )
    assert found.code == 2
    assert f"pip install 'llm-integrations[{extra}]'" in found.complaint


DEAF: Final = """
import asyncio, logging
from llm_integrations.service import loop

loop._UNHEEDED_S = 0.2
logging.basicConfig(format="%(message)s")

async def deaf_handler():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

async def main():
    deaf = asyncio.create_task(deaf_handler())
    await asyncio.sleep(0)
    main.deaf = deaf
    return 3

raise SystemExit(loop.run(main()))
"""


async def test_a_server_ends_without_what_heeds_no_cancellation(shell: Shell) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DEAF, cwd=shell.folder, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(DEADLINE_S):
        _, err = await process.communicate()
    assert process.returncode == 3
    assert err.startswith(b"ended without 1 tasks that heed no cancellation: <coroutine")
    assert b"deaf_handler" in err


# --- simulate and ask ----------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["jira", "claude"])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
async def test_simulator_says_where_it_is_and_ends_in_order(
    shell: Shell, which: str, end: signal.Signals
) -> None:
    process = await start("simulate", which, "--port", "0", "--json", cwd=shell.folder)
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        said = json.loads(await process.stdout.readline())
    assert said["simulator"] == which
    assert isinstance(said["seed"], int)
    assert said["base_url"].startswith("http://127.0.0.1:")
    process.send_signal(end)
    found = await ended(process)
    assert (found.code, found.err) == (0, "")


async def _first_webhook_of_a_simulator(shell: Shell, *words: str) -> str:
    """Return the identifier of the first webhook of a run."""
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()
        if not heard.done():
            heard.set_result(head.partition("webhook-identifier: ")[2].partition("\r\n")[0])

    door = await asyncio.start_server(hear, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{door.sockets[0].getsockname()[1]}/"
    command = ("simulate", "jira", "--port", "0", "--json", "--webhook", url, *words)
    process = await start(*command, cwd=shell.folder)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S), door:
            base_url = json.loads(await process.stdout.readline())["base_url"]
            config = JiraConfig(base_url, BasicAuth("me@example.com", "any"))
            async with JiraClient(config) as jira:
                await jira.update_issue("DEMO-1", UpdateIssueRequest(fields={"summary": "Other"}))
            return await heard
    finally:
        process.terminate()
        await ended(process)


async def test_webhooks_of_a_simulator_that_starts_again_are_no_repeats(shell: Shell) -> None:
    seeded = [await _first_webhook_of_a_simulator(shell, "--seed", "7") for _ in range(2)]
    new = [await _first_webhook_of_a_simulator(shell) for _ in range(2)]
    assert seeded[0] == seeded[1] != ""
    assert len({seeded[0], *new}) == 3


async def test_a_taken_port_is_one_line(shell: Shell) -> None:
    async with ClaudeSimulator() as claude:
        port = claude.base_url.rpartition(":")[2]
        found = await shell.run("simulate", "claude", "--port", port)
    assert found.code == 2
    assert f"port {port}" in found.complaint
    assert "--port" in found.complaint


async def test_a_port_that_is_none_is_one_line(shell: Shell) -> None:
    found = await shell.run("simulate", "claude", "--port", "70000")
    assert found.code == 2
    assert "70000 is no port" in found.complaint


async def test_ask_streams_the_answer_and_prints_the_exact_cost(shell: Shell) -> None:
    async with ClaudeSimulator(latency_ms=(1, 2)) as claude:
        found = await shell.run("ask", "Say hello.", **CLAUDE, ANTHROPIC_BASE_URL=claude.base_url)
        invoice = claude.invoice_pusd()
        assert claude.requests[0].wants_stream
    assert found.code == 0
    assert "Say hello." in found.out
    usd = found.err.split(" USD")[0].split()[-1]
    assert Decimal(usd) * 10**12 == invoice
    assert "tokens in" in found.err


async def test_ask_reads_stdin_and_prints_json(shell: Shell) -> None:
    async with ClaudeSimulator(latency_ms=(1, 2)) as claude:
        found = await shell.run(
            "ask", "--json", "--model", "opus 5.5", text="From a pipe.",
            **CLAUDE, ANTHROPIC_BASE_URL=claude.base_url,
        )  # fmt: skip
    answer = json.loads(found.out)
    assert (found.code, answer["model"], answer["attempts"]) == (0, "claude-opus-5-5", 1)
    assert "From a pipe." in answer["text"]
    assert found.err == ""


async def test_an_output_that_lacks_a_character_gets_an_escape_and_no_traceback(
    shell: Shell,
) -> None:
    async with ClaudeSimulator(latency_ms=(0, 0)) as claude:
        around = CLAUDE | {"ANTHROPIC_BASE_URL": claude.base_url, "PYTHONIOENCODING": "ascii"}
        found = await shell.run("ask", "Gr\u00fc\u00dfe \U0001f389", **around)
        assert (found.code, "Gr\\u00fc\\u00dfe \\ud83c\\udf89" in found.out) == (0, True), found.err
        found = await shell.run("ask", "--json", "Gr\u00fc\u00dfe \U0001f389", **around)
    assert "Gr\u00fc\u00dfe \U0001f389" in json.loads(found.out)["text"]


async def test_ask_takes_a_prompt_that_begins_with_a_hyphen_and_no_mistyped_option(
    shell: Shell,
) -> None:
    async with ClaudeSimulator(latency_ms=(0, 0)) as claude:
        around = CLAUDE | {"ANTHROPIC_BASE_URL": claude.base_url}
        found = await shell.run("ask", "- say yes", **around)
        assert found.code == 0, found.err
        mistyped = await shell.run("ask", "--jsn", **around)
        assert (mistyped.code, mistyped.out) == (2, "")
        assert "Unknown option: --jsn" in mistyped.complaint
        assert len(claude.requests) == 1


async def test_ask_says_what_is_wrong_with_the_key(shell: Shell) -> None:
    found = await shell.run("ask", "hello")
    assert found.code == 2
    assert "ANTHROPIC_API_KEY" in found.complaint
    async with ClaudeSimulator(latency_ms=(1, 2), credentials="another") as claude:
        found = await shell.run("ask", "hello", **CLAUDE, ANTHROPIC_BASE_URL=claude.base_url)
    assert found.code == 2
    assert "ANTHROPIC_API_KEY" in found.complaint
    assert "hush" not in found.err


async def test_ask_ends_with_130_on_ctrl_c(shell: Shell) -> None:
    async with ClaudeSimulator(latency_ms=(1, 2), stream_pause_ms=500) as claude:
        process = await start(
            "ask", "hello", cwd=shell.folder, **CLAUDE, ANTHROPIC_BASE_URL=claude.base_url
        )
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            await process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        found = await ended(process)
    assert (found.code, found.err) == (130, "")


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        ("", "sites.jira.base_url"),
        ('sites.jira.base_url = "http://x"', "sites.jira.email"),
        ('sites.jira.bass_url = "http://x"', "bass_url"),
        ("attempts = 'many'", "attempts"),
        ("attempts = 0", "attempts"),
        ("drain_s = -1", "drain_s"),
        ("drain_s = nan", "drain_s"),
        ("drain_s = inf", "drain_s"),
        ("mode = [", "llm-integrations.toml"),
    ],
)
async def test_a_wrong_setting_is_one_line_that_names_it(
    shell: Shell, toml: str, named: str
) -> None:
    (shell.folder / "llm-integrations.toml").write_text(toml)
    found = await shell.run("serve")
    assert (found.code, found.out) == (2, "")
    assert named in found.complaint


async def test_a_settings_file_that_is_not_there_is_one_line(shell: Shell) -> None:
    found = await shell.run("costs", "--settings", "nowhere.toml")
    assert found.code == 2
    assert "nowhere.toml" in found.complaint


# --- the service ---------------------------------------------------------------------------------


@dataclass
class Town:
    """Both simulators, and the environment that a service needs to find them."""

    jira: JiraSimulator
    claude: ClaudeSimulator
    environ: dict[str, str]


@asynccontextmanager
async def town(dsn: str, *, jira_token: str = GOOD, claude_key: str = GOOD) -> AsyncIterator[Town]:
    async with (
        JiraSimulator(credentials=("bot@example.com", GOOD)) as jira,
        ClaudeSimulator(latency_ms=(1, 5), credentials=GOOD) as claude,
    ):
        yield Town(
            jira,
            claude,
            {
                "DATABASE_URL": dsn,
                "JIRA_BASE_URL": jira.base_url,
                "JIRA_EMAIL": "bot@example.com",
                "JIRA_API_TOKEN": jira_token,
                "JIRA_WEBHOOK_SECRET": "s3cret",
                "ANTHROPIC_BASE_URL": claude.base_url,
                "ANTHROPIC_API_KEY": claude_key,
            },
        )


async def addresses(process: Process) -> dict[str, str]:
    """Return what a starting service says, by its first words."""
    assert process.stdout is not None
    said: dict[str, str] = {}
    async with asyncio.timeout(DEADLINE_S):
        while "mode" not in said:
            line = (await process.stdout.readline()).decode()
            assert line, "the service ended while it started"
            name, _, value = line.partition(" ")
            said[name] = value.strip()
    return said


@pytest.mark.parametrize(
    ("wrong", "named"), [("jira_token", "JIRA_API_TOKEN"), ("claude_key", "ANTHROPIC_API_KEY")]
)
async def test_serve_refuses_to_start_with_wrong_credentials(
    shell: Shell, service_url: str, wrong: str, named: str
) -> None:
    (shell.folder / "llm-integrations.toml").write_text("receiver.port = 0\nconsole.port = 0\n")
    async with town(service_url, **{wrong: "sesame-street"}) as place:
        found = await shell.run("serve", **place.environ)
    assert found.code == 2
    assert named in found.complaint
    assert "sesame" not in found.err


@pytest.mark.slow
async def test_a_day_with_the_service_from_the_command_line(shell: Shell, service_url: str) -> None:
    (shell.folder / "llm-integrations.toml").write_text(
        'receiver.port = 0\nconsole.port = 0\nsites.jira.projects = ["DEMO"]\n'
    )
    async with town(service_url) as place:

        async def deliveries(*words: str) -> list[dict[str, str]]:
            found = await shell.run("deliveries", "list", "--json", *words, **place.environ)
            assert found.code == 0, found.err
            rows: list[dict[str, str]] = json.loads(found.out)
            return rows

        process = await start("serve", cwd=shell.folder, **place.environ)
        said = await addresses(process)
        assert "DRY RUN" in said["mode"]
        assert said["console"].startswith("http://127.0.0.1:")
        assert "?token=" in said["console"]
        place.jira.subscribe(said["webhooks"], secret="s3cret")
        key = await place.jira.create_issue(project="DEMO", summary="Login is broken")
        await place.jira.flush()
        rows: list[dict[str, str]] = []
        async with asyncio.timeout(DEADLINE_S):
            while not rows:
                rows = await deliveries("--outcome", "proposed")
        assert [row["issue_key"] for row in rows] == [key]
        assert await deliveries(
            "--issue", key.lower(), "--project", "demo", "--outcome", "proposed"
        )
        assert not place.jira.comments(key)

        paused = await shell.run("pause", **place.environ)
        assert (paused.code, paused.out.split(":")[0]) == (0, "paused")
        await place.jira.create_issue(project="DEMO", summary="Another one")
        await place.jira.flush()
        assert len(await deliveries("--outcome", "open")) == 1
        assert (await shell.run("resume", **place.environ)).code == 0

        costs = await shell.run("costs", "--by", "issue", "--json", **place.environ)
        spent = {row["key"]: row["spent_usd"] for row in json.loads(costs.out)["rows"]}
        assert Decimal(spent[key]) > 0

        delivery_id = rows[0]["delivery_id"]
        shown = await shell.run("deliveries", "show", delivery_id, **place.environ)
        assert "proposed" in shown.out
        assert (await shell.run("deliveries", "replay", delivery_id, **place.environ)).code == 0
        missing = await shell.run("deliveries", "show", "nothing", **place.environ)
        assert (missing.code, "nothing" in missing.complaint) == (1, True)

        process.send_signal(signal.SIGTERM)
        found = await ended(process)
    assert found.code == 0, found.err
    for line in found.err.splitlines():
        assert json.loads(line)["level"] in {"info", "warning"}, line
    assert "s3cret" not in found.err + found.out
