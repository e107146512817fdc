"""The rate limits: token buckets for each model group and for some endpoints, and their headers.

https://platform.claude.com/docs/en/api/rate-limits: a bucket refills continuously to its limit a
minute; input counts when a request starts, tokens read from the cache do not count; output counts
as it is made and `max_tokens` not at all. Fast mode has buckets of its own (group `NAME-fast`),
and so have the endpoints `count_tokens`, `batches` and `files`. Pure: time comes in as seconds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from llm_integrations.simulators.anthropic.errors import ApiError

__all__ = ["UNLIMITED", "Limits", "RateLimits"]

_MINUTE_S: Final = 60.0
_THOUSAND: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one group of models, or one endpoint, may use a minute.

    An endpoint has only requests; `enqueued_batch_requests` is for `batches`.
    """

    requests_per_minute: int = 4_000_000
    input_tokens_per_minute: int = 4_000_000_000
    output_tokens_per_minute: int = 800_000_000
    enqueued_batch_requests: int = 100_000_000


UNLIMITED: Final = Limits()


@dataclass(slots=True)
class _Bucket:
    """One level that refills; below zero it owes."""

    limit: int
    level: float = 0.0
    at: float = field(default=-math.inf)

    def refill(self, now: float) -> None:
        self.level = min(float(self.limit), self.level + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)

    @property
    def rate(self) -> float:
        return self.limit / _MINUTE_S

    def wait_s(self, amount: float) -> float:
        """Return how long until the bucket holds this much, or is full."""
        return max(0.0, min(amount, self.limit) - self.level) / self.rate

    @property
    def remaining(self) -> int:
        return max(0, math.floor(self.level))

    def full_at(self, now: float) -> str:
        full = datetime.fromtimestamp(math.ceil(now + self.wait_s(self.limit)), UTC)
        return f"{full:%Y-%m-%dT%H:%M:%SZ}"


class _Group:
    def __init__(self, limits: Limits) -> None:
        self.requests = _Bucket(limits.requests_per_minute)
        self.input = _Bucket(limits.input_tokens_per_minute)
        self.output = _Bucket(limits.output_tokens_per_minute)

    def resize(self, limits: Limits) -> None:
        self.requests.limit = limits.requests_per_minute
        self.input.limit = limits.input_tokens_per_minute
        self.output.limit = limits.output_tokens_per_minute

    def refill(self, now: float) -> None:
        for bucket in (self.requests, self.input, self.output):
            bucket.refill(now)


class RateLimits:
    """The buckets of one organization."""

    def __init__(self, limits: Limits | Mapping[str, Limits] | None) -> None:
        """Take one set of limits for every group, or one a group; groups without have none."""
        self._limits = limits
        self._groups: dict[str, _Group] = {}

    @property
    def limits(self) -> Limits | Mapping[str, Limits] | None:
        """What is enforced."""
        return self._limits

    def change(self, limits: Limits | Mapping[str, Limits] | None, now: float) -> None:
        """Enforce other limits from now on; what is in the buckets stays, as far as it fits."""
        self._limits = limits
        for name, group in self._groups.items():
            group.refill(now)
            group.resize(self._limits_of(name))

    def use_up(self, now: float) -> None:
        """Empty the buckets of every group that was asked so far."""
        for group in self._groups.values():
            group.refill(now)
            for bucket in (group.requests, group.input, group.output):
                bucket.level = min(bucket.level, 0.0)

    def admit(self, group: str, input_tokens: int, now: float) -> None:
        """Take a request and its input out of the buckets, or raise the 429."""
        buckets = self._group(group, now)
        for bucket, amount, name, unit in (
            (buckets.requests, 1, "requests", "requests"),
            (buckets.input, input_tokens, "input-tokens", "input tokens"),
            (buckets.output, 1, "output-tokens", "output tokens"),
        ):
            if bucket.level < amount:
                headers = self.headers(group, now)
                left = str(bucket.remaining if bucket is buckets.input else 0)
                headers[f"{_prefix(group, name)}-{name}-remaining"] = left
                raise _exceeded(bucket, amount, unit, headers)
        buckets.requests.level -= 1
        buckets.input.level -= input_tokens

    def admit_endpoint(self, name: str, now: float) -> dict[str, str]:
        """Take a request out of an endpoint's bucket and return its headers, or raise the 429."""
        if not isinstance(self._limits, Mapping) or name not in self._limits:
            return {}
        bucket = self._group(name, now).requests
        if bucket.level < 1:
            raise _exceeded(bucket, 1, "requests", self.endpoint_headers(name, now))
        bucket.level -= 1
        return self.endpoint_headers(name, now)

    def endpoint_headers(self, name: str, now: float) -> dict[str, str]:
        """Return the headers of an endpoint's bucket."""
        bucket = self._group(name, now).requests
        prefix = "anthropic-ratelimit-requests"
        return _headers(prefix, bucket.limit, bucket.remaining, bucket.full_at(now))

    def max_enqueued(self) -> int:
        """Return how many requests may wait in batches at a time."""
        return self._limits_of("batches").enqueued_batch_requests

    def produced(self, group: str, output_tokens: int, now: float) -> None:
        """Count output that was made."""
        self._group(group, now).output.level -= output_tokens

    def headers(self, group: str, now: float) -> dict[str, str]:
        """Return the `anthropic-ratelimit-*` headers, or those of fast mode."""
        buckets = self._group(group, now)
        found: dict[str, str] = {}
        for name, bucket in (
            ("requests", buckets.requests),
            ("input-tokens", buckets.input),
            ("output-tokens", buckets.output),
        ):
            prefix = f"{_prefix(group, name)}-{name}"
            found |= _headers(prefix, bucket.limit, bucket.remaining, bucket.full_at(now))
        both = buckets.input.remaining + buckets.output.remaining
        reset = max(buckets.input.full_at(now), buckets.output.full_at(now))
        limit = buckets.input.limit + buckets.output.limit
        rounded = round(both / _THOUSAND) * _THOUSAND
        return found | _headers("anthropic-ratelimit-tokens", limit, rounded, reset)

    def _group(self, name: str, now: float) -> _Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(self._limits_of(name))
        group.refill(now)
        return group

    def _limits_of(self, name: str) -> Limits:
        if isinstance(self._limits, Mapping):
            return self._limits.get(name, UNLIMITED)
        return self._limits or UNLIMITED


def _prefix(group: str, name: str) -> str:
    fast = group.endswith("-fast") and name != "requests"
    return "anthropic-fast" if fast else "anthropic-ratelimit"


def _exceeded(bucket: _Bucket, amount: float, unit: str, headers: dict[str, str]) -> ApiError:
    wait_s = max(1, math.ceil(bucket.wait_s(amount)))
    message = (
        "This request would exceed your organization's rate limit of "
        f"{bucket.limit:,} {unit} per minute."
    )
    return ApiError(429, message, headers={"retry-after": str(wait_s), **headers})


def _headers(prefix: str, limit: int, remaining: int, reset: str) -> dict[str, str]:
    return {
        f"{prefix}-limit": str(limit),
        f"{prefix}-remaining": str(remaining),
        f"{prefix}-reset": reset,
    }
