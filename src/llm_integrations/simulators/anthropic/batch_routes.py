"""`/v1/messages/batches`: create, list, describe, cancel, delete, results.

A batch needs no task of its own: whatever became due since the last look is done by `settle`,
which every request to these endpoints and the bill call first.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from llm_integrations.simulators.anthropic.batches import Batch, Item, check_items, shuffled
from llm_integrations.simulators.anthropic.checks import check_in_batch
from llm_integrations.simulators.anthropic.errors import ApiError
from llm_integrations.simulators.anthropic.message_routes import MessageRoutes
from llm_integrations.simulators.anthropic.paging import page_by_id
from llm_integrations.simulators.anthropic.routing import Route
from llm_integrations.simulators.anthropic.state import State
from llm_integrations.simulators.anthropic.tokens import compact_json
from llm_integrations.simulators.anthropic.wire import RecordedRequest, Reply, json_reply

__all__ = ["BatchRoutes"]

_PATH: Final = "/v1/messages/batches"
_MAX_BYTES: Final = 256 * 1024 * 1024


class BatchRoutes:
    """The endpoints of batches. `base_url` stands in `results_url`."""

    def __init__(self, state: State, messages: MessageRoutes) -> None:
        """Take what the routes share, and who answers a single request."""
        self.base_url = ""
        self._state = state
        self._messages = messages
        self._batches: dict[str, Batch] = {}
        self._open: list[Batch] = []

    def routes(self) -> tuple[Route, ...]:
        """Return the endpoints."""
        routes = (
            Route(
                method="POST",
                path=_PATH,
                handler=self._create,
                takes="json",
                max_bytes=_MAX_BYTES,
            ),
            Route(method="GET", path=_PATH, handler=self._list),
            Route(method="GET", path=f"{_PATH}/*", handler=self._get),
            Route(method="DELETE", path=f"{_PATH}/*", handler=self._delete),
            Route(method="POST", path=f"{_PATH}/*/cancel", handler=self._cancel),
            Route(method="GET", path=f"{_PATH}/*/results", handler=self._results),
        )
        return tuple(replace(route, bucket="batches") for route in routes)

    def settle(self) -> None:
        """End every batch whose time has come: ask the model, charge what succeeded."""
        if not self._open:
            return
        now = self._state.now()
        due = [batch for batch in self._open if batch.is_due(now)]
        self._open = [batch for batch in self._open if batch not in due]
        for batch in due:
            for at, item in enumerate(batch.items):
                batch.results[item.custom_id] = self._result(batch, item, batch.outcome(at))

    def _result(self, batch: Batch, item: Item, outcome: str) -> dict[str, object]:
        if outcome == "errored":
            return self._errored(ApiError(500, "Internal server error"))
        if outcome != "done":
            return {"type": outcome}
        try:
            check_in_batch(item.params)
            _, written = self._messages.compose(
                item.params, batch.headers, admit=False, tier="batch"
            )
        except ApiError as error:
            return self._errored(error)
        self._state.charge(
            f"{batch.id}/{item.custom_id}",
            written.asked_model,
            written.usage(),
            at=batch.ends_at,
            billed=not written.answer.is_free,
        )
        return {"type": "succeeded", "message": written.message()}

    def _errored(self, error: ApiError) -> dict[str, object]:
        body = {**error.body, "request_id": self._state.new_id("req_011")}
        return {"type": "errored", "error": body}

    def _find(self, batch_id: str) -> Batch:
        self.settle()
        batch = self._batches.get(batch_id)
        if batch is None:
            raise ApiError(404, f"Message Batch {batch_id} not found.")
        return batch

    def _reply(self, batch: Batch) -> Reply:
        wait_s = self._state.behaviour.batch_poll_after_s
        headers: Mapping[str, str] = {}
        if wait_s is not None and not batch.is_ended:
            headers = {"retry-after": str(wait_s)}
        return json_reply(batch.describe(self._state.now(), self.base_url), headers=headers)

    def _create(self, record: RecordedRequest, _: str) -> Reply:
        self.settle()
        self._state.check_spending()
        behaviour = self._state.behaviour
        items = check_items(record.json)
        waiting = sum(len(batch.items) for batch in self._open)
        most = self._state.limits.max_enqueued()
        if waiting + len(items) > most:
            raise ApiError(429, f"More than {most:,} batch requests would be in the queue.")
        batch = Batch(
            id=self._state.new_id("msgbatch_01"),
            items=items,
            headers=record.headers,
            created_at=self._state.now(),
            takes=timedelta(seconds=behaviour.batch_s),
            forced=behaviour.batch_results,
        )
        self._batches[batch.id] = batch
        self._open.append(batch)
        return json_reply(batch.describe(batch.created_at, self.base_url))

    def _list(self, record: RecordedRequest, _: str) -> Reply:
        self.settle()
        now = self._state.now()
        found = [batch.describe(now, self.base_url) for batch in reversed(self._batches.values())]
        return json_reply(page_by_id(found, record.query, "batch"))

    def _get(self, _: RecordedRequest, batch_id: str) -> Reply:
        return self._reply(self._find(batch_id))

    def _cancel(self, _: RecordedRequest, batch_id: str) -> Reply:
        batch = self._find(batch_id)
        if batch.is_ended:
            raise ApiError(400, f"Message Batch {batch_id} has already ended.")
        if batch.cancel_initiated_at is None:
            batch.cancel_initiated_at = self._state.now()
        return self._reply(batch)

    def _delete(self, _: RecordedRequest, batch_id: str) -> Reply:
        batch = self._find(batch_id)
        if not batch.is_ended:
            message = f"Message Batch {batch_id} is still processing: cancel it first."
            raise ApiError(400, message)
        del self._batches[batch_id]
        return json_reply({"id": batch_id, "type": "message_batch_deleted"})

    def _results(self, _: RecordedRequest, batch_id: str) -> Reply:
        batch = self._find(batch_id)
        if not batch.is_ended or batch.is_archived(self._state.now()):
            raise ApiError(404, f"Message Batch {batch_id} has no available results.")
        lines = [
            compact_json({"custom_id": custom_id, "result": result}) + "\n"
            for custom_id, result in shuffled(batch.results, (self._state.seed, batch_id))
        ]
        return Reply(body="".join(lines).encode(), content_type="application/x-jsonl")
