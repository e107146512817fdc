"""Where a process can die: every commit boundary on a delivery's way, by name.

`arm` makes this process kill itself the first time it passes one. It wraps methods of the classes
that commit or send, so the service itself knows nothing of it. Used by `worker`, in processes that
tests start to lose them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from llm_integrations._core.http.over_aiohttp import AiohttpTransport
from llm_integrations.store.deliveries import DeliveryStore
from llm_integrations.store.intake import IntakeConnection
from llm_integrations.store.postgres import PostgresStore

__all__ = ["POINTS", "CrashPoint", "arm"]

Method = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashPoint:
    """One place to die at.

    Attributes:
        before: whether it is before the method begins, else after it has returned.
        counts: whether a call is one of those that count; all do by default.
        passage: which of those calls it is, from 1.
        charges: how often Claude is paid for the delivery, in the end.
    """

    owner: type
    method: str
    before: bool
    counts: Callable[..., bool] = lambda *_: True
    passage: int = 1
    charges: int = 1


def _asks_claude(_: object, request: Any, *__: object) -> bool:  # noqa: ANN401 - any transport's request
    return str(request.url).endswith("/v1/messages")


def _comments(_: object, request: Any, *__: object) -> bool:  # noqa: ANN401
    return request.method == "POST" and str(request.url).endswith("/comment")


def _both(name: str, **point: Any) -> dict[str, CrashPoint]:  # noqa: ANN401
    """Return the points before and after one commit, or one sending."""
    return {
        f"before {name}": CrashPoint(before=True, **point),
        f"after {name}": CrashPoint(before=False, **point),
    }


POINTS: dict[str, CrashPoint] = {
    **_both("the delivery is stored", owner=IntakeConnection, method="admit"),
    **_both("the delivery is loaded", owner=DeliveryStore, method="load"),
    **_both("the issue is kept", owner=PostgresStore, method="keep"),
    **_both("the money is held", owner=PostgresStore, method="hold", passage=2),
    "before Claude is asked": CrashPoint(
        owner=AiohttpTransport, method="send", before=True, counts=_asks_claude
    ),
    # The one gap: who dies between sending and checkpoint pays again.
    "after Claude has answered": CrashPoint(
        owner=AiohttpTransport, method="send", before=False, counts=_asks_claude, charges=2
    ),
    "before the answer is kept": CrashPoint(
        owner=PostgresStore, method="settle", before=True, passage=2, charges=2
    ),
    "after the answer is kept": CrashPoint(
        owner=PostgresStore, method="settle", before=False, passage=2
    ),
    **_both("the decision is stored", owner=DeliveryStore, method="save_decision"),
    **_both("the action is begun", owner=DeliveryStore, method="save_action"),
    **_both("the comment is sent", owner=AiohttpTransport, method="send", counts=_comments),
    **_both("the action is recorded", owner=DeliveryStore, method="save_action", passage=2),
    **_both("the outcome is stored", owner=DeliveryStore, method="save_outcome"),
}


def arm(name: str) -> None:
    """Make this process kill itself at a point."""
    point = POINTS[name]
    real: Method = getattr(point.owner, point.method)
    passages = 0

    async def deadly(*args: Any, **more: Any) -> Any:  # noqa: ANN401
        nonlocal passages
        passages += point.counts(*args)
        is_here = passages == point.passage and point.counts(*args)
        if is_here and point.before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await real(*args, **more)
        if is_here:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(point.owner, point.method, deadly)
