"""Commands that need no key and no network: the demo, and the two simulators on their own."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from llm_integrations.cli.waiting import stop_signals
from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from llm_integrations.simulators import ClaudeSimulator, JiraSimulator

__all__ = ["demo", "simulate"]

_PORTS: Final = {"jira": 8090, "claude": 8091}


def demo(
    *,
    seed: int = 0,
    keep: bool = False,
    payloads: Path | None = None,
    plain: bool = False,
    json: bool = False,
) -> int:
    """Play thirty tickets through the whole service, offline, and judge every promise.

    Starts PostgreSQL, both simulators and the service by itself; takes under a minute.
    Exits with 1 and names the promise when one was not kept.

    For example:

    - `llm-integrations demo`
    - `llm-integrations demo --seed 7 --keep`
    - `llm-integrations demo --payloads recorded/webhooks`

    Args:
        seed: Another day: other tickets, another order, another crash.
        keep: Leave everything running at the end, and print the console's address.
        payloads: Play the recorded webhook bodies of this folder instead.
        plain: Print lines, as without a terminal.
        json: Print the result as one JSON object.
    """
    from llm_integrations.demo import DemoOptions, run

    options = DemoOptions(seed=seed, keep=keep, payloads=payloads, plain=plain, json=json)
    return asyncio.run(run(options))


def simulate(
    which: Literal["jira", "claude"],
    /,
    *,
    port: int | None = None,
    seed: int | None = None,
    webhook: str | None = None,
    secret: str | None = None,
    json: bool = False,
) -> int:
    """Run one simulator until Ctrl-C, on a loopback port.

    It answers like the real service, to any credentials that are not empty.

    For example:

    - `llm-integrations simulate claude`
    - `llm-integrations simulate jira --port 0 --json`
    - `llm-integrations simulate jira --webhook http://127.0.0.1:8080/webhooks/jira/jira --secret s`

    Args:
        which: The service to be.
        port: 0 takes any free one; without it 8090 (Jira) or 8091 (Claude).
        seed: Decides ids, counts and what the records say. Without it the webhooks of each run are
            new ones, which a service that heard of the last run does not take for repeats.
        webhook: Jira only: where it sends its events.
        secret: Jira only: what it signs them with.
        json: Print address and seed as a JSON object.
    """
    from llm_integrations.simulators import ClaudeSimulator, JiraSimulator

    wanted = _PORTS[which] if port is None else port
    if which == "jira":
        seed = secrets.randbits(32) if seed is None else seed
        jira = JiraSimulator(seed=seed, port=wanted)
        if webhook is not None:
            jira.subscribe(webhook, secret=secret)
        return asyncio.run(_keep_running(jira, which, wanted, seed, json=json))
    seed = seed or 0
    claude = ClaudeSimulator(seed=seed, port=wanted)
    return asyncio.run(_keep_running(claude, which, wanted, seed, json=json))


async def _keep_running(
    simulator: ClaudeSimulator | JiraSimulator, which: str, port: int, seed: int, *, json: bool
) -> int:
    """Serve until a signal comes."""
    with stop_signals() as stop:
        try:
            await simulator.start()
        except OSError as error:
            message = f"port {port} cannot be used ({error.strerror}): choose one with --port"
            raise ConfigError(message) from None
        except OverflowError:
            raise ConfigError(f"{port} is no port; they are 0 to 65535") from None
        try:
            _introduce(which, simulator.base_url, seed, json=json)
            await stop.wait()
        finally:
            await simulator.stop()
    return 0


def _introduce(which: str, base_url: str, seed: int, *, json: bool) -> None:
    """Say where the simulator is and how to use it."""
    if json:
        print(f'{{"simulator":"{which}","base_url":"{base_url}","seed":{seed}}}', flush=True)
        return
    print(f"{which} simulator at {base_url} (--seed {seed}), until Ctrl-C. To use it:")
    if which == "jira":
        print(f"  export JIRA_BASE_URL={base_url} JIRA_EMAIL=me@example.com JIRA_API_TOKEN=any")
        print('  llm-integrations serve   # or curl -u "$JIRA_EMAIL:any" …/rest/api/3/issue/DEMO-1')
    else:
        print(f"  export ANTHROPIC_BASE_URL={base_url} ANTHROPIC_API_KEY=any")
        print('  llm-integrations ask "Say hello."')
    print(end="", flush=True)
