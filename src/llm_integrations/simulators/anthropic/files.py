"""The files of an organization: kept, listed, expired, and put in where a message names them.

https://platform.claude.com/docs/en/build-with-claude/files: 500 MB each, 1 TB in all, at most 90
days; a file that a caller has uploaded cannot be downloaded, one that a tool has made can. Pure:
time comes in. `file_routes` turns this into answers.
"""

import base64
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from llm_integrations.simulators.anthropic.errors import ApiError

__all__ = ["FileStore", "StoredFile", "checked_life_s", "checked_name", "expiry"]

_FORBIDDEN: Final = frozenset('<>:"|?*\\/') | {chr(code) for code in range(32)}
_MAX_NAME: Final = 255
_LIFE_S: Final = (3_600, 7_776_000)
_PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    "image": ("image/jpeg", "image/png", "image/gif", "image/webp"),
    "document": ("application/pdf", "text/plain"),
}

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file."""

    id: str
    name: str
    mime_type: str
    content: bytes
    created_at: datetime
    expires_at: datetime | None = None
    downloadable: bool = False

    def is_expired(self, now: datetime) -> bool:
        """Whether its bytes are gone."""
        return self.expires_at is not None and self.expires_at <= now

    def metadata(self) -> dict[str, object]:
        """Return the file as the API describes it."""
        return {
            "type": "file",
            "id": self.id,
            "size_bytes": len(self.content),
            "created_at": _rfc3339(self.created_at),
            "filename": self.name,
            "mime_type": self.mime_type,
            "downloadable": self.downloadable,
            "expires_at": None if self.expires_at is None else _rfc3339(self.expires_at),
        }


def _rfc3339(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"


class FileStore:
    """All files, newest last."""

    def __init__(self) -> None:
        """Start empty."""
        self._files: dict[str, StoredFile] = {}

    def newest_first(self) -> list[StoredFile]:
        """Return every file that was not deleted, expired ones too."""
        return list(reversed(self._files.values()))

    def add(self, file: StoredFile, *, max_bytes: int, max_storage_bytes: int) -> None:
        """Keep a file, or raise the refusal of one that is too large, or one too many."""
        if len(file.content) > max_bytes:
            raise ApiError(413, f"File exceeds the maximum size of {max_bytes} bytes")
        kept = sum(len(one.content) for one in self._files.values())
        if kept + len(file.content) > max_storage_bytes:
            message = "Your organization's file storage is full."
            raise ApiError(400, message, error_code="storage_quota_exceeded")
        self._files[file.id] = file

    def get(self, file_id: str) -> StoredFile:
        """Return a file, or raise the 404."""
        found = self._files.get(file_id)
        if found is None:
            raise ApiError(404, f"File not found: {file_id}")
        return found

    def read(self, file_id: str, now: datetime) -> StoredFile:
        """Return a file whose bytes are still there, or raise the 404."""
        found = self.get(file_id)
        if found.is_expired(now):
            raise ApiError(404, f"File has expired: {file_id}", error_code="file_expired")
        return found

    def delete(self, file_id: str) -> None:
        """Forget a file, or raise the 404."""
        self.get(file_id)
        del self._files[file_id]

    def inlined(self, request: Json, now: datetime) -> Json:
        """Return a request in which every file that a block names stands as if sent with it.

        Raises:
            ApiError: a file is missing or expired, or of a kind that its block does not take.
        """
        return {**request, "messages": self._inlined(request.get("messages"), now)}

    def _inlined(self, value: object, now: datetime) -> object:
        """Walk turns, their blocks, and the blocks in these."""
        if isinstance(value, list):
            return [self._inlined(item, now) for item in value]
        if not isinstance(value, dict):
            return value
        kind, source = str(value.get("type")), value.get("source")
        if kind == "container_upload":
            self.read(str(value.get("file_id")), now)
        elif kind in _PLACES and isinstance(source, dict) and source.get("type") == "file":
            return {**value, "source": self._source(kind, source, now)}
        elif isinstance(value.get("content"), list):
            return {**value, "content": self._inlined(value["content"], now)}
        return value

    def _source(self, kind: str, source: Json, now: datetime) -> dict[str, object]:
        file = self.read(str(source.get("file_id")), now)
        if file.mime_type not in _PLACES[kind]:
            taken = ", ".join(_PLACES[kind])
            message = f"{kind}: file {file.id} is {file.mime_type}; supported are {taken}"
            raise ApiError(400, message)
        if file.mime_type == "text/plain":
            text = file.content.decode("utf-8", "replace")
            return {"type": "text", "media_type": file.mime_type, "data": text}
        data = base64.b64encode(file.content).decode()
        return {"type": "base64", "media_type": file.mime_type, "data": data}


def checked_name(given: str, mime_type: str) -> str:
    """Return the name a file is kept under: its last part, or one made for its type."""
    name = given.replace("\\", "/").rpartition("/")[2]
    if not name:
        return f"unnamed{mimetypes.guess_extension(mime_type) or ''}"
    if len(name) > _MAX_NAME or _FORBIDDEN & set(name):
        raise ApiError(400, 'filename: must be 1 to 255 characters, without any of <>:"|?*\\/')
    return name


def checked_life_s(given: bytes | None) -> int | None:
    """Return for how many seconds a file is kept, or raise the 400."""
    if given is None:
        return None
    low, high = _LIFE_S
    text = given.decode("utf-8", "replace").strip()
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ApiError(400, f"expires_in_seconds: Input should be between {low} and {high}")
    return int(text)


def expiry(created_at: datetime, life_s: int | None) -> datetime | None:
    """Return when a file expires."""
    return None if life_s is None else created_at + timedelta(seconds=life_s)
