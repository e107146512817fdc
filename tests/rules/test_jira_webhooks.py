"""Webhook rules: what is trusted, what tells deliveries apart, who gets which event."""

from __future__ import annotations

import hashlib
import hmac
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.errors import (
    BadDelivery,
    InvalidRequest,
    PayloadMalformed,
    SignatureMissing,
    SignatureWrong,
)
from llm_integrations.jira.webhooks import (
    LoggingWebhookHandler,
    SeenDeliveries,
    WebhookHandler,
    WebhookProcessor,
    delivery_identity,
    verify,
)
from llm_integrations.jira.webhooks.events import WebhookEvent, parse_event

ATLASSIAN_SECRET = "It's a Secret to Everybody"
ATLASSIAN_BODY = b"Hello World!"
ATLASSIAN_SIGNATURE = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"


def sign(body: bytes, secret: bytes) -> str:
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def test_atlassians_own_vector_verifies() -> None:
    verify(ATLASSIAN_BODY, {"X-Hub-Signature": ATLASSIAN_SIGNATURE}, [ATLASSIAN_SECRET])


@given(body=st.binary(), secret=st.binary(min_size=1), other=st.binary(min_size=1))
def test_either_live_secret_verifies_and_any_case_of_the_name(
    body: bytes, secret: bytes, other: bytes
) -> None:
    pairs: list[tuple[str | bytes, str | bytes]] = [
        (b"content-type", b"application/json"),
        (b"X-HUB-signature", sign(body, secret)),
    ]
    verify(body, pairs, [other, secret])
    verify(body, pairs, [secret, other])


@given(body=st.binary(), changed=st.binary(), secret=st.binary(min_size=1))
def test_a_signature_of_another_body_is_wrong(body: bytes, changed: bytes, secret: bytes) -> None:
    if body != changed:
        with pytest.raises(SignatureWrong):
            verify(changed, {"x-hub-signature": sign(body, secret)}, [secret])


anything = st.one_of(st.none(), st.integers(), st.text(), st.binary(), st.lists(st.text()))


@given(
    body=st.binary(),
    headers=st.one_of(
        st.dictionaries(st.sampled_from(["x-hub-signature", "X-Hub-Signature", "a"]), anything),
        st.lists(st.tuples(st.sampled_from([b"x-hub-signature", "a", b"\xff"]), anything)),
        st.lists(anything),
        anything,
    ),
    secrets=st.one_of(st.lists(anything), st.text(), st.binary(), st.none()),
)
def test_whatever_comes_verify_returns_or_raises_bad_delivery(
    body: bytes, headers: object, secrets: object
) -> None:
    with pytest.raises(BadDelivery):
        verify(body, headers, secrets)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "sha256",
        "sha256=",
        "sha256=zz",
        "sha1=" + "0" * 40,
        "sha256=é",
        "sha256=\udcff",
        "=",
        "x",
    ],
)
def test_an_unreadable_signature_is_wrong(value: str) -> None:
    with pytest.raises(SignatureWrong):
        verify(b"{}", {"X-Hub-Signature": value}, ["s"])


def test_a_missing_signature_is_missing() -> None:
    with pytest.raises(SignatureMissing):
        verify(b"{}", {"Host": "x"}, ["s"])


def test_two_signatures_are_refused_even_if_one_is_right() -> None:
    good = sign(b"{}", b"s")
    with pytest.raises(SignatureWrong, match="more than one"):
        verify(b"{}", [("X-Hub-Signature", good), ("x-hub-signature", "sha256=00")], ["s"])
    with pytest.raises(SignatureWrong):
        verify(b"{}", {"X-Hub-Signature": good, "x-hub-signature": good}, ["s"])


@pytest.mark.parametrize("secrets", [[], [""], ["", b""], "", b""])
def test_without_a_secret_nothing_verifies(secrets: list[str | bytes] | str | bytes) -> None:
    with pytest.raises(SignatureWrong, match="no secret"):
        verify(b"{}", {"X-Hub-Signature": sign(b"{}", b"")}, secrets)


def test_one_string_is_one_secret_not_its_letters() -> None:
    verify(b"{}", {"X-Hub-Signature": sign(b"{}", b"secret")}, "secret")
    with pytest.raises(SignatureWrong):
        verify(b"{}", {"X-Hub-Signature": sign(b"{}", b"s")}, "secret")


def test_no_message_holds_the_signature_or_the_body() -> None:
    with pytest.raises(SignatureWrong) as caught:
        verify(b"body-text", {"X-Hub-Signature": "sha256=deadbeef"}, ["hush"])
    assert not {"deadbeef", "body-text", "hush"} & set(str(caught.value).split())


def test_identity_is_the_identifier_and_else_the_hash_of_the_body() -> None:
    assert delivery_identity({"X-Atlassian-Webhook-Identifier": " abc-1 "}, b"{}") == "abc-1"
    digest = "sha256:" + hashlib.sha256(b"{}").hexdigest()
    assert delivery_identity({}, b"{}") == digest
    for length, identity in ((0, digest), (1, "a"), (200, "a" * 200), (201, digest)):
        header = {"x-atlassian-webhook-identifier": "a" * length}
        assert delivery_identity(header, b"{}") == identity
    assert delivery_identity({"x-atlassian-webhook-identifier": "a\x00"}, b"{}") == digest


def test_headers_that_are_none_leave_the_hash_as_identity() -> None:
    digest = "sha256:" + hashlib.sha256(b"{}").hexdigest()
    assert delivery_identity([3], b"{}") == digest  # type: ignore[list-item]
    twice = [("X-Atlassian-Webhook-Identifier", "a"), ("x-atlassian-webhook-identifier", "b")]
    assert delivery_identity(twice, b"{}") == digest


def test_an_empty_body_without_identifier_has_no_identity() -> None:
    assert delivery_identity({"X-Atlassian-Webhook-Identifier": "abc-1"}, b"") == "abc-1"
    with pytest.raises(PayloadMalformed, match="cannot be told from the next"):
        delivery_identity({}, b"")


@given(headers=st.lists(st.tuples(st.binary(), st.binary())), body=st.binary(min_size=1))
def test_identity_is_printable_whatever_the_headers(
    headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    assert delivery_identity(headers, body).isprintable()


CREATED = (
    b'{"webhookEvent":"jira:issue_created","issue":{"id":"7","key":"ABC-1",'
    b'"fields":{"project":{"id":"1","key":"ABC"}}}}'
)
LABELLED = (
    b'{"webhookEvent":"jira:issue_updated","issue_event_type_name":"issue_updated",'
    b'"issue":{"id":"7","key":"ABC-1"},'
    b'"changelog":{"items":[{"field":"labels","fieldId":"labels"}]}}'
)


def test_routing_matches_event_project_field_and_type() -> None:
    processor: WebhookProcessor[str] = WebhookProcessor()
    processor.register_handler("all", event="*")
    processor.register_handler("created", event="issue_created", project="ABC")
    processor.register_handler("elsewhere", event="jira:issue_created", project="XYZ")
    processor.register_handler("labels", field="labels")
    processor.register_handler("assigned", event_type="issue_assigned")
    assert processor.route(parse_event(CREATED)) == ("all", "created")
    assert processor.route(parse_event(LABELLED)) == ("all", "labels")
    assert processor.route(parse_event(b'{"webhookEvent":"new_thing"}')) == ("all",)


def test_an_empty_event_name_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        WebhookProcessor[str]().register_handler("x", event="")


class Recorder(WebhookHandler):
    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_issue_created(self, event: object) -> None:
        self.seen.append("created")

    async def on_other_event(self, event: object) -> None:
        self.seen.append("other")


async def test_processor_verifies_then_runs_the_method_of_the_event() -> None:
    recorder = Recorder()
    processor: WebhookProcessor[WebhookHandler] = WebhookProcessor(["s"])
    processor.register_handler(recorder)
    event = await processor.process_raw_event(CREATED, {"X-Hub-Signature": sign(CREATED, b"s")})
    await processor.process_event(parse_event(LABELLED))
    await processor.process_event(parse_event(b'{"webhookEvent":"jira:issue_deleted"}'))
    await processor.process_event(parse_event(b'{"webhookEvent":"sprint_started"}'))
    assert event.issue_key == "ABC-1"
    assert recorder.seen == ["created", "other"]
    with pytest.raises(SignatureWrong):
        await processor.process_raw_event(LABELLED, {"X-Hub-Signature": sign(CREATED, b"s")})
    assert recorder.seen == ["created", "other"]


async def test_logging_handler_writes_one_line_that_stays_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "llm_integrations.jira")
    processor: WebhookProcessor[WebhookHandler] = WebhookProcessor()
    processor.register_handler(LoggingWebhookHandler())
    names = ["jira:issue_created", "jira:issue_updated", "jira:issue_deleted", "evil\\nline"]
    for name in names:
        await processor.process_event(parse_event(b'{"webhookEvent":"%s"}' % name.encode()))
    await processor.process_event(parse_event(CREATED))
    await processor.process_event(parse_event(CREATED.replace(b'"key":"ABC-1",', b"")))
    assert len(caplog.messages) == len(names) + 2
    assert "issue 'ABC-1'" in caplog.messages[-2]
    assert "issue '7'" in caplog.messages[-1]
    assert not any("\n" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        (b'{"webhookEvent":"jira:issue_created"}', "issue"),
        (b'{"webhookEvent":"comment_created"}', "comment"),
        (b'{"webhookEvent":"worklog_created"}', "worklog"),
    ],
)
def test_validation_names_the_missing_part(body: bytes, missing: str) -> None:
    processor: WebhookProcessor[str] = WebhookProcessor()
    with pytest.raises(PayloadMalformed, match=missing):
        processor.validate_event(parse_event(body))
    processor.validate_event(parse_event(CREATED))
    processor.validate_event(parse_event(b'{"webhookEvent":"sprint_started"}'))


def test_routing_matches_the_issues_type_and_the_beginning_of_a_name() -> None:
    processor: WebhookProcessor[str] = WebhookProcessor()
    processor.register_handler("bugs", issue_type="Bug")
    processor.register_handler("by id", issue_type="10001")
    processor.register_handler("stories", issue_type="Story")
    processor.register_handler("sprints", event="sprint_*")
    body = (
        b'{"webhookEvent":"jira:issue_created","issue":{"id":"7",'
        b'"fields":{"issuetype":{"id":10001,"name":"Bug"}}}}'
    )
    assert processor.route(parse_event(body)) == ("bugs", "by id")
    assert processor.route(parse_event(b'{"webhookEvent":"sprint_closed"}')) == ("sprints",)
    assert processor.route(parse_event(b'{"webhookEvent":"spring_closed"}')) == ()


def test_handlers_come_in_their_order_and_then_as_registered() -> None:
    processor: WebhookProcessor[str] = WebhookProcessor()
    processor.register_handler("c")
    for name, order in (("a", -1), ("d", 0), ("b", -1), ("e", 1)):
        processor.register_handler(name, order=order)
    assert processor.route(parse_event(CREATED)) == ("a", "b", "c", "d", "e")


class Picky(Recorder):
    def wants(self, event: WebhookEvent) -> bool:
        return event.issue_key == "ABC-2"


async def test_a_handler_may_decline_an_event_that_was_routed_to_it() -> None:
    picky, recorder = Picky(), Recorder()
    processor: WebhookProcessor[WebhookHandler] = WebhookProcessor()
    processor.register_handler(picky)
    processor.register_handler(recorder)
    await processor.process_event(parse_event(CREATED))
    await processor.process_event(parse_event(CREATED.replace(b"ABC-1", b"ABC-2")))
    assert (picky.seen, recorder.seen) == (["created"], ["created", "created"])


def test_a_delivery_that_was_seen_is_not_new_until_it_is_forgotten() -> None:
    seen = SeenDeliveries(keep_s=60, most=2)
    identity = delivery_identity({}, CREATED)
    assert seen.add(identity, 0)
    assert not seen.add(delivery_identity({}, CREATED), 59)
    assert seen.add(delivery_identity({}, LABELLED), 59)
    assert seen.add(identity, 60)
    assert not seen.add(delivery_identity({}, LABELLED), 60)
    assert not seen.add(identity, 61)
    assert seen.add("third", 61)
    assert seen.add(delivery_identity({}, LABELLED), 62)


def test_a_delivery_whose_work_failed_is_new_again_once_it_is_forgotten() -> None:
    seen = SeenDeliveries()
    assert seen.add("a", 0.0)
    seen.forget("a")
    seen.forget("never came")
    assert seen.add("a", 1.0)
    assert not seen.add("a", 2.0)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("jira:issue_*", {"jira:issue_created"}),
        ("issue_*", {"jira:issue_created", "issue_property_set"}),
        ("jira:*", {"jira:issue_created", "jira:version_released"}),
        ("issue_created", {"jira:issue_created"}),
        ("jira:issue_property_set", {"issue_property_set"}),
        ("*", {"jira:issue_created", "issue_property_set", "jira:version_released", "custom"}),
    ],
)
def test_a_beginning_with_jiras_prefix_means_only_names_that_have_it(
    wanted: str, names: set[str]
) -> None:
    processor: WebhookProcessor[str] = WebhookProcessor()
    processor.register_handler("it", event=wanted)
    told = ("jira:issue_created", "issue_property_set", "jira:version_released", "custom")
    assert {name for name in told if processor.route(WebhookEvent(name=name))} == names
