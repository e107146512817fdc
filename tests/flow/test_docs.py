"""The examples of docs/*.md, run as they stand there against the simulators.

A page is run like a notebook: its `python` blocks in order, in one namespace, with `await` at the
top level. What a reader need not see stands in comments of the page (`<!-- python ... -->`) and
runs in its place: what goes wrong next, and what must hold afterwards. A block with `asyncio.run`
is a whole program and gets a thread of its own.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import struct
import sys
import types
import zlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pytest

import llm_integrations.anthropic
import llm_integrations.jira
from llm_integrations import errors
from llm_integrations.simulators import ClaudeSimulator, JiraSimulator

DOCS = Path(__file__).parents[2] / "docs"
STEP = re.compile(r"^(?:```python\n(.*?)^```|<!-- python\n(.*?)^-->)", re.DOTALL | re.MULTILINE)
PAGES = sorted(path.name for path in DOCS.glob("*.md") if STEP.search(path.read_text("utf-8")))


def steps(page: Path) -> Iterator[tuple[str, types.CodeType]]:
    """Yield the pieces of code of a page, and each compiled with the line numbers of the page."""
    text = page.read_text(encoding="utf-8")
    for found in STEP.finditer(text):
        group = 1 if found[1] is not None else 2
        tree = ast.parse(found[group], page.name)
        ast.increment_lineno(tree, text.count("\n", 0, found.start(group)))
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        yield found[group], compile(tree, str(page), "exec", flags=flags, dont_inherit=True)


def png(width: int, height: int) -> bytes:
    """Return a black image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(width) for _ in range(height)))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder with the files that the pages name the current one."""
    (tmp_path / "screenshot.png").write_bytes(png(64, 48))
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.4\n1 0 obj <</Type /Page>> endobj\n%%EOF\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", PAGES)
async def test_every_example_of_a_page_runs(
    name: str, folder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)
    async with (
        ClaudeSimulator(latency_ms=(0, 0)) as simulator,
        JiraSimulator(latency_ms=(0, 0)) as site,
    ):
        monkeypatch.setenv("JIRA_BASE_URL", site.base_url)
        monkeypatch.setenv("JIRA_EMAIL", "bot@example.com")
        monkeypatch.setenv("JIRA_API_TOKEN", "token")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", simulator.base_url)
        page.__dict__["simulator"] = simulator
        for text, code in steps(DOCS / name):
            if "asyncio.run(" in text:
                await asyncio.to_thread(exec, code, page.__dict__)
            elif code.co_flags & inspect.CO_COROUTINE:
                await eval(code, page.__dict__)  # noqa: S307 - our own documents
            else:
                exec(code, page.__dict__)  # noqa: S102 - the same


def test_the_tour_says_how_far_off_estimates_are_as_the_data_file_does() -> None:
    page = (DOCS / "claude.md").read_text("utf-8")
    data = files("llm_integrations.anthropic") / "data" / "tokens.json"
    measured = json.loads(data.read_text("utf-8"))["tokenizers"]
    for tokenizer, models in (("2024", "Claude 3 to 4.6"), ("2026", "Claude 4.7 and newer")):
        for tier in ("vocabulary", "base"):
            text, tools = (
                measured[tokenizer][tier]["held_out"][kind] for kind in ("text", "tools")
            )
            row = f"| {models} | `{tier}` | {off_by(text)} | {off_by(tools)} |"
            assert row in page


def off_by(found: dict[str, float]) -> str:
    """Return a median and a 90th percentile as the page writes them."""
    return f"{found['median_percent']} / {found['p90_percent']} %"


def test_the_table_for_people_from_other_libraries_names_what_this_client_has() -> None:
    section = (DOCS / "jira.md").read_text("utf-8").partition("## Coming from other libraries")[2]
    rows = re.findall(r"^\| (`.*?) \| (.*) \| (.*) \|$", section, re.MULTILINE)
    assert len(rows) > 18
    ours = " ".join(right for *_, right in rows)
    client = llm_integrations.jira.JiraClient
    assert not {name for name in re.findall(r"jira\.(\w+)\(", ours) if not hasattr(client, name)}
    classes = set(re.findall(r"`?\b([A-Z][a-z]\w+)\(", ours))
    assert not classes - {*llm_integrations.jira.__all__}
    for library, at in (("jira", 0), ("atlassian", 1)):
        spec = find_spec(library)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        folder = Path(spec.submodule_search_locations[0])
        source = "".join(path.read_text("utf-8") for path in folder.rglob("*.py"))
        theirs = set(re.findall(r"`(?:\w+\.)?(\w+)\(", " ".join(row[at] for row in rows)))
        assert not {name for name in theirs if not re.search(rf"(def|class) {name}\b", source)}


def coming_from_the_sdk() -> list[tuple[str, str]]:
    """Return the rows of the tables for people who come from the official SDK."""
    section = (
        (DOCS / "claude.md").read_text("utf-8").partition("## Coming from the official SDK")[2]
    )
    return re.findall(r"^\| ([^-|].*?) \| (.*) \|$", section, re.MULTILINE)


def test_the_tables_for_people_from_the_sdk_name_what_is_there_on_both_sides() -> None:
    rows = coming_from_the_sdk()
    assert len(rows) > 25
    sdk = find_spec("anthropic")
    assert sdk is not None
    assert sdk.origin is not None
    exported = Path(sdk.origin).read_text("utf-8")  # importing it takes seconds
    theirs = set(re.findall(r"`(\w+Error)`", " ".join(left for left, _ in rows)))
    assert theirs
    assert not {name for name in theirs if f'"{name}"' not in exported}
    right = " ".join(ours for _, ours in rows)
    classes = set(re.findall(r"`([A-Z]\w+)", right)) - {"Struct"}
    assert not classes - {*llm_integrations.anthropic.__all__, *errors.__all__}
    client = llm_integrations.anthropic.AnthropicClient
    assert not {name for name in re.findall(r"client\.(\w+)", right) if not hasattr(client, name)}
