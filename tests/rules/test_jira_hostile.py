"""What a hostile person sends: depth without end, texts that cost time, markup out of its place."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from llm_integrations.errors import PayloadMalformed, SignatureWrong
from llm_integrations.jira import adf, parse_event, verify_token
from llm_integrations.jira.adf import wiki
from llm_integrations.jira.adf.splitting import split
from llm_integrations.jira.pacing.limits import pause_of, read_limits

Json = Any  # a test looks at JSON as it comes
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
KINDS = """
    blockquote bulletList codeBlock decisionList expand heading layoutSection listItem
    mention orderedList panel paragraph table tableCell tableRow taskItem taskList unknown
""".split()


def nested(kind: str, depth: int) -> dict[str, Json]:
    block: Json = {"type": "paragraph", "content": [{"type": "text", "text": "deep"}]}
    for _ in range(depth):
        block = {"type": kind, "content": [block]}
    return {"type": "doc", "version": 1, "content": [block]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_ten_thousand_levels_deep_is_read_without_failing(kind: str) -> None:
    doc = nested(kind, 10_000)
    assert split(doc, limit=10) == [doc]
    for read in (adf.to_markdown, adf.to_readable, adf.to_text, wiki.from_adf):
        assert "deep" not in read(doc)


@pytest.mark.parametrize("kind", ["expand", "panel", "bulletList", "tableCell", "unknown"])
def test_wiki_markup_keeps_the_text_that_is_deep_but_not_without_end(kind: str) -> None:
    assert "deep" in wiki.from_adf(nested(kind, 59))


@pytest.mark.parametrize(
    ("source", "markup"),
    [
        ("```py}{code}\n[~admin]\n```", "{code:none}\n[~admin]\n{code}"),
        ("```c++\nx\n```", "{code:c++}\nx\n{code}"),
        ("```{}\nx\n```", "{code:none}\nx\n{code}"),
        (
            "[t](https://x.org/]!https://evil.test/i.png!)",
            "[t|https://x.org/%5D%21https://evil.test/i.png%21]",
        ),
        ("[t](https://x.org/]{quote}[~admin])", "[t|https://x.org/%5D%7Bquote%7D%5B~admin%5D]"),
        ("[t](https://x.org/a|b)", "[t|https://x.org/a%7Cb]"),
        ("[t](https://x.org/a_b-c?d=*e*&f=%41#g)", "[t|https://x.org/a_b-c?d=*e*&f=%41#g]"),
    ],
)
def test_no_language_or_address_ends_its_place_in_wiki_markup(source: str, markup: str) -> None:
    assert wiki.from_markdown(source) == markup


@pytest.mark.parametrize("href", ["javascript:alert(1)", "https://x.org/\n{html}", "", 7, None])
def test_wiki_markup_has_no_link_that_is_not_allow_listed(href: object) -> None:
    text = {"type": "text", "text": "t", "marks": [{"type": "link", "attrs": {"href": href}}]}
    assert wiki.from_adf({"content": [{"type": "paragraph", "content": [text]}]}) == "t"


def read_and_write(text: str) -> None:
    doc = adf.from_markdown(text)
    adf.to_readable(doc)
    wiki.from_adf(doc)
    split(doc, limit=1_000)


def seconds(work: Callable[[str], object], text: str) -> float:
    """Return the CPU seconds of the quickest of two runs."""
    taken = []
    for _ in range(2):
        start = time.thread_time()
        work(text)
        taken.append(time.thread_time() - start)
    return min(taken)


def limits_of(text: str) -> None:
    read_limits(429, {"RateLimit": text, "RateLimit-Policy": text, "RateLimit-Reason": text}, NOW)


@pytest.mark.parametrize(
    ("work", "bits"),
    [
        (read_and_write, "> |- |*a |**a*|[|`|`a``b|[a](|~~a|~~*|_a|*_|*[|](|[x](<|<u>|<u>a|![a"),
        (
            read_and_write,
            '[x](https://a "|[x](https://a(|<https://a|https://a.b/|- x\n|2. a\n|> -\n',
        ),
        (wiki.to_markdown, "{{|{{a|[~|[a|[http://a|*a| -a|_a|{color:|{code}|bq. |\\|{quote}\n"),
        (limits_of, 'a;b="|"a|a;|a ;|a  |a;b|a;b=| ;|",|a;b="x";'),
    ],
)
def test_the_time_to_read_hostile_text_grows_as_its_length(
    work: Callable[[str], object], bits: str
) -> None:
    for bit in bits.split("|"):
        short, long = bit * (1_000 // len(bit)), bit * (8_000 // len(bit))
        # Eight times the text: 8 in linear time, 64 in quadratic; below a hundredth all is noise.
        assert seconds(work, long) < max(0.01, 24 * seconds(work, short)), bit


def test_many_open_monospaced_texts_cost_no_search_each() -> None:
    assert seconds(wiki.to_markdown, "{{" * 16_000) < 0.2
    assert wiki.to_markdown("{{a {b c}} {{d {{e}}") == "`a {b c` {{d `e`"


def token_of(head: bytes, claims: bytes) -> str:
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, claims))
    signature = hmac.new(b"s", signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


@pytest.mark.parametrize(
    ("head", "claims"),
    [
        (b"{", b'{"exp":9e9}'),
        (b"[]", b'{"exp":9e9}'),
        (b'{"alg":"HS256","alg":"none"}', b'{"exp":9e9}'),
        (b'{"alg":"\\ud800"}', b'{"exp":9e9}'),
        (b'{"alg":"HS256"}', b"\xff"),
        (b'{"alg":"HS256"}', b'{"exp":1e999}'),
        (b'{"alg":"HS256"}', b'{"exp":NaN}'),
        (b'{"alg":"HS256"}', b'{"exp":true}'),
        (b'{"alg":"HS256"}', b'{"exp":9e9,"a":' + b"[" * 100_000),
    ],
)
def test_a_token_whose_parts_are_no_claims_is_wrong_though_signed(
    head: bytes, claims: bytes
) -> None:
    good = token_of(b'{"alg":"HS256"}', b'{"exp":9e9}')
    verify_token({"authorization": f"Bearer {good}"}, "s", now=NOW)
    with pytest.raises(SignatureWrong):
        verify_token({"authorization": f"Bearer {token_of(head, claims)}"}, "s", now=NOW)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"issue":' * 50_000,
        b'{"a":"\\ud800","b":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xef\xbb\xbf{}",
    ],
)
def test_a_body_nested_without_end_is_malformed(body: bytes) -> None:
    with pytest.raises(PayloadMalformed):
        parse_event(body)


def test_numbers_without_end_are_absent() -> None:
    nines = b"9" * 5_000
    event = parse_event(b'{"timestamp":%b,"issue":{"id":%b,"key":"A-1"}}' % (nines, nines))
    assert (event.timestamp, event.issue_id, event.issue_key) == (None, None, "A-1")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("9" * 100_000, 86_400.0),
        ("1e-400", 0.0),
        ("-inf", 0.0),
        ("-nan", None),
        ("7s", None),
        ("7, 7", None),
        ("0x10", None),
        ("²", None),
        ("\x00", None),
        ("(" * 100_000, None),
        ("Sunday, 22-Nov-26 10:00:30 GMT", 30.0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 86_400.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("Sun, 99 Nov 2026 10:00:30 GMT", None),
        ("Sun, 22 Nov 2026 10:00:30 +99999999999999", None),
        ("22 Nov 2026 10:00:99999999999999999999 GMT", None),
    ],
)
def test_a_wait_in_an_odd_form_is_bounded_or_none(value: str, seconds: float | None) -> None:
    assert pause_of({"Retry-After": value}, NOW) == seconds
