"""Bytes to payloads, whatever the chunks are."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations._core.sse import EventTooLarge, Splitter

_line = st.text(
    st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20
).map(lambda text: text.replace("\x00", ""))
_payloads = st.lists(_line.filter(lambda line: not line.startswith(" ")), max_size=8)


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(
    payloads=_payloads,
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    places=st.lists(st.integers(0, 1000), max_size=12),
)
def test_any_chunking_gives_the_same_payloads(
    payloads: list[str], line_end: str, places: list[int]
) -> None:
    text = "".join(f"event: x\ndata: {payload}\n\n" for payload in payloads)
    data = text.replace("\n", line_end).encode()
    splitter = Splitter()
    found = [payload for chunk in _cut(data, places) for payload in splitter.feed(chunk)]
    found += splitter.finish()
    assert found == [payload.encode() for payload in payloads if payload]


@given(data=st.binary(max_size=300), places=st.lists(st.integers(0, 300), max_size=6))
def test_no_bytes_raise_and_chunking_never_matters(data: bytes, places: list[int]) -> None:
    whole, cut = Splitter(), Splitter()
    expected = [*whole.feed(data), *whole.finish()]
    found = [payload for chunk in _cut(data, places) for payload in cut.feed(chunk)]
    assert [*found, *cut.finish()] == expected


def test_several_data_lines_are_joined_by_newlines() -> None:
    assert Splitter().feed(b"data: a\ndata:b\ndata\n\n") == [b"a\nb\n"]


def test_comments_and_events_without_data_yield_nothing() -> None:
    assert Splitter().feed(b": hello\n\nevent: ping\nid: 1\n\n") == []
    assert Splitter().feed(b"data:\n\ndata: \n\ndata\n\nevent: x\ndata: \n\n") == []


def test_line_separators_of_unicode_are_text() -> None:
    payload = "a\u2028b\u0085c".encode()
    assert Splitter().feed(b"data: " + payload + b"\n\n") == [payload]


def test_a_byte_order_mark_is_skipped_once() -> None:
    assert Splitter().feed(b"\xef\xbb\xbfdata: a\n\n") == [b"a"]


def test_a_field_that_only_begins_like_data_is_no_data() -> None:
    assert Splitter().feed(b"database: a\ndata: b\n\n") == [b"b"]


def test_an_event_before_its_empty_line_comes_only_from_finish() -> None:
    splitter = Splitter()
    assert splitter.feed(b"data: cut") == []
    assert splitter.finish() == [b"cut"]
    assert splitter.finish() == []


def test_a_huge_event_takes_time_by_its_length_whatever_its_line_ends() -> None:
    splitter, lines = Splitter(), (b"data: " + b"a" * 58 + b"\r\n") * 64
    began = time.process_time()
    for _ in range(1_024):
        assert splitter.feed(lines) == []
    [payload] = splitter.feed(b"\r\n")
    assert len(payload) == 59 * 65_536 - 1
    assert time.process_time() - began < 2  # 20 s if all that came is folded with each piece


def test_an_event_above_the_cap_ends_the_stream() -> None:
    splitter = Splitter(max_event_bytes=10)
    with pytest.raises(EventTooLarge):
        splitter.feed(b"data: 0123456789")
