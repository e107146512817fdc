"""The README's quick starts, run as they stand there against the simulators."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from llm_integrations.simulators import ClaudeSimulator, JiraSimulator

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def _quickstart(name: str) -> str:
    found = re.search(rf"<!-- quickstart: {name} -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


async def _run(code: str, **environment: str) -> str:
    """Run code in a process of its own and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    return printed.decode()


async def test_the_claude_quick_start_runs() -> None:
    async with ClaudeSimulator(latency_ms=(0, 0)) as claude:
        printed = await _run(
            _quickstart("anthropic"), ANTHROPIC_API_KEY="key", ANTHROPIC_BASE_URL=claude.base_url
        )
        assert [request.wants_stream for request in claude.requests] == [False, True]
    assert printed.strip()


async def test_the_jira_quick_start_runs() -> None:
    async with JiraSimulator(latency_ms=(0, 0)) as jira:
        printed = await _run(
            _quickstart("jira"),
            JIRA_BASE_URL=jira.base_url,
            JIRA_EMAIL="bot@example.com",
            JIRA_API_TOKEN="token",
        )
        [key] = [key for key, issue in jira.issues.items() if issue.summary == "Hello"]
        [comment] = jira.comments(key)
    assert comment.text == "Written with Markdown."
    assert f"{key} Hello" in printed


async def test_the_recipe_for_code_that_is_not_async_runs() -> None:
    section = README.partition("### From code that is not async")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    async with JiraSimulator(latency_ms=(0, 0)) as jira:
        key = await jira.create_issue(project="DEMO", summary="From sync code")
        printed = await _run(
            code[1] + f"\nprint(get_issue({key!r}).fields.summary)\n",
            JIRA_BASE_URL=jira.base_url,
            JIRA_EMAIL="bot@example.com",
            JIRA_API_TOKEN="token",
        )
    assert printed.strip() == "From sync code"


async def test_the_handler_of_the_readme_is_one() -> None:
    section = README.partition("## Your own handler")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    printed = await _run(code[1] + "\nprint(translate.__name__)\n")
    assert printed.strip() == "translate"


def test_the_readme_names_no_command_that_is_not_there() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    for task in set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE)):
        assert re.search(rf"^{task}:", makefile, re.MULTILINE), task
