"""`ask`: one prompt to Claude, the answer as it comes, and what it cost."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from llm_integrations.cli.failures import FAILED, OK
from llm_integrations.cli.printing import exact_usd, print_json, printable
from llm_integrations.cli.reading import Text, read_text

if TYPE_CHECKING:
    from llm_integrations.anthropic import CostLine, MessageRequest, MessageResponse, MessageStream

__all__ = ["ask"]

_MODEL: Final = "claude-haiku-5-5"


def ask(
    prompt: Text = None,
    /,
    *,
    model: str | None = None,
    system: str | None = None,
    max_tokens: int = 4_096,
    json: bool = False,
) -> int:
    """Ask Claude one thing; the answer streams to stdout, tokens and exact cost to stderr.

    Needs `ANTHROPIC_API_KEY` only; `ANTHROPIC_BASE_URL` and `ANTHROPIC_MODEL` are optional.

    For example:

    - `llm-integrations ask "Why is the sky blue?"`
    - `git diff | llm-integrations ask --system "Review this diff." --model opus`

    Args:
        prompt: What to ask, which may begin with a hyphen; without it stdin is read.
        model: A model's id, or a loose name like "haiku 5.5".
        system: The system prompt.
        max_tokens: How long the answer may get.
        json: Print answer, usage and cost as one JSON object instead.
    """
    from llm_integrations.anthropic import ClaudeModel, Message, MessageRequest

    text = read_text(prompt, command="ask")
    request = MessageRequest(
        model=ClaudeModel.parse(model or os.environ.get("ANTHROPIC_MODEL") or _MODEL),
        max_tokens=max_tokens,
        messages=[Message.user(text)],
    )
    if system is not None:
        request = msgspec.structs.replace(request, system=system)
    return asyncio.run(_ask(request, json=json))


async def _ask(request: MessageRequest, *, json: bool) -> int:
    """Send the request and print what comes."""
    from llm_integrations.anthropic import AnthropicClient, AnthropicConfig

    async with AnthropicClient(AnthropicConfig.from_env()) as client:
        async with client.stream_message(request) as stream:
            if not json:
                await _print_text(stream)
            message = await stream.message()
        spent = client.get_cost_stats().total
    if json:
        print_json(_as_data(message, spent))
    else:
        print(_summary(message, spent), file=sys.stderr)
    return OK if message.stop_reason != "refusal" else FAILED


async def _print_text(stream: MessageStream) -> None:
    """Print the text as it comes; only a terminal has to be kept from control characters."""
    keep = printable if sys.stdout.isatty() else str
    async for piece in stream.text():
        print(keep(piece), end="", flush=True)
    print(flush=True)


def _as_data(message: MessageResponse, spent: CostLine) -> dict[str, object]:
    return {
        "model": message.model,
        "text": message.text,
        "stop_reason": message.stop_reason,
        "usage": message.usage.counters(),
        "attempts": spent.attempts,
        "cost_usd": exact_usd(spent.cost_pusd) if spent.is_exact else None,
        "known_cost_usd": exact_usd(spent.cost_pusd) if _is_any_known(spent) else None,
    }


def _summary(message: MessageResponse, spent: CostLine) -> str:
    """Say in one line what it took."""
    usage = message.usage
    parts = [
        message.model,
        f"{usage.prompt_tokens} tokens in, {usage.output_tokens} out",
        _cost(spent),
    ]
    if spent.attempts > 1:
        parts.append(f"{spent.attempts} attempts")
    if message.stop_reason != "end_turn":
        parts.append(f"ended by {message.stop_reason}")
    return " · ".join(parts)


def _cost(spent: CostLine) -> str:
    """Say what it cost: exactly, at least, about, or that nothing is known."""
    if not _is_any_known(spent):
        return "cost not known"
    usd = f"{exact_usd(spent.cost_pusd)} USD"
    if spent.is_exact:
        return usd
    return f"at least {usd}" if spent.unknown or spent.at_least else f"about {usd}"


def _is_any_known(spent: CostLine) -> bool:
    return spent.is_exact or spent.cost_pusd > 0
