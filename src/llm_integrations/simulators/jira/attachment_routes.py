"""REST of attachments: send, read, fetch, delete; and the store of files beside the site.

Paths: https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-attachments/.
Cloud answers a download with a redirect to a signed address of another host. Here that host is
this machine's other name; like the real one it refuses a request that brings credentials along.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from .records import RecordedRequest
from .refusal import Refused
from .ties import Attachment
from .wire import Answer, Desk, Request, Route, issue_of, route

_API: Final = "/rest/api/{version}"
_ONE: Final = f"{_API}/attachment/{{id}}"
_MEDIA: Final = re.compile(r"/media/file/(\d+)/binary")
_MEDIA_S: Final = 600
_MOST_FILES: Final = 60
_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_PARAMETER: Final = re.compile(r';\s*(name|filename)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_TYPE: Final = re.compile(r"(?im)^content-type:\s*([^\r\n]+)")
_File = tuple[str, str, bytes]


def add_attachments(desk: Desk, request: Request) -> Answer:
    """POST /issue/{issue}/attachments: a form whose parts are called `file`."""
    if request.headers.get("x-atlassian-token", "") not in {"no-check", "nocheck"}:
        return Answer(403, b"XSRF check failed", {"Content-Type": "text/plain"})
    issue = issue_of(desk, request)
    files = _files(request.headers.get("content-type", ""), request.raw_body)
    if not 0 < len(files) <= _MOST_FILES:
        raise Refused(400, f"A request carries 1 to {_MOST_FILES} parts named 'file'.")
    limit = desk.site.upload_limit_bytes
    for name, _, content in files:
        if len(content) > limit:
            raise Refused(413, f"The file {name} exceeds its maximum permitted size of {limit}.")
    made = [desk.site.attach(request.user, issue, file) for file in files]
    return Answer(body=[request.render.attachment(each) for each in made])


def get_attachment(desk: Desk, request: Request) -> Answer:
    """GET /attachment/{id}: the id is a number here, and left out on Data Center."""
    shown = request.render.attachment(_attachment(desk, request))
    number = shown.pop("id")
    return Answer(body={"id": int(number), **shown} if desk.site.is_cloud else shown)


def delete_attachment(desk: Desk, request: Request) -> Answer:
    """DELETE /attachment/{id}."""
    desk.site.detach(request.user, _attachment(desk, request))
    return Answer(204)


def get_limits(desk: Desk, _request: Request) -> Answer:
    """GET /attachment/meta."""
    return Answer(body={"enabled": True, "uploadLimit": desk.site.upload_limit_bytes})


def get_content(desk: Desk, request: Request) -> Answer:
    """GET /attachment/content/{id}: a redirect, unless asked not to."""
    attachment = _attachment(desk, request)
    if request.text("redirect", "true") == "false":
        return _content(attachment)
    token = desk.dice.identifier()
    desk.media[token] = (attachment.id, desk.site.clock.now_s() + _MEDIA_S)
    port = urlsplit(desk.base_url).port
    target = f"http://localhost:{port}/media/file/{attachment.id}/binary?token={token}"
    return Answer(303, None, {"Location": target})


def get_secure(desk: Desk, request: Request) -> Answer:
    """GET /secure/attachment/{id}/{name}: Data Center's address of the content."""
    attachment = _attachment(desk, request)
    if attachment.filename != request.arguments["name"]:
        raise Refused(404, "The attachment has another name.")
    return _content(attachment)


def media(desk: Desk, request: RecordedRequest) -> Answer | None:
    """Return what the store of files says; None when it was not asked."""
    match = _MEDIA.fullmatch(request.path)
    if match is None:
        return None
    if "authorization" in request.headers:
        raise Refused(400, "Only one way of authentication is allowed.")
    token = request.query.get("token", [""])[-1]
    attachment_id, expires_s = desk.media.get(token, ("", 0.0))
    if attachment_id != match[1] or expires_s < desk.site.clock.now_s():
        raise Refused(403, "The signature has expired or does not match.")
    return _content(desk.site.ties.attachment(attachment_id))


def _attachment(desk: Desk, request: Request) -> Attachment:
    return desk.site.ties.attachment(request.arguments["id"])


def _content(attachment: Attachment) -> Answer:
    headers = {
        "Content-Type": attachment.mime_type,
        "Content-Disposition": "attachment",
    }
    return Answer(200, attachment.content, headers)


def _files(content_type: str, body: bytes) -> list[_File]:
    """Read the parts named `file` of a form (RFC 7578): name, media type, content."""
    found = _BOUNDARY.search(content_type)
    pieces = []
    if found is not None:
        pieces = (b"\r\n" + body).split(b"\r\n--" + (found[1] or found[2]).encode())[1:]
    if not pieces or not pieces[-1].startswith(b"--"):
        raise Refused(400, "The form is incomplete.")
    files = []
    for piece in pieces[:-1]:
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = head.decode("utf-8", "replace")
        told = {key.lower(): value for key, value in _PARAMETER.findall(lines)}
        if told.get("name") == "file" and told.get("filename"):
            kind = _TYPE.search(lines)
            files.append(
                (told["filename"], kind[1] if kind else "application/octet-stream", content)
            )
    return files


ROUTES: Final[tuple[Route, ...]] = (
    route("POST", f"{_API}/issue/{{issue}}/attachments", add_attachments, takes="multipart/form"),
    route("GET", f"{_API}/attachment/meta", get_limits),
    route("GET", f"{_API}/attachment/content/{{id}}", get_content, only="Cloud"),
    route("GET", _ONE, get_attachment),
    route("DELETE", _ONE, delete_attachment),
    route("GET", "/secure/attachment/{id}/{name}", get_secure, only="Server"),
)
