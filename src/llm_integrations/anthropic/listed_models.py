"""The models that the API lists, asked for by `AnthropicClient`; imported when that is done.

In: the `Calls` and `Caller` of a client. Out: `ModelInfo`s, each with what came in `raw`. The calls
are free and share the limits of group "models". https://platform.claude.com/docs/en/api/models-list
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from llm_integrations._core.call import Caller
from llm_integrations.anthropic.calls import Calls
from llm_integrations.anthropic.catalogue import ModelInfo
from llm_integrations.anthropic.pages import KeptDecoder, Page, PageDecoder, in_path, walk

__all__ = ["get_model", "list_models", "look_at_models"]

GROUP: Final = "models"
MODELS: Final = "/v1/models"
_page_decoder: Final = PageDecoder(ModelInfo)
_model_decoder: Final = KeptDecoder(ModelInfo)


async def list_models(calls: Calls, caller: Caller, lifecycle: Iterable[str]) -> list[ModelInfo]:
    """Return the models of all pages, in these stages of their life."""

    async def fetch(query: str) -> Page[ModelInfo]:
        return await look_at_models(calls, caller, query)

    filters = [("lifecycle[]", stage) for stage in lifecycle]
    return [model async for model in walk(fetch, filters=filters)]


async def look_at_models(calls: Calls, caller: Caller, query: str) -> Page[ModelInfo]:
    """Return one page of the list."""
    call = calls.free("GET", MODELS, GROUP, decoder=_page_decoder, query=query)
    return await caller.run(call)


async def get_model(calls: Calls, caller: Caller, model: str) -> ModelInfo:
    """Return one model."""
    path = f"{MODELS}/{in_path('model', model)}"
    route = f"{MODELS}/{{model_id}}"
    return await caller.run(calls.free("GET", path, GROUP, decoder=_model_decoder, route=route))
