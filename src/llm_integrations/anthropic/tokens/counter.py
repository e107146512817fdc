"""How many tokens a text or a request has, and what a request will cost.

In: text, or a request. Out: a `TokenEstimate`, which says how far off it can be. Three tiers:

- "exact": the API's own count, by `TokenCounter.count_exact`;
- "vocabulary": offline, with the `[tokenizer]` extra;
- "base": offline, with nothing but this package.

An offline estimate is a sum of what was counted times what was measured: `tokenizers` counts in a
text, `prompts` sorts a request into its parts, `calibration` has the weights, `corrections` what
real usage taught since. The held-out errors are in docs/decisions/0009. Never bill by an estimate;
to hold money use `holds`.

No I/O but the one read of the weights. Nothing is fetched, ever.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from llm_integrations._core.codec import decode
from llm_integrations.anthropic.catalogue import CatalogueEntry, find_model, shape_of
from llm_integrations.anthropic.holds import hold_for
from llm_integrations.anthropic.models import MessageRequest, Usage, encode_request
from llm_integrations.anthropic.pricing import price
from llm_integrations.anthropic.tokens.calibration import (
    Weights,
    hidden_prompt,
    named_tool_prompt,
    weights_for,
)
from llm_integrations.anthropic.tokens.corrections import Corrector
from llm_integrations.anthropic.tokens.prompts import Prompt, read_prompt
from llm_integrations.anthropic.tokens.tokenizers import (
    Counts,
    Pieces,
    Tier,
    foreign_bytes,
    load_vocabulary,
)
from llm_integrations.errors import BudgetExceeded, ConfigError

if TYPE_CHECKING:
    from llm_integrations.anthropic.client import AnthropicClient

__all__ = ["CostEstimate", "TokenBudget", "TokenCounter", "TokenEstimate"]

Json: TypeAlias = Any  # the JSON border
AnyRequest: TypeAlias = MessageRequest | Mapping[str, Json]

DEFAULT_IMAGE_TOKENS: Final = 4_784
DEFAULT_TOOL_PROMPT: Final = (350, 470)
UNMEASURED_TOOL: Final = (1_000.0, 1_000.0)
IMAGE_MARGIN_TOKENS: Final = 5
FOREIGN_MARGIN: Final = 0.5  # a guess: no recorded request is in another language than English
EXACT_MARGIN: Final = 0.05  # "should be considered an estimate", says the documentation


class TokenEstimate(NamedTuple):
    """A count that may be off.

    Attributes:
        margin: nine in ten true counts lie within this share of `tokens`.
        tier: how it was made: "exact", "vocabulary" or "base".
    """

    tokens: int
    margin: float
    tier: str

    @property
    def upper(self) -> int:
        """The count with its margin on top."""
        return math.ceil(self.tokens * (1 + self.margin))

    def __int__(self) -> int:
        return self.tokens


class CostEstimate(NamedTuple):
    """What a request may cost, in pico-USD; None where the model has no known price.

    `high_pusd` is the hold, an upper bound unless the request uses tools at the server.
    """

    low_pusd: int | None
    expected_pusd: int | None
    high_pusd: int | None


class TokenCounter:
    """Estimates tokens, remembers the texts it has seen, and learns from real usage.

        counter = TokenCounter()
        estimate = counter.count_request(request)
        answer = await client.send_message(request)
        counter.learn(request, answer.usage)

    It is one thread's; counters in several threads share the vocabulary.

    Args:
        cache_size: how many texts to remember; the least recently used goes first.
        tier: "vocabulary" or "base"; unless told, the vocabulary where it is installed. It is
            loaded at the first count.

    Raises:
        ConfigError: the vocabulary was asked for and is not installed.
    """

    def __init__(
        self, cache_size: int = 1_024, *, tier: Literal["vocabulary", "base"] | None = None
    ) -> None:
        self._capacity = cache_size
        self._cache: OrderedDict[bytes, _Measured] = OrderedDict()
        self._corrector = Corrector()
        self._loaded: Tier | None = Pieces() if tier == "base" else None
        if tier == "vocabulary" and load_vocabulary() is None:
            msg = "the vocabulary is not installed: pip install 'llm-integrations[tokenizer]'"
            raise ConfigError(msg)

    @property
    def tier(self) -> str:
        """How offline estimates are made: "vocabulary" or "base"."""
        return self._engine().name

    @property
    def cache_size(self) -> int:
        """How many texts are remembered now."""
        return len(self._cache)

    def clear_cache(self) -> None:
        """Forget all texts; what was learned from usage stays."""
        self._cache.clear()

    def count_text(self, text: str, *, model: str | None = None) -> TokenEstimate:
        """Estimate a text alone, without what a request adds to it."""
        weights = self._weights(None if model is None else find_model(model))
        found = _Sum(weights, self._engine().names)
        found.add(self._measure(text))
        return _rounded(*found.uncorrected("text"), self.tier)

    def count_request(self, request: AnyRequest, *, template: str | None = None) -> TokenEstimate:
        """Estimate the prompt of a request: system, tools, messages and media.

        What Anthropic's own tools will find or run is a guess, and no margin covers the most.

        Args:
            request: a `MessageRequest`, or the same as a mapping.
            template: a name for prompts that are alike, if usage was learned by it.
        """
        fields = decode(_dict_decoder, encode_request(request))
        kind, estimate = self._estimate(fields)
        correction = self._corrector.correction(_key(fields, template or kind))
        margin = estimate.margin if correction.margin is None else correction.margin
        return _rounded(estimate.tokens * correction.factor, margin, self.tier)

    def learn(self, request: AnyRequest, usage: Usage, *, template: str | None = None) -> None:
        """Correct later estimates by what the API counted for this request.

        Costs what an estimate costs, so no client does it unasked.

        Args:
            request: what was sent.
            usage: what its answer says.
            template: a name for prompts that are alike; unless told, those of one model with the
                same kind of parts.
        """
        self._learn(request, usage.prompt_tokens, template)

    async def count_exact(
        self, client: AnthropicClient, request: AnyRequest, *, template: str | None = None
    ) -> TokenEstimate:
        """Ask the API for the count, and learn from it.

        It is free, has a rate limit of its own, and can differ from the bill by a few tokens.
        """
        tokens = await client.count_tokens(request)
        self._learn(request, tokens, template)
        return TokenEstimate(tokens, EXACT_MARGIN, "exact")

    def estimate_cost(
        self, request: AnyRequest, *, expected_output_tokens: int | None = None
    ) -> CostEstimate:
        """Estimate what a request will cost.

        `low_pusd` is the prompt alone, read from the cache if the request asks for one.

        Args:
            request: the request.
            expected_output_tokens: what the answer is likely to have; a quarter of `max_tokens`
                unless told.
        """
        body = encode_request(request)
        shape = shape_of(body)
        estimate = self.count_request(request)
        likely = shape.max_tokens // 4 if expected_output_tokens is None else expected_output_tokens
        fewest = math.floor(estimate.tokens * max(1 - estimate.margin, 0))
        cached = fewest if b'"cache_control"' in body else 0
        low = Usage(input_tokens=fewest - cached, cache_read_input_tokens=cached)
        expected = Usage(input_tokens=estimate.tokens, output_tokens=likely)
        return CostEstimate(
            price(low, shape.model),
            price(expected, shape.model),
            hold_for(shape, body).pusd,
        )

    def _estimate(self, fields: Mapping[str, Json]) -> tuple[str, _Uncorrected]:
        """Return the kind of a prompt, and its estimate before any correction."""
        entry = find_model(str(fields.get("model", "")))
        most = DEFAULT_IMAGE_TOKENS if entry is None else entry.image_tokens
        prompt = read_prompt(fields, most_image_tokens=most)
        found = _Sum(self._weights(entry), self._engine().names)
        for text in prompt.texts:
            found.add(self._measure(text))
        for text in prompt.tool_texts:
            found.add(self._measure(text), found.weights.tool_json)
        for text in prompt.schema_texts:
            found.add(self._measure(text), found.weights.schema_json)
        found.add_parts(prompt)
        if prompt.tool_texts or prompt.server_tools:
            found.tokens += _tool_prompt(entry, fields)
        kind = _kind(prompt)
        return kind, found.uncorrected("text" if kind == "text" else "tools")

    def _learn(self, request: AnyRequest, true: int, template: str | None) -> None:
        """Remember how far off the estimate of a request was."""
        fields = decode(_dict_decoder, encode_request(request))
        kind, estimate = self._estimate(fields)
        key = _key(fields, template or kind)
        self._corrector.learn(key, estimated=estimate.tokens, true=true)

    def _engine(self) -> Tier:
        """Return the tier, loaded at the first call."""
        if self._loaded is None:
            self._loaded = load_vocabulary() or Pieces()
        return self._loaded

    def _weights(self, entry: CatalogueEntry | None) -> Weights:
        return weights_for(None if entry is None else entry.tokenizer, self.tier)

    def _measure(self, text: str) -> _Measured:
        """Return what is countable in a text, from the cache if it was seen."""
        key = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
        cache = self._cache
        if (known := cache.get(key)) is not None:
            cache.move_to_end(key)
            return known
        measured = _Measured(self._engine().measure(text), foreign_bytes(text), len(text))
        cache[key] = measured
        if len(cache) > self._capacity:
            cache.popitem(last=False)
        return measured


class _Measured(NamedTuple):
    """What is countable in a text."""

    counts: Counts
    foreign_bytes: int
    length: int


class _Uncorrected(NamedTuple):
    """An estimate before rounding and correction."""

    tokens: float
    margin: float


class _Sum:
    """Adds up the tokens of one prompt, and by how much they can be off."""

    def __init__(self, weights: Weights, names: tuple[str, ...]) -> None:
        self.weights = weights
        self.tokens = 0.0  # as sure as the weights are
        self._vector = weights.vector(names)
        self._given = 0.0  # of media and guesses, which come with a spread of their own
        self._spread = 0.0
        self._length = self._foreign = 0

    def add(self, text: _Measured, factor: float = 1.0) -> None:
        """Add a text."""
        self.tokens += factor * sum(map(operator.mul, text.counts, self._vector))
        self._length += text.length
        self._foreign += text.foreign_bytes

    def add_parts(self, prompt: Prompt) -> None:
        """Add all of a prompt that is not text."""
        for name, count in prompt.parts.items():
            self.tokens += count * self.weights.parts[name]
        self._given = prompt.image_tokens + prompt.guess.tokens
        self._spread = prompt.guess.spread + IMAGE_MARGIN_TOKENS * prompt.parts["image"]
        for name in prompt.server_tools:
            tokens, spread = hidden_prompt(name) or UNMEASURED_TOOL
            self._given += tokens
            self._spread += spread

    def uncorrected(self, kind: str) -> _Uncorrected:
        """Return the sum and its margin."""
        tokens = self.tokens + self._given
        if tokens <= 0:
            return _Uncorrected(0.0, 0.0)
        margin = self.weights.margins[kind]
        foreign = FOREIGN_MARGIN * min(self._foreign / self._length, 1) if self._foreign else 0.0
        off = max(margin.tokens, (margin.share + foreign) * self.tokens) + self._spread
        return _Uncorrected(tokens, off / tokens)


class TokenBudget:
    """A number of tokens to hand out, in this process.

    >>> budget = TokenBudget(100)
    >>> budget.allocate(30)
    >>> budget.remaining, budget.utilization, budget.can_allocate(71)
    (70, 0.3, False)
    """

    def __init__(self, total: int) -> None:
        if total < 1:
            msg = "a token budget needs at least one token"
            raise ValueError(msg)
        self._total = total
        self._used = 0

    @property
    def remaining(self) -> int:
        """What is left."""
        return self._total - self._used

    @property
    def utilization(self) -> float:
        """The share that is used, from 0 to 1."""
        return self._used / self._total

    def can_allocate(self, tokens: int) -> bool:
        """Whether so many are left."""
        return 0 <= tokens <= self.remaining

    def allocate(self, tokens: int) -> None:
        """Take tokens.

        Raises:
            BudgetExceeded: fewer are left; nothing is taken.
        """
        if not self.can_allocate(tokens):
            msg = f"the token budget has {self.remaining} of {self._total} left, not {tokens}"
            raise BudgetExceeded(msg, budget="tokens")
        self._used += tokens

    def reset(self) -> None:
        """Make all tokens available again."""
        self._used = 0


_dict_decoder: Final = msgspec.json.Decoder(dict[str, Any])


def _kind(prompt: Prompt) -> str:
    """Return a name for prompts that are off for the same reasons."""
    if prompt.guess.spread or prompt.server_tools:
        return "guessed"
    return "tools" if prompt.tool_texts or prompt.schema_texts else "text"


def _key(fields: Mapping[str, Json], template: str) -> str:
    """Return the key under which corrections are kept."""
    return f"{fields.get('model')}\n{template}"


def _tool_prompt(entry: CatalogueEntry | None, fields: Mapping[str, Json]) -> int:
    """Return what the server writes before the tools."""
    choice = fields.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else None
    named = named_tool_prompt(entry.id) if entry is not None and kind == "tool" else None
    if named is not None:
        return named
    known = None if entry is None else entry.tool_prompt_tokens
    return (known or DEFAULT_TOOL_PROMPT)[kind in ("any", "tool")]


def _rounded(tokens: float, margin: float, tier: str) -> TokenEstimate:
    return TokenEstimate(round(tokens), round(margin, 3), tier)
