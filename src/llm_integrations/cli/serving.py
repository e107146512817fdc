"""`serve`, `pause` and `resume`: the service itself, and its switch."""

from __future__ import annotations

import asyncio
import getpass
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Literal

from llm_integrations.cli.books import open_books
from llm_integrations.cli.failures import complain
from llm_integrations.cli.printing import describe_pause
from llm_integrations.cli.reading import SettingsFile, load
from llm_integrations.cli.waiting import stop_signals, unless

if TYPE_CHECKING:
    from llm_integrations.service import App
    from llm_integrations.service.app import Role, Running
    from llm_integrations.service.settings import Settings
    from llm_integrations.store.delivery_records import Pause

__all__ = ["pause", "resume", "serve"]


def serve(
    *,
    role: Literal["all", "receiver", "worker"] = "all",
    settings: SettingsFile = None,
    verbose: bool = False,
) -> int:
    """Take webhooks in, let Claude work on the issues, and write the results back.

    Starts as a dry run: nothing is written to Jira until the settings say `mode = "apply"`.
    Prints its addresses on stdout and logs to stderr, as JSON where that is no terminal. Ctrl-C or
    SIGTERM lets running handlers finish; what is left goes on at the next start.

    For example:

    - `llm-integrations serve`
    - `llm-integrations serve --settings production.toml --role worker`

    Args:
        role: Only take in, only work, or both.
        settings: The TOML file.
        verbose: Log every attempt of every call.
    """
    from llm_integrations.service.settings import check_complete

    loaded, where = load(settings)
    check_complete(loaded, where=str(where))

    from llm_integrations.cli.logs import log_to_stderr
    from llm_integrations.service import App
    from llm_integrations.service.loop import run

    log_to_stderr(verbose=verbose)
    return run(_serve(App(loaded, progress=complain), loaded, role))


def pause(*, reason: str = "", settings: SettingsFile = None) -> int:
    """Stop all handlers and writes of the whole fleet; webhooks are still taken in.

    Handlers that run may end; none of what they decide is written. A write that was sent already
    ends by itself.

    For example: `llm-integrations pause --reason "Jira upgrade"`, and later
    `llm-integrations resume`.

    Args:
        reason: Why, for whoever looks at the console meanwhile.
        settings: The TOML file.
    """

    async def switch() -> None:
        async with open_books(load(settings)[0]) as books:
            await books.deliveries.pause(by=_who(), reason=reason)

    asyncio.run(switch())
    print("paused: nothing is handled or written until `llm-integrations resume`")
    return 0


def resume(*, settings: SettingsFile = None) -> int:
    """Undo `pause`: what waited is handled now, in order.

    For example: `llm-integrations resume --settings production.toml`
    """

    async def switch() -> Pause | None:
        async with open_books(load(settings)[0]) as books:
            pause = await books.deliveries.load_pause()
            await books.deliveries.resume()
            return pause

    was = asyncio.run(switch())
    print(f"resumed: {describe_pause(was)}" if was else "it was not paused")
    return 0


def _who() -> str:
    """Return who types this, for people; no proof of anything."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user id without a name, as in containers
        return socket.gethostname()


async def _serve(app: App, settings: Settings, role: Role) -> int:
    """Run the service until a signal comes; one that comes while it starts ends the start."""
    with stop_signals() as stop:
        async with AsyncExitStack() as stack:
            service = app.running(role, console=role != "worker")
            running = await unless(stop, stack.enter_async_context(service))
            if running is None:
                print("stopped before it had begun", flush=True)
                return 0
            for line in _introduction(running, settings):
                print(line, flush=True)
            await stop.wait()
            print("stopping: running handlers may finish", flush=True)
    return 0


def _introduction(running: Running, settings: Settings) -> list[str]:
    """Say where everything is."""
    lines = [f"database  {running.books.location}"]
    if running.receiver_url:
        lines += [
            f"webhooks  {running.receiver_url}/webhooks/jira/{name}" for name in settings.sites
        ]
    if running.executor_id:
        projects = {key for site in settings.sites.values() for key in site.projects}
        lines.append(f"worker    {running.executor_id}")
        lines.append(f"projects  {', '.join(sorted(projects)) or 'none: set sites.*.projects'}")
    if running.console_url:
        lines.append(f"console   {running.console_url}")
    if running.metrics_url:
        lines.append(f"metrics   {running.metrics_url}/metrics")
    if settings.mode == "dry-run":
        lines.append('mode      DRY RUN: nothing is written to Jira; mode = "apply" changes that')
    else:
        lines.append("mode      apply: allowed actions are written to Jira")
    return lines
