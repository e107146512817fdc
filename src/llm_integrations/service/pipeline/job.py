"""What the pipeline works with: a delivery under way, its handler, its site, and the options.

Values that flow between the steps of `work`; nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_integrations.service.pipeline.rules import RetryRules

if TYPE_CHECKING:
    from llm_integrations.jira import WebhookEvent
    from llm_integrations.service.delivery import Deliverer
    from llm_integrations.service.handlers import Context, Handler
    from llm_integrations.service.policy import PolicyRules
    from llm_integrations.store.deliveries import Delivery

__all__ = ["Job", "PipelineOptions", "Registration", "SiteWork"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A handler and what the settings tell it."""

    name: str
    handler: Handler
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteWork:
    """What one Jira site needs for its events to be worked on.

    Attributes:
        account_id: who this service is there.
        rules: what may be written there.
        deliverer: writes there.
        make_context: gives a handler its view of a delivery.
    """

    account_id: str
    rules: PolicyRules
    deliverer: Deliverer
    make_context: Callable[[Delivery, WebhookEvent, Registration], Context]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineOptions:
    """How events are worked on.

    Attributes:
        executor_id: this worker's name in the fleet.
        retry: how patient to be with a failing event.
        supersedes: whether a newer waiting event ends an older one.
        handlers_at_once: events that sleep or wait do not count.
        guards_policy, guards_own_writes, guards_twins: False only in negative controls of tests.
    """

    executor_id: str = ""
    retry: RetryRules = field(default_factory=RetryRules)
    supersedes: bool = True
    handlers_at_once: int = 64
    guards_policy: bool = True
    guards_own_writes: bool = True
    guards_twins: bool = True


@dataclass(slots=True)
class Job:
    """A delivery under way.

    Attributes:
        begun: positions of the actions that this run has begun itself.
        arrives_until: until when a sending of an action may still take effect, by its position.
    """

    delivery: Delivery
    event: WebhookEvent
    site: SiteWork
    registration: Registration | None
    context: Context | None = None
    project_key: str = ""
    handled: bool = False
    begun: set[int] = field(default_factory=set)
    arrives_until: dict[int, float] = field(default_factory=dict)

    @property
    def handler(self) -> str:
        """Return its handler's name; "" where there is none."""
        return self.registration.name if self.registration else ""
