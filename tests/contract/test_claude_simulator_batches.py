"""Batches and files of the Claude simulator, asked by the official SDK and by hand."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import ClientSession, FormData
from anthropic import (
    APIStatusError,
    AsyncAnthropic,
    BadRequestError,
    ContentTooLargeError,
    DefaultAsyncHttpxClient,
    NotFoundError,
)

from llm_integrations.simulators import ClaudeSimulator
from llm_integrations.simulators.anthropic import Behaviour

Json = Any  # whatever stands in a JSON body

NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOUR_S = 3_600
DAY_S = 24 * HOUR_S
HEADERS = {"x-api-key": "k", "anthropic-version": "2026-10-21"}
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (280).to_bytes(4) + (56).to_bytes(4)


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    offset_s = NOW.timestamp() - time.time()
    async with ClaudeSimulator(latency_ms=(0, 0), clock_offset_s=offset_s) as simulator:
        yield simulator


@pytest.fixture
async def sdk(sim: ClaudeSimulator) -> AsyncIterator[AsyncAnthropic]:
    # The address is http; a default client would read all certificates of the system first.
    http = DefaultAsyncHttpxClient(verify=False)
    async with AsyncAnthropic(
        api_key="k", base_url=sim.base_url, max_retries=0, http_client=http
    ) as client:
        yield client


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession(headers=HEADERS) as session:
        yield session


def ask(text: str = "Hello", **changes: Json) -> Json:
    request = {"model": "claude-opus-5", "max_tokens": 500}
    return request | {"messages": [{"role": "user", "content": text}]} | changes


def items(count: int) -> list[Json]:
    return [{"custom_id": f"item-{at}", "params": ask(f"Question {at}")} for at in range(count)]


async def results(sdk: AsyncAnthropic, batch_id: str) -> dict[str, Json]:
    decoder = await sdk.messages.batches.results(batch_id)
    return {line.custom_id: line.result async for line in decoder}


async def test_a_batch_says_nothing_of_its_requests_until_it_ends(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    sim.behaviour = Behaviour(batch_s=HOUR_S)
    created = await sdk.messages.batches.create(requests=items(4))
    sim.clock_offset_s += HOUR_S - 60
    waiting = await sdk.messages.batches.retrieve(created.id)
    with pytest.raises(APIStatusError, match="no available results") as refused:
        await sdk.get(f"/v1/messages/batches/{created.id}/results", cast_to=object)
    owed = sim.invoice_pusd()
    sim.clock_offset_s += 61
    ended = await sdk.messages.batches.retrieve(created.id)

    for batch in (created, waiting):
        assert batch.processing_status == "in_progress"
        assert batch.request_counts.to_dict() == counts(processing=4)
        assert (batch.results_url, batch.ended_at) == (None, None)
    assert refused.value.status_code == 404
    assert (ended.expires_at - ended.created_at).total_seconds() == DAY_S
    assert ended.processing_status == "ended"
    assert ended.request_counts.to_dict() == counts(succeeded=4)
    assert ended.results_url == f"{sim.base_url}/v1/messages/batches/{created.id}/results"
    assert owed == 0 < sim.invoice_pusd()


def counts(**others: int) -> dict[str, int]:
    kinds = ("processing", "succeeded", "errored", "canceled", "expired")
    return dict.fromkeys(kinds, 0) | others


async def test_results_come_in_another_order_and_are_matched_by_their_id(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    sim.behaviour = Behaviour(batch_s=0)
    created = await sdk.messages.batches.create(requests=items(8))
    found = await results(sdk, created.id)

    assert set(found) == {f"item-{at}" for at in range(8)}
    assert list(found) != sorted(found)
    for at in range(8):
        message = found[f"item-{at}"].message
        assert f"Question {at}" in message.content[0].text
        assert message.usage.service_tier == "batch"


async def test_only_what_succeeded_is_billed_and_at_half_price(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    plain = await sdk.messages.create(**ask("Question 0"))
    full = sim.invoice_pusd()
    sim.behaviour = Behaviour(
        batch_s=0, batch_results={"item-1": "errored", "item-2": "expired", "item-3": "canceled"}
    )
    created = await sdk.messages.batches.create(requests=items(4))
    found = await results(sdk, created.id)
    ended = await sdk.messages.batches.retrieve(created.id)

    assert {name: one.type for name, one in found.items()} == {
        "item-0": "succeeded",
        "item-1": "errored",
        "item-2": "expired",
        "item-3": "canceled",
    }
    assert ended.request_counts.to_dict() == counts(succeeded=1, errored=1, canceled=1, expired=1)
    assert found["item-0"].message.usage.output_tokens == plain.usage.output_tokens
    assert sim.invoice_pusd() - full == full // 2
    assert [charge.request_id for charge in sim.charges][1:] == [f"{created.id}/item-0"]


@pytest.mark.parametrize(
    ("params", "kind", "reason"),
    [
        (ask(model="claude-unknown"), "not_found_error", "model: claude-unknown"),
        (ask(max_tokens=-1), "invalid_request_error", "max_tokens"),
        (ask(stream=True), "invalid_request_error", "stream"),
        (ask(speed="fast"), "invalid_request_error", "speed"),
        (ask(max_tokens=0), "invalid_request_error", "max_tokens"),
        ({}, "invalid_request_error", "model: Field required"),
    ],
)
async def test_params_are_looked_at_only_while_the_batch_runs(
    sim: ClaudeSimulator, sdk: AsyncAnthropic, params: Json, kind: str, reason: str
) -> None:
    sim.behaviour = Behaviour(batch_s=0)
    created = await sdk.messages.batches.create(
        requests=[{"custom_id": "wrong", "params": params}, *items(1)]
    )
    found = await results(sdk, created.id)

    assert found["wrong"].type == "errored"
    assert found["wrong"].error.error.type == kind
    assert reason in found["wrong"].error.error.message
    assert found["wrong"].error.request_id.startswith("req_")
    assert found["item-0"].type == "succeeded"


@pytest.mark.parametrize(
    "requests",
    [
        [],
        [{"custom_id": "a b", "params": {}}],
        [{"custom_id": "a"}],
        [{"custom_id": "same", "params": {}}, {"custom_id": "same", "params": {}}],
    ],
)
async def test_a_batch_of_no_requests_is_refused_at_once(
    sdk: AsyncAnthropic, requests: list[Json]
) -> None:
    with pytest.raises(BadRequestError):
        await sdk.messages.batches.create(requests=requests)


async def test_a_canceled_batch_keeps_what_was_done_by_then(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    sim.behaviour = Behaviour(batch_s=HOUR_S)
    created = await sdk.messages.batches.create(requests=items(4))
    with pytest.raises(BadRequestError, match="cancel it first"):
        await sdk.messages.batches.delete(created.id)
    sim.clock_offset_s += HOUR_S / 2
    canceling = await sdk.messages.batches.cancel(created.id)
    sim.clock_offset_s += 1
    ended = await sdk.messages.batches.retrieve(created.id)
    found = await results(sdk, created.id)

    assert canceling.processing_status == "canceling"
    assert canceling.cancel_initiated_at is not None
    assert canceling.request_counts.to_dict() == counts(processing=4)
    assert ended.request_counts.to_dict() == counts(succeeded=2, canceled=2)
    assert [found[f"item-{at}"].type for at in range(4)] == ["succeeded"] * 2 + ["canceled"] * 2
    assert len(sim.charges) == 2
    with pytest.raises(BadRequestError, match="already ended"):
        await sdk.messages.batches.cancel(created.id)


async def test_a_batch_that_takes_too_long_expires_and_is_archived(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    sim.behaviour = Behaviour(batch_s=2 * DAY_S, batch_poll_after_s=10)
    created = await sdk.messages.batches.create(requests=items(2))
    raw = await sdk.messages.batches.with_raw_response.retrieve(created.id)
    sim.clock_offset_s += DAY_S + 1
    ended = await sdk.messages.batches.retrieve(created.id)
    sim.clock_offset_s += 28 * DAY_S
    archived = await sdk.messages.batches.retrieve(created.id)

    assert raw.headers["retry-after"] == "10"
    assert ended.request_counts.to_dict() == counts(succeeded=1, expired=1)
    assert ended.ended_at == ended.expires_at
    assert archived.archived_at is not None
    assert archived.results_url is None


async def test_batches_are_listed_newest_first_and_can_be_deleted(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    sim.behaviour = Behaviour(batch_s=0)
    ids = [(await sdk.messages.batches.create(requests=items(1))).id for _ in range(3)]
    listed = [batch.id async for batch in sdk.messages.batches.list(limit=2)]
    deleted = await sdk.messages.batches.delete(ids[0])

    assert listed == ids[::-1]
    assert deleted.type == "message_batch_deleted"
    with pytest.raises(NotFoundError, match="not found"):
        await sdk.messages.batches.retrieve(ids[0])


async def test_a_file_is_kept_described_listed_and_deleted(sdk: AsyncAnthropic) -> None:
    stored = await sdk.files.upload(file=("folder/notes.txt", b"line\r\n--line", "text/plain"))
    others = [await sdk.files.upload(file=(f"{at}.png", PNG, "image/png")) for at in range(3)]
    listed = [file.id async for file in sdk.files.list(limit=2)]
    chosen = await sdk.files.list(ids=[stored.id, "file_unknown"])
    again = await sdk.files.retrieve_metadata(stored.id)
    deleted = await sdk.files.delete(stored.id)

    assert stored.id.startswith("file_011")
    assert (stored.filename, stored.mime_type, stored.size_bytes) == (
        "notes.txt",
        "text/plain",
        12,
    )
    assert stored.downloadable is False
    assert listed == [file.id for file in reversed([stored, *others])]
    assert [file.id for file in chosen.data] == [stored.id]
    assert again == stored
    assert deleted.type == "file_deleted"
    with pytest.raises(NotFoundError, match="File not found"):
        await sdk.files.retrieve_metadata(stored.id)


async def test_a_file_without_a_name_gets_one(sdk: AsyncAnthropic) -> None:
    stored = await sdk.files.upload(file=("", b"%PDF-1.4", "application/pdf"))

    assert stored.filename == "unnamed.pdf"


async def test_a_file_expires_when_it_was_told_to(
    sim: ClaudeSimulator, sdk: AsyncAnthropic
) -> None:
    stored = await sdk.files.upload(file=("a.png", PNG, "image/png"), expires_in_seconds=HOUR_S)
    image = {"type": "image", "source": {"type": "file", "file_id": stored.id}}
    turns: list[Json] = [{"role": "user", "content": [image]}]
    sim.clock_offset_s += HOUR_S + 1
    with pytest.raises(NotFoundError, match="expired") as expired:
        await sdk.messages.create(**ask(messages=turns))

    assert stored.expires_at is not None
    assert (stored.expires_at - stored.created_at).total_seconds() == HOUR_S
    assert expired.value.error_code == "file_expired"
    with pytest.raises(BadRequestError, match="expires_in_seconds"):
        await sdk.files.upload(file=("a.png", PNG, "image/png"), expires_in_seconds=5)


async def test_an_uploaded_file_cannot_be_downloaded(sdk: AsyncAnthropic) -> None:
    stored = await sdk.files.upload(file=("a.png", PNG, "image/png"))
    with pytest.raises(BadRequestError) as refused:
        await sdk.files.download(stored.id)

    assert refused.value.error_code == "file_not_downloadable"


async def test_a_message_reads_a_file_as_if_it_had_been_sent_along(sdk: AsyncAnthropic) -> None:
    image = await sdk.files.upload(file=("a.png", PNG, "image/png"))
    text = await sdk.files.upload(file=("a.txt", b"The printer is on fire.", "text/plain"))
    document = {"type": "document", "source": {"type": "file", "file_id": text.id}}
    picture = {"type": "image", "source": {"type": "file", "file_id": image.id}}
    turns: list[Json] = [{"role": "user", "content": [document, picture]}]
    message = await sdk.messages.create(**ask(messages=turns))
    counted = await sdk.messages.count_tokens(model="claude-opus-5", messages=turns)

    assert "printer is on fire" in message.content[0].text  # type: ignore[union-attr]
    assert message.usage.input_tokens == counted.input_tokens
    for file_id, reason in ((text.id, "supported are image"), ("file_unknown", "file_unknown")):
        wrong = {"type": "image", "source": {"type": "file", "file_id": file_id}}
        with pytest.raises(APIStatusError, match=reason):
            await sdk.messages.create(**ask(messages=[{"role": "user", "content": [wrong]}]))


async def test_files_have_a_limit_each_and_in_all() -> None:
    behaviour = Behaviour(max_file_bytes=100, max_storage_bytes=150)
    async with (
        ClaudeSimulator(latency_ms=(0, 0), behaviour=behaviour) as sim,
        AsyncAnthropic(api_key="k", base_url=sim.base_url, max_retries=0) as sdk,
    ):
        with pytest.raises(ContentTooLargeError):
            await sdk.files.upload(file=("a.txt", b"x" * 101, "text/plain"))
        with pytest.raises(ContentTooLargeError):
            await sdk.files.upload(file=("a.txt", b"x" * 100_000, "text/plain"))
        await sdk.files.upload(file=("a.txt", b"x" * 100, "text/plain"))
        with pytest.raises(BadRequestError) as full:
            await sdk.files.upload(file=("a.txt", b"x" * 100, "text/plain"))

    assert full.value.error_code == "storage_quota_exceeded"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"--b\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\ncontent-type: a/b\r\n\r\nx\r\n--b--"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\ncontent-disposition: form-data; name="other"\r\n\r\nx\r\n--b--',
        ),
    ],
)
async def test_an_upload_that_is_no_form_is_refused(
    sim: ClaudeSimulator, http: ClientSession, content_type: str, body: bytes
) -> None:
    headers = {"content-type": content_type}
    async with http.post(f"{sim.base_url}/v1/files", data=body, headers=headers) as answer:
        refused = await answer.json()

    assert answer.status == 400
    assert refused["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("name", ["a:b.txt", "x" * 256])
async def test_some_names_are_no_file_names(
    sim: ClaudeSimulator, http: ClientSession, name: str
) -> None:
    form = FormData(quote_fields=False)
    form.add_field("file", b"x", filename=name, content_type="text/plain")
    async with http.post(f"{sim.base_url}/v1/files", data=form) as answer:
        refused = await answer.json()

    assert answer.status == 400
    assert "filename" in refused["error"]["message"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/files?page=other", 400),
        ("/v1/files?limit=0", 400),
        ("/v1/files?ids=a&limit=1", 400),
        ("/v1/files/file_unknown/content", 404),
        ("/v1/messages/batches?after_id=other", 400),
        ("/v1/messages/batches/other/results", 404),
    ],
)
async def test_lists_and_ids_that_lead_nowhere(
    sim: ClaudeSimulator, http: ClientSession, path: str, status: int
) -> None:
    async with http.get(sim.base_url + path) as answer:
        assert answer.status == status
