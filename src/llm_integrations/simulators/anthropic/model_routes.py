"""`GET /v1/models` and `.../{model_id}`."""

from llm_integrations.simulators.anthropic.catalogue import find_model, list_models, model_info
from llm_integrations.simulators.anthropic.errors import ApiError
from llm_integrations.simulators.anthropic.paging import page_by_id, values
from llm_integrations.simulators.anthropic.routing import Route
from llm_integrations.simulators.anthropic.state import State
from llm_integrations.simulators.anthropic.wire import RecordedRequest, Reply, json_reply

__all__ = ["ModelRoutes"]


class ModelRoutes:
    """The endpoints that tell of the models."""

    def __init__(self, state: State) -> None:
        """Take what the routes share."""
        self._state = state

    def routes(self) -> tuple[Route, ...]:
        """Return the endpoints."""
        return (
            Route(method="GET", path="/v1/models", handler=self._list),
            Route(method="GET", path="/v1/models/*", handler=self._get),
        )

    def _list(self, record: RecordedRequest, _: str) -> Reply:
        stages = values(record.query, "lifecycle") or ["active", "deprecated"]
        now = self._state.now()
        with_fallbacks = _is_beta(record)
        found = [
            model_info(model, now, with_fallbacks=with_fallbacks)
            for model in list_models(stages, now)
        ]
        return json_reply(page_by_id(found, record.query, "model"))

    def _get(self, record: RecordedRequest, name: str) -> Reply:
        model = find_model(name)
        if model is None:
            raise ApiError(404, f"model: {name}")
        now = self._state.now()
        return json_reply(model_info(model, now, with_fallbacks=_is_beta(record)))


def _is_beta(record: RecordedRequest) -> bool:
    betas = record.headers.get("anthropic-beta", "")
    return record.query.get("beta") == ["true"] or "server-side-fallback-" in betas
