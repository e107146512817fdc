"""From the durable queue to one stored outcome per delivery.

`engine` calls, in order per issue; `work` looks, lets a handler decide, carries out and ends;
`rules` says, without any I/O, what is ignored, stale or superseded and what a failure means.
"""

from llm_integrations.service.pipeline.engine import Engine, EngineOptions, migrate_engine
from llm_integrations.service.pipeline.rules import RetryRules
from llm_integrations.service.pipeline.work import (
    Pipeline,
    PipelineOptions,
    Registration,
    SiteWork,
)

__all__ = [
    "Engine",
    "EngineOptions",
    "Pipeline",
    "PipelineOptions",
    "Registration",
    "RetryRules",
    "SiteWork",
    "migrate_engine",
]
