"""The most a request can cost, before it is sent.

In: the body of a request and its shape. Out: a `Hold`: pico-USD, and whether that is a true upper
bound. Rules:

1. A token is at least one byte of the body, so the bytes bound the text; base64 data is no text.
2. On top come the tokens that the server adds: its tool prompt, a few per message and tool block,
   at most so many per image. A PDF, a file, a URL and a stored thread are bounded by the window.
3. The window bounds everything: a longer prompt is refused.
4. Each token is priced at the dearest class that can apply: a cache write where the request asks
   for the cache, else plain input; the dearer of the two long-prompt tiers; 1.1 times for the US
   unless the request says another place (the default is a setting of the workspace).
5. Output is `max_tokens`; thinking is inside.
6. What runs at the server on its own account (server tools, MCP, compaction, fallbacks, containers)
   has no bound that a request shows: the hold is then a guess and says so.
7. No price, no hold: None.
8. In a batch all of it costs half.

No I/O. Budgets refuse what is unbounded or priceless.
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from llm_integrations._core.admission import About, Ask
from llm_integrations._core.codec import Undecodable, decode
from llm_integrations.anthropic.catalogue import RequestShape, find_model, limit_group
from llm_integrations.anthropic.models import Usage
from llm_integrations.anthropic.pricing import ModelPrices, Rates, prices_of, table_version

__all__ = ["Guess", "Hold", "affordable_tokens", "ask_for", "hold_for"]

Json: TypeAlias = Any  # the JSON border

# The largest tool-use system prompt is 804 tokens (Opus 4.7, forced); a few tokens of wrapping per
# message and block (https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview#pricing).
TOOL_PROMPT_TOKENS: Final = 1_000
FIXED_TOKENS: Final = 100
PER_MESSAGE_TOKENS: Final = 10
PER_TOOL_BLOCK_TOKENS: Final = 50
SCHEMA_PROMPT_TOKENS: Final = (
    1_000  # structured output adds a prompt of its own, size not published
)
DEFAULT_WINDOW: Final = 1_000_000
DEFAULT_IMAGE_TOKENS: Final = 4_784
FIRST_GUESS_OUTPUT: Final = 512.0
FIRST_GUESS_INPUT: Final = 1_024.0
BYTES_PER_TOKEN: Final = 4
HIDES_PROMPTS_BYTES: Final = 8_192  # what is larger hides the prompts of tools and schemas
_MOST_MODELS: Final = 256
# All that a hold looks for in a body, in one pass: 30 us for 100 KB, where one for each took 125.
_MARK: Final = re.compile(
    rb'"(tool_use|tool_result|image|document|container_upload|cache_control)(?=")'
)
_MEDIA: Final = frozenset({b"image", b"document", b"container_upload"})


class Hold(msgspec.Struct, frozen=True):
    """The most a request can cost; `bounded` says whether that is certain.

    Attributes:
        prompt_pusd: the prompt's part of it; the rest is that of `max_tokens`.
        is_text: whether the prompt is text of the request, and little beside it.
    """

    pusd: int | None
    bounded: bool
    input_tokens: int
    prompt_pusd: int = 0
    is_text: bool = False


class _Terms(NamedTuple):
    """What a hold needs to know of a model."""

    group: str
    window: int
    image_tokens: int
    prices: ModelPrices | None
    price_version: str


@lru_cache(maxsize=256)
def _terms_of(model: str) -> _Terms:
    entry = find_model(model)
    return _Terms(
        group=limit_group(model),
        window=DEFAULT_WINDOW if entry is None else entry.max_input_tokens,
        image_tokens=DEFAULT_IMAGE_TOKENS if entry is None else entry.image_tokens + 16,
        prices=prices_of(model),
        price_version=table_version(),
    )


def hold_for(
    shape: RequestShape, body: bytes, *, at: date | None = None, batch: bool = False
) -> Hold:
    """Return the hold for a request; see the rules above."""
    marks = _MARK.findall(body) if b'"type"' in body else []  # each stands in an object with one
    terms, tools = _terms_of(shape.model), shape.tools
    tokens = shape.size_bytes + FIXED_TOKENS + PER_MESSAGE_TOKENS * len(shape.messages)
    if marks or tools or shape.output_config is not None:
        tokens += _beyond_text(shape, body, marks, terms)
    if tokens > terms.window or shape.thread is not None:
        tokens = terms.window
    bounded = (  # whether all that can be billed is in the request
        shape.mcp_servers is None
        and shape.container is None
        and shape.context_management is None
        and shape.compaction is None
        and shape.fallbacks is None
        and (not tools or all(tool.runs_at_caller() for tool in tools))
    )
    is_text = bounded and shape.thread is None and _MEDIA.isdisjoint(marks)
    if tools or shape.output_config is not None:
        is_text = is_text and shape.size_bytes >= HIDES_PROMPTS_BYTES
    prices = terms.prices
    if prices is None:
        return Hold(None, bounded, tokens, is_text=is_text)
    rates = prices.rates_at(at, tokens)
    if shape.speed == "fast" and prices.fast is not None:
        rates = prices.fast
    place = shape.inference_geo
    percent = prices.us_percent if place is None or place == "us" else 100
    percent_parts = 200 if batch else 100
    prompt = tokens * (_dearest_input(rates, marks) if marks else rates.input) * percent
    output = max(0, shape.max_tokens) * rates.output * percent
    pusd = -(-(prompt + output) // percent_parts)
    return Hold(pusd, bounded, tokens, -(-prompt // percent_parts), is_text)


def affordable_tokens(hold: Hold, max_tokens: int, left_pusd: int) -> int:
    """Return how many `max_tokens` a request may have so that its hold fits what is left."""
    if hold.pusd is None or not hold.bounded or hold.pusd <= hold.prompt_pusd:
        return 0
    for_output = left_pusd - hold.prompt_pusd
    return max(0, min(max_tokens, for_output * max_tokens // (hold.pusd - hold.prompt_pusd)))


class _Prompts:
    """What the prompts of one model were taken for lately, and what they had."""

    __slots__ = ("counted", "expected", "share")

    def __init__(self) -> None:
        self.expected = self.counted = FIRST_GUESS_INPUT
        self.share = 1.0

    def learn(self, expected: int, counted: int) -> None:
        self.expected += (expected - self.expected) / 16
        self.counted += (min(counted, expected * BYTES_PER_TOKEN) - self.counted) / 16
        self.share = max(1.0, self.counted / self.expected)


class Guess:
    """What calls have used lately: that is what limits reserve, and budgets by estimate.

    A quarter of its bytes is what English takes under the older tokenizer. That of Opus 4.7 and
    later makes a third more of it, code and other languages differ again: the last answers tell.

    Attributes:
        output_tokens: how long an answer will be; not `max_tokens`.
    """

    __slots__ = ("_mean", "_prompts", "output_tokens")

    def __init__(self) -> None:
        self._mean = FIRST_GUESS_OUTPUT
        self._prompts: dict[str, _Prompts] = {}
        self.output_tokens = round(FIRST_GUESS_OUTPUT)

    def input_tokens(self, model: str, least: int) -> int:
        """Return how many tokens a prompt of text will have.

        Args:
            model: whose tokenizer.
            least: a quarter of its bytes.
        """
        prompts = self._prompts.get(model)
        return least if prompts is None else int(least * prompts.share)

    def learn(self, ask: Ask, usage: Usage) -> None:
        """Move the guess towards what one more call used."""
        self._mean += (max(0, usage.output_tokens) - self._mean) / 16
        self.output_tokens = round(self._mean)
        if ask.least_input_tokens:
            prompts = self._prompts.get(ask.model)
            if prompts is None:
                if len(self._prompts) >= _MOST_MODELS:  # whoever calls may invent names
                    self._prompts.clear()
                prompts = self._prompts[ask.model] = _Prompts()
            prompts.learn(ask.least_input_tokens, max(0, usage.prompt_tokens))


def ask_for(shape: RequestShape, body: bytes, about: About, *, at: date, guess: Guess) -> Ask:
    """Return what sending a message asks of limits and budgets.

    Args:
        shape: of the body.
        body: the JSON of the request.
        about: what else the `Ask` says of the call.
        at: the day whose prices count.
        guess: how many tokens of prompt and answer it will have.
    """
    hold = hold_for(shape, body, at=at)
    terms, max_tokens = _terms_of(shape.model), max(0, shape.max_tokens)
    pusd, most_tokens, output_tokens = hold.pusd, hold.input_tokens, guess.output_tokens
    input_tokens = min(most_tokens, len(body)) // BYTES_PER_TOKEN
    least_tokens: int | None = None
    if hold.is_text:
        least_tokens = input_tokens
        input_tokens = guess.input_tokens(shape.model, least_tokens)
    elif most_tokens >= terms.window:  # the bytes of a PDF say little of what its pages have
        least_tokens = 0
    output_tokens = min(output_tokens, max_tokens)
    estimate_pusd = None
    if pusd is not None:  # at the rates of the hold, which are the dearest
        prompt_pusd = hold.prompt_pusd
        estimate_pusd = prompt_pusd * input_tokens // (most_tokens or 1)
        estimate_pusd += (pusd - prompt_pusd) * output_tokens // (max_tokens or 1)
    return Ask(
        group=terms.group,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        hold_pusd=pusd,
        bounded=hold.bounded,
        least_input_tokens=least_tokens,
        max_output_tokens=max_tokens,
        estimate_pusd=estimate_pusd,
        price_version=terms.price_version,
        model=shape.model,
        workspace=about.workspace,
        tags=about.tags,
        keep=about.keep,
        call_id=about.call_id,
        attempt=about.attempt,
        patience_s=about.patience_s,
        at_once=about.at_once,
    )


def _beyond_text(shape: RequestShape, body: bytes, marks: list[bytes], terms: _Terms) -> int:
    """Return how many tokens more, or less, a prompt can have than its bytes say."""
    has_media = not _MEDIA.isdisjoint(marks)
    media_bytes, images, unbounded = _media(body) if has_media else (0, 0, False)
    if unbounded:
        return terms.window
    blocks = marks.count(b"tool_use") + marks.count(b"tool_result")
    tokens = PER_TOOL_BLOCK_TOKENS * blocks + images * terms.image_tokens - media_bytes
    if shape.tools:
        tokens += TOOL_PROMPT_TOKENS
    if shape.output_config is not None:
        tokens += SCHEMA_PROMPT_TOKENS
    return tokens


def _dearest_input(rates: Rates, marks: list[bytes]) -> int:
    """Return the rate of the dearest class that a prompt token can fall into."""
    if b"cache_control" not in marks:
        return rates.input
    return max(rates.input, rates.cache_write_5m or 0, rates.cache_write_1h or 0)


_dict_decoder: Final = msgspec.json.Decoder(dict[str, Any])


def _media(body: bytes) -> tuple[int, int, bool]:
    """Return (bytes of base64 data, number of images, is there media without a bound)."""
    try:
        request = decode(_dict_decoder, body)
    except Undecodable:
        return 0, 0, True
    data_bytes = images = 0
    unbounded = False
    waiting: list[Json] = [request.get("messages"), request.get("system")]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            kind, source = part.get("type"), part.get("source")
            waiting.append(part.get("content"))
            if kind == "image" and isinstance(source, dict):
                images += 1
                data = source.get("data")
                data_bytes += len(data) if isinstance(data, str) else 0
            elif kind == "document" and isinstance(source, dict):
                unbounded |= source.get("type") not in ("text", "content")
                waiting.append(source.get("content"))
            elif kind == "container_upload":
                unbounded = True
    return data_bytes, images, unbounded
