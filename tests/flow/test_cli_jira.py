"""`llm-integrations jira …` as people run it, against the simulator."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from llm_integrations.cli.jira import files, hooks
from llm_integrations.errors import ConfigError
from llm_integrations.jira import BasicAuth, FileGrants, JiraClient, JiraConfig
from llm_integrations.simulators import JiraSimulator
from llm_integrations.simulators.faults import StatusError
from tests.flow.test_cli import Ended, ended, start
from tests.flow.test_jira_openapi import logged_in

SMALL_DISK = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
runpy.run_module("llm_integrations", run_name="__main__", alter_sys=True)
"""
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
async def site() -> AsyncIterator[JiraSimulator]:
    async with JiraSimulator(latency_ms=(0, 0)) as simulator:
        yield simulator


async def jira(
    site: JiraSimulator, *words: str, cwd: Path, text: str = "", **environ: str
) -> Ended:
    told = {
        "JIRA_BASE_URL": site.base_url,
        "JIRA_EMAIL": "bot@example.com",
        "JIRA_API_TOKEN": "token",
    }
    return await ended(await start("jira", *words, cwd=cwd, **(told | environ)), text)


async def test_an_issue_is_created_read_commented_moved_and_found(
    site: JiraSimulator, tmp_path: Path
) -> None:
    made = await jira(
        site,
        *("create", "DEMO", "Login \x1b[31mfails", "--type", "Bug", "--label", "urgent"),
        *("--description", "-"),
        cwd=tmp_path,
        text="It **fails**.",
    )
    assert made.code == 0, made.err
    key = made.out.strip()
    assert site.issues[key].issuetype == "Bug"

    shown = await jira(site, "get", key, cwd=tmp_path)
    assert "It **fails**." in shown.out
    assert "urgent" in shown.out
    assert "\x1b" not in shown.out
    raw = await jira(site, "get", key, "--json", cwd=tmp_path)
    assert json.loads(raw.out)["fields"]["labels"] == ["urgent"]

    said = await jira(site, "comment", key, cwd=tmp_path, text="Seen.")
    assert [comment.id for comment in site.comments(key)] == [said.out.strip()]

    moved = await jira(site, "transition", key, "in progress", cwd=tmp_path)
    assert (moved.code, moved.out) == (0, f"{key}: In Progress\n")
    lost = await jira(site, "transition", key, "Nowhere", cwd=tmp_path)
    assert (lost.code, lost.out) == (1, "")
    assert "no way leads to Nowhere" in lost.complaint

    found = await jira(site, "search", f"key = {key}", cwd=tmp_path)
    assert found.out.splitlines()[1].startswith(key)
    listed = await jira(site, "search", "project = DEMO", "--limit", "2", "--json", cwd=tmp_path)
    assert len(json.loads(listed.out)) == 2


async def test_issues_that_came_are_shown_though_their_count_does_not_come(
    site: JiraSimulator, tmp_path: Path
) -> None:
    words = ("search", "project = DEMO ORDER BY key", "--limit", "2")
    counted = await jira(site, *words, cwd=tmp_path)
    assert re.fullmatch(r"2 of about \d+; --limit shows more\n", counted.err)
    site.fail_next(StatusError(status=403), path="/search/approximate-count")
    uncounted = await jira(site, *words, cwd=tmp_path)
    assert (uncounted.code, uncounted.out) == (0, counted.out), uncounted.err
    assert "2 issues; how many more there are is not known: " in uncounted.complaint


async def test_a_comment_may_begin_with_a_hyphen_and_no_mistyped_option_becomes_one(
    site: JiraSimulator, tmp_path: Path
) -> None:
    before = len(site.comments("DEMO-1"))
    for words in (["- a\n- b"], ["--json", "--- a"], ["-1"]):
        made = await jira(site, "comment", "DEMO-1", *words, cwd=tmp_path)
        assert made.code == 0, made.err
    mistyped = await jira(site, "comment", "DEMO-1", "--jsn", cwd=tmp_path)
    assert (mistyped.code, mistyped.out) == (2, "")
    assert "Unknown option: --jsn" in mistyped.complaint
    assert len(site.comments("DEMO-1")) == before + 3


async def test_what_is_no_text_on_stdin_is_marked_and_not_an_error(
    site: JiraSimulator, tmp_path: Path
) -> None:
    told = {"text": "caf\u00e9", "PYTHONIOENCODING": "ascii:strict"}
    made = await jira(site, "comment", "DEMO-1", cwd=tmp_path, **told)
    assert made.code == 0, made.err
    async with JiraClient(JiraConfig(site.base_url, BasicAuth("bot@example.com", "t"))) as client:
        comment = await client.get_comment("DEMO-1", made.out.strip())
    assert comment.body_markdown == "caf\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


async def test_what_several_files_became_is_one_list_of_json(
    site: JiraSimulator, tmp_path: Path
) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    made = await jira(site, "attach", "DEMO-1", "a.txt", "b.txt", "--json", cwd=tmp_path)
    assert [each["filename"] for each in json.loads(made.out)] == ["a.txt", "b.txt"]
    words = ("attach", "DEMO-1", "a.txt", "/proc/self/mem", "--json")
    cut = await jira(site, *words, cwd=tmp_path)
    assert cut.code == 2
    assert [each["filename"] for each in json.loads(cut.out)] == ["a.txt"]


async def test_what_is_no_key_is_refused_before_a_request(
    site: JiraSimulator, tmp_path: Path
) -> None:
    refused = await jira(site, "get", "../x", cwd=tmp_path)
    assert refused.code == 1
    assert "a key such as ABC-1" in refused.complaint
    assert not site.requests


async def test_missing_settings_are_one_line_that_names_them(
    site: JiraSimulator, tmp_path: Path
) -> None:
    missing = await jira(site, "get", "DEMO-1", cwd=tmp_path, JIRA_API_TOKEN="")
    assert missing.code == 2
    assert "JIRA_API_TOKEN" in missing.complaint


async def test_an_export_that_was_killed_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    async with JiraSimulator(latency_ms=(30, 30)) as site:
        for number in range(260):
            await site.create_issue(project="DEMO", summary=f"Number {number}")
        whole = await jira(site, "export", "DEMO", "--to", "whole.jsonl", cwd=tmp_path)
        assert whole.code == 0, whole.err
        told = {
            "JIRA_BASE_URL": site.base_url,
            "JIRA_EMAIL": "bot@example.com",
            "JIRA_API_TOKEN": "token",
        }
        part = tmp_path / "cut.jsonl.part"
        process = await start("jira", "export", "DEMO", "--to", "cut.jsonl", cwd=tmp_path, **told)
        while not (part.exists() and part.stat().st_size):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        part.write_bytes(part.read_bytes()[:-7])  # a line that was not finished
        resumed = await jira(site, "export", "DEMO", "--to", "cut.jsonl", "--json", cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    told_of = json.loads(resumed.out)
    assert 0 < told_of["fetched_now"] < told_of["issues"]
    lines = (tmp_path / "whole.jsonl").read_bytes()
    assert (tmp_path / "cut.jsonl").read_bytes() == lines
    assert len(lines.splitlines()) == told_of["issues"] >= 260


async def test_a_complete_export_is_not_overwritten_unasked(
    site: JiraSimulator, tmp_path: Path
) -> None:
    first = await jira(site, "export", "OPS", "--to", "a.jsonl", cwd=tmp_path)
    assert first.code == 0, first.err
    again = await jira(site, "export", "OPS", "--to", "a.jsonl", cwd=tmp_path)
    assert again.code == 2
    assert "--restart" in again.complaint
    anew = await jira(site, "export", "OPS", "--to", "a.jsonl", "--restart", cwd=tmp_path)
    assert anew.code == 0
    nowhere = await jira(site, "export", "OPS", "--to", "no/such/file", cwd=tmp_path)
    assert nowhere.code == 2


async def test_an_export_ends_though_the_count_of_its_issues_does_not_come(
    site: JiraSimulator, tmp_path: Path
) -> None:
    counted = await jira(site, "export", "OPS", "--to", "a.jsonl", cwd=tmp_path)
    site.fail_next(StatusError(status=403), path="/search/approximate-count")
    uncounted = await jira(site, "export", "OPS", "--to", "b.jsonl", cwd=tmp_path)
    assert uncounted.code == 0, uncounted.err
    assert uncounted.out == counted.out.replace("a.jsonl", "b.jsonl")
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


async def test_an_export_goes_on_though_the_last_issue_it_wrote_is_gone(
    site: JiraSimulator, tmp_path: Path
) -> None:
    whole = await jira(site, "export", "DEMO", "--to", "whole.jsonl", cwd=tmp_path)
    assert whole.code == 0, whole.err
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    for gone, kept in ([1, 2], [0]), ([0], []):
        part = tmp_path / "cut.jsonl.part"
        deleted = [lines[at].replace(b'"DEMO-', b'"DEMO-9') for at in gone]
        part.write_bytes(b"".join([lines[at] for at in kept] + deleted))
        resumed = await jira(site, "export", "DEMO", "--to", "cut.jsonl", cwd=tmp_path)
        assert resumed.code == 0, resumed.err
        assert (tmp_path / "cut.jsonl").read_bytes() == b"".join(lines)
        (tmp_path / "cut.jsonl").unlink()
    many = "".join(f'{{"id":"1","key":"DEMO-{900 + number}"}}\n' for number in range(21))
    (tmp_path / "cut.jsonl.part").write_text(many)
    lost = await jira(site, "export", "DEMO", "--to", "cut.jsonl", cwd=tmp_path)
    assert (lost.code, lost.out) == (2, "")
    assert "the last 20 issues in cut.jsonl.part are gone; --restart" in lost.complaint


async def test_an_export_does_not_go_on_in_that_of_another_project(
    site: JiraSimulator, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl.part").write_text('{"id":"1","key":"OPS-1"}\n')
    end = await jira(site, "export", "DEMO", "--to", "a.jsonl", cwd=tmp_path)
    assert (end.code, end.out) == (2, "")
    assert "a.jsonl.part holds issues of OPS; --restart" in end.complaint


@pytest.mark.parametrize("line", ["no issue\n", '{"id":"1"}\n', "[]\n"])
async def test_an_unfinished_file_that_is_no_export_is_left_alone(
    site: JiraSimulator, tmp_path: Path, line: str
) -> None:
    part = tmp_path / "demo.jsonl.part"
    part.write_text(line)
    end = await jira(site, "export", "DEMO", "--to", "demo.jsonl", cwd=tmp_path)
    assert (end.code, end.out) == (2, "")
    assert "demo.jsonl.part holds no export of issues; --restart" in end.complaint
    assert part.read_text() == line


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (("export", "DEMO", "--to", "demo.jsonl"), "demo.jsonl.part"),
        (("download", "ATTACHED", "--to", "copy.bin"), "copy.bin"),
    ],
)
async def test_a_disk_that_is_full_is_named_by_its_file_and_not_as_standard_output(
    site: JiraSimulator, tmp_path: Path, words: tuple[str, ...], file: str
) -> None:
    (tmp_path / "whole.bin").write_bytes(b"x" * 10_000)
    attached = await jira(site, "attach", "DEMO-1", "whole.bin", cwd=tmp_path)
    number = attached.out.strip()
    full = await start(
        "jira",
        *(number if word == "ATTACHED" else word for word in words),
        cwd=tmp_path,
        program=SMALL_DISK,
        COVERAGE_PROCESS_CONFIG="",  # what it covers finds no room either, and it would say so
        COVERAGE_PROCESS_START="",
        JIRA_BASE_URL=site.base_url,
        JIRA_EMAIL="bot@example.com",
        JIRA_API_TOKEN="token",
    )
    end = await ended(full)
    assert (end.code, end.out) == (2, "")
    assert end.complaint == f"llm-integrations: cannot write {file}: File too large"


async def test_a_name_that_is_too_long_for_the_disk_is_not_taken(
    site: JiraSimulator, tmp_path: Path
) -> None:
    async with JiraClient(JiraConfig(site.base_url, BasicAuth("bot@example.com", "t"))) as client:
        (attached,) = await client.add_attachment("DEMO-1", b"x", filename="漢" * 90)
    end = await jira(site, "download", str(attached.id), cwd=tmp_path)
    assert (end.code, end.out) == (0, f"attachment-{attached.id}\n"), end.err


@pytest.mark.parametrize(
    "words",
    [
        ("export", "DEMO", "--to", "x" * 300),
        ("download", "1", "--to", "x" * 300),
        ("attach", "DEMO-1", "x" * 300),
        ("export", "DEMO", "--to", ".", "--restart"),
    ],
)
async def test_a_path_that_cannot_be_is_one_line(
    site: JiraSimulator, tmp_path: Path, words: tuple[str, ...]
) -> None:
    async with JiraClient(JiraConfig(site.base_url, BasicAuth("bot@example.com", "t"))) as client:
        (attached,) = await client.add_attachment("DEMO-1", b"x", filename="x")
    told = [str(attached.id) if word == "1" else word for word in words]
    end = await jira(site, *told, cwd=tmp_path)
    assert (end.code, end.out) == (2, "")
    assert re.search("File name too long|is a folder", end.complaint)
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


async def test_a_file_that_cannot_be_read_is_named(site: JiraSimulator, tmp_path: Path) -> None:
    end = await jira(site, "attach", "DEMO-1", "/proc/self/mem", cwd=tmp_path)
    assert (end.code, end.out) == (2, "")
    assert "cannot read /proc/self/mem" in end.complaint


async def test_webhooks_are_registered_listed_and_deleted(
    site: JiraSimulator, tmp_path: Path
) -> None:
    url = "http://127.0.0.1:1/webhooks/jira/main"
    refused = await jira(site, "webhooks", "register", url, cwd=tmp_path)
    assert "JIRA_WEBHOOK_SECRET" in refused.complaint
    both = await jira(site, "webhooks", "register", url, cwd=tmp_path, JIRA_WEBHOOK_SECRET="new,o")
    assert (both.code, "two secrets" in both.complaint) == (2, True)
    made = await jira(
        site, "webhooks", "register", url, "--json", cwd=tmp_path, JIRA_WEBHOOK_SECRET=SECRET
    )
    (hook,) = json.loads(made.out)
    assert (hook["url"], hook["enabled"], hook["isSigned"]) == (url, True, True)
    number = hook["id"]
    assert SECRET not in made.out
    listed = await jira(site, "webhooks", "list", cwd=tmp_path)
    assert url in listed.out
    gone = await jira(site, "webhooks", "delete", number, cwd=tmp_path)
    assert gone.code == 0
    assert json.loads((await jira(site, "webhooks", "list", "--json", cwd=tmp_path)).out) == []


async def test_a_login_catches_the_redirect_and_keeps_the_grant(
    site: JiraSimulator, tmp_path: Path
) -> None:
    key = (await jira(site, "login", "--new-key", cwd=tmp_path)).out.strip()
    environ = {
        "JIRA_BASE_URL": site.base_url,
        "JIRA_OAUTH_CLIENT_ID": "app",
        "JIRA_OAUTH_CLIENT_SECRET": "app-secret",
        "JIRA_OAUTH_URL": site.base_url,
        "JIRA_GRANT_FOLDER": str(tmp_path / "grants"),
        "JIRA_GRANT_KEY": key,
    }
    process = await start("jira", "login", "--no-browser", cwd=tmp_path, **environ)
    assert process.stderr is not None
    await process.stderr.readline()
    page = (await process.stderr.readline()).decode().strip()
    async with aiohttp.ClientSession() as browser:
        back = (await browser.get(page, allow_redirects=False)).headers["Location"]
        address = urlsplit(back)
        ahead = await asyncio.open_connection(address.hostname, address.port)  # as Chrome does
        forged = re.sub("state=[^&]*", "state=forged", back)
        assert (await browser.get(forged)).status == 400
        assert (await browser.get(back.replace("/callback", "/other"))).status == 404
        assert (await browser.get(back)).status == 200
    found = await ended(process)
    ahead[1].close()
    assert (found.code, found.out) == (0, "logged in as Automation service\n"), found.err
    assert found.err == ""
    shown = await ended(await start("jira", "get", "DEMO-1", cwd=tmp_path, **environ))
    assert shown.code == 0, shown.err
    assert "/ex/jira/" in site.requests[-1].path


async def test_a_file_is_attached_and_fetched_under_a_name_that_harms_nothing(
    site: JiraSimulator, tmp_path: Path
) -> None:
    sent = tmp_path / "trace.log"
    sent.write_bytes(b"lines")
    made = await jira(site, "attach", "DEMO-1", "trace.log", cwd=tmp_path)
    (file,) = site.attachments("DEMO-1")
    assert (made.code, made.out) == (0, f"{file.id}\n"), made.err
    there = await jira(site, "download", file.id, cwd=tmp_path)
    assert (there.code, "--overwrite" in there.complaint) == (2, True)
    told = {"id": 1, "filename": "../../.bashrc", "size": 5}
    site.fail_next(StatusError(status=200, body=told), path="attachment")
    forged = await jira(site, "download", file.id, "--json", cwd=tmp_path)
    assert forged.code == 0, forged.err
    assert json.loads(forged.out)["path"] == f"attachment-{file.id}"
    assert (tmp_path / f"attachment-{file.id}").read_bytes() == b"lines"


async def test_an_application_registers_refreshes_and_deletes_its_webhooks(
    site: JiraSimulator, tmp_path: Path
) -> None:
    key = FileGrants.generate_key()
    app = await logged_in(site, tmp_path / "grants", key=key)
    environ = {
        "JIRA_OAUTH_CLIENT_ID": app.client_id,
        "JIRA_OAUTH_CLIENT_SECRET": app.client_secret,
        "JIRA_OAUTH_URL": site.base_url,
        "JIRA_GRANT_FOLDER": str(tmp_path / "grants"),
        "JIRA_GRANT_KEY": key,
    }
    words = ("webhooks", "register", "https://me.example/hook", "--dynamic")
    made = await jira(site, *words, "--jql", "project = DEMO", "--json", cwd=tmp_path, **environ)
    assert made.code == 0, made.err
    (hook,) = json.loads(made.out)
    assert hook["jql"] == "project = DEMO"
    longer = await jira(site, "webhooks", "refresh", "--json", cwd=tmp_path, **environ)
    assert json.loads(longer.out)["ids"] == [hook["id"]]
    gone = await jira(
        site, "webhooks", "delete", str(hook["id"]), "--dynamic", cwd=tmp_path, **environ
    )
    assert gone.code == 0, gone.err


def test_what_a_command_lacks_is_said_before_a_client_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one file"):
        files.attach("DEMO-1")
    with pytest.raises(ConfigError, match=r"none\.log; nothing was attached"):
        files.attach("DEMO-1", tmp_path / "none.log")
    with pytest.raises(ConfigError, match="--jql"):
        hooks.register("https://me.example", dynamic=True)
    with pytest.raises(ConfigError, match="--dynamic"):
        hooks.register("https://me.example", field=("summary",))
    with pytest.raises(ConfigError, match="number"):
        hooks.delete("x", dynamic=True)


async def test_a_login_without_an_application_and_a_call_without_a_login_say_what_to_do(
    site: JiraSimulator, tmp_path: Path
) -> None:
    without = await jira(site, "login", cwd=tmp_path)
    assert without.code == 2
    assert "JIRA_OAUTH_CLIENT_ID" in without.complaint
    environ = {
        "JIRA_OAUTH_CLIENT_ID": "app",
        "JIRA_OAUTH_CLIENT_SECRET": "app-secret",
        "JIRA_GRANT_FOLDER": str(tmp_path / "grants"),
        "JIRA_GRANT_KEY": FileGrants.generate_key(),
    }
    early = await jira(site, "get", "DEMO-1", cwd=tmp_path, **environ)
    assert early.code == 2
    assert early.complaint.endswith("run `llm-integrations jira login`")
