"""`/v1/files`: upload, list, describe, download, delete."""

from dataclasses import replace
from typing import Final

from llm_integrations.simulators.anthropic.errors import ApiError
from llm_integrations.simulators.anthropic.files import (
    StoredFile,
    checked_life_s,
    checked_name,
    expiry,
)
from llm_integrations.simulators.anthropic.multipart import parse_form
from llm_integrations.simulators.anthropic.paging import page_by_cursor, values
from llm_integrations.simulators.anthropic.routing import Route
from llm_integrations.simulators.anthropic.state import State
from llm_integrations.simulators.anthropic.wire import RecordedRequest, Reply, json_reply

__all__ = ["FileRoutes"]

_FORM_OVERHEAD: Final = 64 * 1024
_MAX_IDS: Final = 100


class FileRoutes:
    """The endpoints of files."""

    def __init__(self, state: State) -> None:
        """Take what the routes share."""
        self._state = state

    def routes(self) -> tuple[Route, ...]:
        """Return the endpoints."""
        routes = (
            Route(
                method="POST",
                path="/v1/files",
                handler=self._upload,
                max_bytes=self._state.behaviour.max_file_bytes + _FORM_OVERHEAD,
            ),
            Route(method="GET", path="/v1/files", handler=self._list),
            Route(method="GET", path="/v1/files/*", handler=self._get),
            Route(method="DELETE", path="/v1/files/*", handler=self._delete),
            Route(method="GET", path="/v1/files/*/content", handler=self._content),
        )
        return tuple(replace(route, bucket="files") for route in routes)

    def _upload(self, record: RecordedRequest, _: str) -> Reply:
        state = self._state
        form = parse_form(record.headers.get("content-type", ""), record.body)
        part, life = form.get("file"), form.get("expires_in_seconds")
        if part is None:
            raise ApiError(400, "file: Field required")
        life_s = checked_life_s(None if life is None else life.content)
        now = state.now()
        file = StoredFile(
            id=state.new_id("file_011"),
            name=checked_name(part.filename, part.content_type),
            mime_type=part.content_type.partition(";")[0].strip(),
            content=part.content,
            created_at=now,
            expires_at=expiry(now, life_s),
        )
        state.files.add(
            file,
            max_bytes=state.behaviour.max_file_bytes,
            max_storage_bytes=state.behaviour.max_storage_bytes,
        )
        return json_reply(file.metadata())

    def _list(self, record: RecordedRequest, _: str) -> Reply:
        files = self._state.files.newest_first()
        ids = set(values(record.query, "ids"))
        if not ids:
            return json_reply(page_by_cursor([file.metadata() for file in files], record.query))
        if len(ids) > _MAX_IDS or {"page", "limit"} & set(record.query):
            raise ApiError(400, f"ids: at most {_MAX_IDS}, and neither with page nor with limit")
        found = [file.metadata() for file in files if file.id in ids]
        return json_reply(page_by_cursor(found, {"limit": [str(_MAX_IDS)]}))

    def _get(self, _: RecordedRequest, file_id: str) -> Reply:
        return json_reply(self._state.files.get(file_id).metadata())

    def _delete(self, _: RecordedRequest, file_id: str) -> Reply:
        self._state.files.delete(file_id)
        return json_reply({"id": file_id, "type": "file_deleted"})

    def _content(self, _: RecordedRequest, file_id: str) -> Reply:
        file = self._state.files.get(file_id)
        if not file.downloadable:
            message = "Only files that a tool has made can be downloaded."
            raise ApiError(400, message, error_code="file_not_downloadable")
        file = self._state.files.read(file_id, self._state.now())
        return Reply(body=file.content, content_type=file.mime_type)
