"""The bearer tokens of dynamic webhooks: who is believed, and until when."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integrations.errors import BadDelivery, SignatureMissing, SignatureWrong
from llm_integrations.jira import verify_token

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECRET = "client secret"


def encoded(part: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")


def token(
    *, secret: str = SECRET, alg: object = "HS256", lasts_s: float = 180, claims: object = None
) -> str:
    said = {"iss": "app", "exp": NOW.timestamp() + lasts_s} if claims is None else claims
    signed = encoded({"alg": alg, "typ": "JWT"}) + b"." + encoded(said)
    signature = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def test_a_live_token_of_the_application_is_believed() -> None:
    verify_token({"Authorization": f"Bearer {token()}"}, SECRET, now=NOW)
    verify_token([(b"AUTHORIZATION", f"bearer {token()}".encode())], ["new", SECRET], now=NOW)
    verify_token({"authorization": f"Bearer {token(lasts_s=-59)}"}, SECRET, now=NOW)


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {token(secret='other')}",
        f"Bearer {token(lasts_s=-61)}",
        f"Bearer {token(alg='none')}",
        f"Bearer {token(alg='RS256')}",
        f"Bearer {token(alg=7)}",
        f"Bearer {token(claims={'iss': 'app'})}",
        f"Bearer {token(claims=['exp'])}",
        f"Bearer {token(claims={'exp': 'soon'})}",
        "Bearer a.b.c",
        "Bearer ...",
        "Bearer é.é.é",
        "Bearer one",
    ],
)
def test_everything_else_is_wrong(value: str) -> None:
    with pytest.raises(SignatureWrong):
        verify_token({"authorization": value}, SECRET, now=NOW)


def test_a_token_without_a_signature_is_wrong_whatever_it_says() -> None:
    unsigned = encoded({"alg": "none"}) + b"." + encoded({"exp": NOW.timestamp() + 60}) + b"."
    with pytest.raises(SignatureWrong):
        verify_token({"authorization": f"Bearer {unsigned.decode()}"}, SECRET, now=NOW)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic YTpi"}, {"authorization": ""}])
def test_no_token_is_missing(headers: dict[str, str]) -> None:
    with pytest.raises(SignatureMissing):
        verify_token(headers, SECRET, now=NOW)


def test_two_tokens_and_no_secret_are_refused() -> None:
    pair = ("authorization", f"Bearer {token()}")
    with pytest.raises(SignatureWrong):
        verify_token([pair, pair], SECRET, now=NOW)
    nobodys = ("authorization", f"Bearer {token(secret='')}")
    for secrets in ([], "", [""]):
        for given_pair in (pair, nobodys):
            with pytest.raises(SignatureWrong, match="no secret"):
                verify_token([given_pair], secrets, now=NOW)


def test_a_token_may_be_a_minute_over_and_not_more() -> None:
    verify_token({"authorization": f"Bearer {token(lasts_s=-60)}"}, SECRET, now=NOW)
    with pytest.raises(SignatureWrong, match="has ended"):
        verify_token({"authorization": f"Bearer {token(lasts_s=-60.5)}"}, SECRET, now=NOW)


def test_a_signature_has_one_spelling() -> None:
    with pytest.raises(SignatureWrong, match="cannot be read"):
        verify_token({"authorization": f"Bearer {token()[:-1]}!!!!{token()[-1]}"}, SECRET, now=NOW)
    with pytest.raises(SignatureWrong, match="not made with this secret"):
        verify_token({"authorization": f"Bearer {token(secret='other')}"}, SECRET, now=NOW)


@given(value=st.text() | st.binary(), lasts=st.timedeltas(max_value=timedelta(days=1)))
def test_whatever_comes_it_returns_or_raises_bad_delivery(
    value: str | bytes, lasts: timedelta
) -> None:
    for given_value in (
        value,
        b"Bearer " + value if isinstance(value, bytes) else "Bearer " + value,
    ):
        with pytest.raises(BadDelivery):
            verify_token([("authorization", given_value)], SECRET, now=NOW)
    bearer = f"Bearer {token(lasts_s=lasts.total_seconds())}"
    if lasts.total_seconds() >= -60:
        verify_token({"authorization": bearer}, SECRET, now=NOW)
    else:
        with pytest.raises(SignatureWrong):
            verify_token({"authorization": bearer}, SECRET, now=NOW)
