"""`gateway`: Claude's API at a local address, with limits, budgets and the ledger in between."""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from llm_integrations._core.codec import encode
from llm_integrations.cli.waiting import stop_signals
from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_integrations.governance import Budget
    from llm_integrations.service.gateway import GatewayOptions

__all__ = ["Wanted", "gateway"]

_PORT: Final = 8088
_IDLE_S: Final = 75  # longer than clients keep theirs: a call must not meet the end of a connection
_TOKEN: Final = "GATEWAY_TOKEN"  # noqa: S105 - the variable's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the gateway is to be: the options of the command."""

    port: int = _PORT
    "0 takes any free one."

    host: str = "127.0.0.1"
    "The address to listen on; another than loopback needs --expose."

    expose: bool = False
    "Listen where other machines can reach it. It speaks no TLS: put a proxy before it."

    name: Annotated[tuple[str, ...], Parameter(negative_iterable=())] = ()
    "A further name under which it may be asked for; can be given several times."

    ledger: str | None = None
    """Where the books are: sqlite:///FILE, postgresql://... or memory:. Without it a file in your
    state folder."""

    budget: Annotated[tuple[str, ...], Parameter(negative_iterable=())] = ()
    """USD per minute, hour, day, week, month or total, like 5/day; 1/day/team is one for each value
    of the tag. Can be given several times; stays until replaced."""

    upstream: str = "https://api.anthropic.com"
    "The API, or another gateway of it."

    key_from_env: bool = False
    """Use ANTHROPIC_API_KEY of this process instead of each caller's own key. With GATEWAY_TOKEN
    set, callers show that in place of a key; exposed, it must be set."""

    drain_s: int = 30
    "Seconds that running calls have to end in when it stops."

    verbose: bool = False
    "Log every call."

    json: bool = False
    "Print where it is as a JSON object."


def gateway(wanted: Annotated[Wanted | None, Parameter(name="*")] = None) -> int:
    """Stand between any program and Claude's API: budgets, limits and an exact ledger.

    Point a program at it with `ANTHROPIC_BASE_URL`; nothing else of the program changes. It passes
    messages (plain and streamed), count_tokens, batches and models, byte for byte. What a budget
    cannot pay for is refused before it is sent, as an error that the official SDKs do not repeat.
    A header `X-LLM-Tags: team=a, issue=ABC-1` tags a call in the ledger, and goes no further.
    Needs no service and no PostgreSQL. Ctrl-C or SIGTERM lets running calls end.

    For example:

    - `llm-integrations gateway --budget 5/day`
    - `llm-integrations gateway --budget 20/month --budget 1/day/team --ledger sqlite:///costs.db`
    - `ANTHROPIC_BASE_URL=http://127.0.0.1:8088 python your_program.py`
    - `GATEWAY_TOKEN=... llm-integrations gateway --key-from-env --host 0.0.0.0 --expose --name llm`

    Args:
        wanted: What it is to be.
    """
    from llm_integrations.service.loop import run

    wanted = wanted or Wanted()
    if not 0 <= wanted.port <= 65_535 or wanted.drain_s < 0:
        raise ConfigError("--port is from 0 to 65535, and --drain-s not below 0")
    if not wanted.expose and not _is_loopback(wanted.host):
        raise ConfigError(
            f"--host {wanted.host} can be reached by other machines: say --expose if it should be"
        )
    options = _options(wanted)
    if wanted.expose and wanted.key_from_env and not options.token:
        raise ConfigError(
            f"exposed with a key of its own, the gateway needs {_TOKEN}: without it whoever reaches"
            " it could spend your money"
        )
    budgets = [_parse_budget(each) for each in wanted.budget]
    ledger = wanted.ledger or _default_ledger()
    return run(_serve(wanted, options, ledger, budgets))


async def _serve(
    wanted: Wanted, options: GatewayOptions, ledger: str, budgets: Sequence[Budget]
) -> int:
    """Serve until a signal comes."""
    from llm_integrations._core.clock import SystemClock
    from llm_integrations._core.http import AiohttpTransport
    from llm_integrations.governance import Governor
    from llm_integrations.service.gateway import Gateway
    from llm_integrations.service.listener import listening

    with stop_signals() as stop:
        async with (
            Governor.open(ledger, budgets=budgets or None) as governor,
            AiohttpTransport(trust_env=True) as transport,
        ):
            served = Gateway(governor, options, transport=transport, clock=SystemClock())
            listener = listening(
                served,
                host=wanted.host,
                port=wanted.port,
                setting="--port",
                goodbye_s=wanted.drain_s,
                idle_s=_IDLE_S,
                answers_half_closed=False,
            )
            async with listener as base_url:
                _log_to_stderr(verbose=wanted.verbose)
                _introduce(base_url, options, ledger, json=wanted.json)
                await stop.wait()
                if not wanted.json:
                    print("stopping: running calls may end", flush=True)
    return 0


def _log_to_stderr(*, verbose: bool) -> None:
    """Send warnings of every library to stderr, and each call where that is wanted."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if verbose:
        logging.getLogger("llm_integrations").setLevel(logging.DEBUG)


def _introduce(base_url: str, options: GatewayOptions, ledger: str, *, json: bool) -> None:
    """Say where it is, and what it is about."""
    books = ledger if ledger.startswith("sqlite:") else ledger.partition(":")[0]
    keys = "each caller's own"
    if options.credentials:
        keys = f"this process's; callers show {_TOKEN}" if options.token else "this process's"
    if json:
        place = {"gateway": base_url, "upstream": options.upstream, "ledger": books, "keys": keys}
        print(encode(place).decode(), flush=True)
        return
    print(f"gateway to {options.upstream} at {base_url}, until Ctrl-C. To use it:")
    print(f"  export ANTHROPIC_BASE_URL={base_url}")
    print(f"keys      {keys}")
    print(f"ledger    {books}", flush=True)


def _options(wanted: Wanted) -> GatewayOptions:
    from llm_integrations._core.config import Secret
    from llm_integrations.anthropic import AnthropicConfig
    from llm_integrations.service.gateway import GatewayOptions

    credentials = {}
    if wanted.key_from_env:
        headers = AnthropicConfig.from_env().request_headers()
        credentials = {"authorization": headers["authorization"]}
    token = Secret(os.environ.get(_TOKEN, "").strip())
    return GatewayOptions(
        upstream=wanted.upstream,
        credentials=credentials,
        token=token,
        hosts=(wanted.host, *wanted.name),
    )


def _parse_budget(text: str) -> Budget:
    """Read `5/day` or `1/day/team`."""
    from llm_integrations.governance import Budget
    from llm_integrations.service.gateway.door import is_tag_name

    usd, _, rest = text.partition("/")
    window, names_tag, tag = rest.partition("/")
    if not window:
        raise ConfigError(f"--budget {text}: write USD per window, like 5/day or 1/day/team")
    if names_tag and not is_tag_name(tag):
        raise ConfigError(
            f"--budget {text}: no call can have a tag {tag!r}, so it would never refuse one: names"
            " in X-LLM-Tags have small letters, digits, `_`, `.` and `-`"
        )
    name = f"gateway-{window}" + (f"-{tag}" if tag else "")
    return Budget(name, usd=usd, window=window, by=tag or None)  # type: ignore[arg-type]  # it checks


def _default_ledger() -> str:
    """Return a file in the user's state folder, which is made where it is missing."""
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        home = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
        folder = home / "llm-integrations"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        raise ConfigError("no state folder for the ledger: set HOME, or give --ledger") from None
    return f"sqlite:///{folder / 'gateway.db'}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
