"""From the durable queue to one stored outcome per delivery.

`work` looks, lets a handler decide, carries out and ends; `rules` says, without any I/O, what is
ignored, stale or superseded and what a failure means.
"""

from llm_integrations.service.pipeline.job import PipelineOptions, Registration, SiteWork
from llm_integrations.service.pipeline.rules import OUTAGE, RetryRules, describe_error
from llm_integrations.service.pipeline.work import Pipeline

__all__ = [
    "OUTAGE",
    "Pipeline",
    "PipelineOptions",
    "Registration",
    "RetryRules",
    "SiteWork",
    "describe_error",
]
