"""Credentials, TLS, client certificates and proxies, on real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from llm_integrations._core.admission import Actual
from llm_integrations.anthropic import (
    AiohttpTransport,
    AnthropicClient,
    AnthropicConfig,
    Httpx2Transport,
    Message,
    MessageRequest,
    Transport,
)
from llm_integrations.errors import ConfigError, ConnectFailed, TimedOut, TransportError
from tests.wire import answer, chunked, listening, replies, serving

ANSWER = answer(
    200,
    b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-haiku-5-5","content":'
    b'[{"type":"text","text":"Hello"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":9,"output_tokens":2}}',
    "request-id: req_1",
)
STREAM = chunked(
    b'data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
    b'"model":"claude-haiku-5-5","content":[],"stop_reason":null,"stop_sequence":null,'
    b'"usage":{"input_tokens":9,"output_tokens":1}}}\n\n',
    b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n',
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}'
    b"\n\n",
    b'data: {"type":"content_block_stop","index":0}\n\n',
    b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":2}}\n\ndata: {"type":"message_stop"}\n\n',
)


def ask(max_tokens: int = 50) -> MessageRequest:
    return MessageRequest(
        model="claude-haiku-5-5", max_tokens=max_tokens, messages=[Message.user("Hello")]
    )


def claude(base_url: str, transport: Transport, **settings: float) -> AnthropicClient:
    config = AnthropicConfig(api_key="k", base_url=base_url, max_retries=0, **settings)  # type: ignore[arg-type]
    return AnthropicClient(config, transport=transport)


# Credentials and settings


@pytest.mark.parametrize(
    ("environ", "header", "value"),
    [
        ({"ANTHROPIC_API_KEY": "key"}, "authorization", "Bearer key"),
        ({"ANTHROPIC_AUTH_TOKEN": "token"}, "authorization", "Bearer token"),
        (
            {"ANTHROPIC_API_KEY": "key", "ANTHROPIC_AUTH_TOKEN": "token"},
            "authorization",
            "Bearer key",
        ),
        (
            {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_WORKSPACE_ID": "wrkspc_1"},
            "anthropic-workspace-id",
            "wrkspc_1",
        ),
        (
            {
                "ANTHROPIC_API_KEY": "k",
                "ANTHROPIC_CUSTOM_HEADERS": "Anthropic-User-Profile-Id: u: 1\n\n X-Team : a",
            },
            "anthropic-user-profile-id",
            "u: 1",
        ),
    ],
)
def test_the_environment_is_read_as_the_official_sdk_reads_it(
    environ: dict[str, str], header: str, value: str
) -> None:
    assert AnthropicConfig.from_env(environ).request_headers()[header] == value


def test_an_auth_token_is_a_bearer_token_whatever_the_scheme_for_keys() -> None:
    token = AnthropicConfig(auth_token="token", auth_scheme="x-api-key").request_headers()
    assert token["authorization"] == "Bearer token"
    assert "x-api-key" not in token
    key = AnthropicConfig(api_key="key", auth_scheme="x-api-key", auth_token="t").request_headers()
    assert key["x-api-key"] == "key"
    assert "authorization" not in key


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "ANTHROPIC_API_KEY is not set"),
        ({"ANTHROPIC_API_KEY": " "}, "ANTHROPIC_API_KEY is not set"),
        ({"ANTHROPIC_PROFILE": "work"}, "ANTHROPIC_PROFILE is: profiles and identity federation"),
        ({"ANTHROPIC_IDENTITY_TOKEN_FILE": "jwt"}, "ANTHROPIC_IDENTITY_TOKEN_FILE is"),
        ({"ANTHROPIC_API_KEY": "k\u00fcy"}, "characters"),
        ({"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "api.example"}, "http:// or https://"),
        ({"ANTHROPIC_API_KEY": "k", "ANTHROPIC_CUSTOM_HEADERS": "nonsense"}, "CUSTOM_HEADERS"),
    ],
)
def test_an_environment_that_cannot_work_is_refused_by_name(
    environ: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        AnthropicConfig.from_env(environ)


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout_s": 0},
        {"content_timeout_s": -1},
        {"deadline_s": 0},
        {"max_retries": -1},
        {"rate_limit_per_minute": 0},
        {"auth_scheme": "X-API-Key"},
        {"wire": "streamed"},
        {"betas": "some-beta-2026-12-01"},
        {"api_key": ""},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        AnthropicConfig(**({"api_key": "k"} | settings))  # type: ignore[arg-type]


def test_no_secret_is_shown_by_a_config() -> None:
    config = AnthropicConfig(api_key="sk-1", auth_token="tok-2", headers={"x": "sk-3"})
    assert not {"sk-1", "tok-2", "sk-3"} & set(repr(config).replace("'", " ").split())


async def test_a_header_that_cannot_be_sent_is_a_setting_and_nothing_is_held() -> None:
    held: list[str] = []

    class Book:
        async def admit(self, _: object) -> object:
            held.append("admit")
            return None

        async def settle(self, _: object, actual: Actual) -> None:
            held.append(actual.state)

        async def cancel(self, _: object) -> None:
            held.append("cancel")

        def observe(self, *_: object) -> None:
            """Never called."""

    async with serving(replies(ANSWER)) as base_url:
        config = AnthropicConfig(api_key="k", base_url=base_url, headers={"x-team": "a\nb: c"})
        async with AnthropicClient(config, governor=Book()) as client:
            with pytest.raises(ConfigError):
                await client.send_message(ask())
    assert held == ["admit", "cancel"]


# TLS


@dataclass(frozen=True)
class Certificates:
    """A CA, a server at 127.0.0.1 and a client, each signed by it."""

    folder: Path

    def server(self, *, ask_client: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.folder / "ca.pem")
        return context

    def client(self, *, certificate: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if certificate:
            context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certificates]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command, to make a CA")
    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str, *options: str) -> None:
        new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        files = ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run(
            [openssl, *new.split(), *files, *options], cwd=folder, check=True, capture_output=True
        )

    make("ca", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
    make("server", *signed, "-addext", "subjectAltName=IP:127.0.0.1")
    make("client", *signed)
    yield Certificates(folder)
    shutil.rmtree(folder)


async def test_a_ca_of_the_company_is_trusted_where_it_is_given(certificates: Certificates) -> None:
    async with (
        serving(replies(ANSWER, STREAM), certificates.server()) as base_url,
        AiohttpTransport(tls=certificates.client()) as transport,
    ):
        client = claude(base_url, transport)
        assert (await client.send_message(ask())).text == "Hello"
        assert (await client.send_message(ask(9_000))).text == "Hello"


async def test_a_certificate_that_nobody_vouches_for_ends_before_anything_is_sent(
    certificates: Certificates,
) -> None:
    async with (
        serving(replies(ANSWER), certificates.server()) as base_url,
        AiohttpTransport() as transport,
    ):
        with pytest.raises(ConnectFailed, match="certificate") as caught:
            await claude(base_url, transport).send_message(ask())
    assert not caught.value.may_have_arrived


async def test_a_server_that_speaks_no_tls_is_no_connection() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with listening(hang_up) as port, AiohttpTransport() as transport:
        with pytest.raises(ConnectFailed) as caught:
            await claude(f"https://127.0.0.1:{port}", transport).send_message(ask())
    assert not caught.value.may_have_arrived


async def test_a_client_certificate_opens_a_server_that_asks_for_one(
    certificates: Certificates,
) -> None:
    async with (
        serving(replies(ANSWER), certificates.server(ask_client=True)) as base_url,
        AiohttpTransport(tls=certificates.client(certificate=True)) as with_one,
        AiohttpTransport(tls=certificates.client()) as without,
    ):
        assert (await claude(base_url, with_one).send_message(ask())).text == "Hello"
        with pytest.raises(TransportError):  # in TLS 1.3 the refusal comes after the request
            await claude(base_url, without).send_message(ask())


async def test_the_users_own_httpx2_client_brings_its_tls(certificates: Certificates) -> None:
    tls = certificates.client(certificate=True)
    async with (
        serving(replies(ANSWER, STREAM), certificates.server(ask_client=True)) as base_url,
        httpx2.AsyncClient(verify=tls, trust_env=False) as own,
    ):
        async with claude(base_url, Httpx2Transport(own)) as client:
            assert (await client.send_message(ask())).text == "Hello"
            assert (await client.send_message(ask(9_000))).text == "Hello"
        assert not own.is_closed


async def test_a_handshake_that_never_ends_is_no_connection_in_time() -> None:
    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(say_nothing) as port, AiohttpTransport(connect_timeout_s=0.1) as transport:
        with pytest.raises(ConnectFailed, match="no connection in time"):
            await claude(f"https://127.0.0.1:{port}", transport).send_message(ask())


# Proxies


@dataclass
class Proxy:
    """An HTTP proxy that knows only CONNECT."""

    url: str = ""
    reply: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        writer.write(self.reply)
        if b" 200 " not in self.reply:
            await reader.read()
            return
        host, _, port = head.split()[1].partition(":")
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        with contextlib.closing(inner_writer):
            back = asyncio.create_task(_copy(inner_reader, writer))
            await _copy(reader, inner_writer)
            back.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxying() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    async with listening(proxy.serve) as port:
        proxy.url = f"http://127.0.0.1:{port}"
        yield proxy


async def test_a_proxy_that_is_given_carries_tls_and_hears_its_own_credentials_only(
    certificates: Certificates,
) -> None:
    async with (
        serving(replies(ANSWER, STREAM), certificates.server()) as base_url,
        proxying() as proxy,
    ):
        url = proxy.url.replace("://", "://me:pass@")
        async with AiohttpTransport(tls=certificates.client(), proxy=url) as transport:
            client = claude(base_url, transport)
            assert (await client.send_message(ask())).text == "Hello"
            assert (await client.send_message(ask(9_000))).text == "Hello"
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT {base_url.removeprefix('https://')} ")
    assert base64.b64encode(b"me:pass").decode() in head
    assert "Bearer k" not in head


async def test_a_proxy_that_refuses_lets_nothing_through(certificates: Certificates) -> None:
    async with serving(replies(ANSWER), certificates.server()) as base_url, proxying() as proxy:
        proxy.reply = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
        async with AiohttpTransport(tls=certificates.client(), proxy=proxy.url) as transport:
            with pytest.raises(ConnectFailed) as caught:
                await claude(base_url, transport).send_message(ask())
    assert not caught.value.may_have_arrived


async def test_a_proxy_that_never_answers_is_no_connection_in_time() -> None:
    async with proxying() as proxy:
        proxy.reply = b""
        async with AiohttpTransport(connect_timeout_s=0.1, proxy=proxy.url) as transport:
            with pytest.raises(ConnectFailed, match="in time"):
                await claude("https://127.0.0.1:1", transport).send_message(ask())


async def test_the_environment_names_the_proxy_only_where_it_is_asked(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = certificates.client()
    async with serving(replies(ANSWER), certificates.server()) as base_url, proxying() as proxy:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("no_proxy", "example.com")
        async with AiohttpTransport(tls=tls) as transport:
            await claude(base_url, transport).send_message(ask())
        assert proxy.heads == []
        async with AiohttpTransport(tls=tls, trust_env=True) as transport:
            await claude(base_url, transport).send_message(ask())
        assert len(proxy.heads) == 1
        monkeypatch.setenv("no_proxy", "example.com,127.0.0.1")
        async with AiohttpTransport(tls=tls, trust_env=True) as transport:
            await claude(base_url, transport).send_message(ask())
        assert len(proxy.heads) == 1


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "127.0.0.1:3128"])
def test_a_proxy_of_another_kind_is_refused(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="proxy"):
        AiohttpTransport(proxy=proxy)
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(ConfigError, match="proxy"):
        AiohttpTransport(trust_env=True)


# The pool


async def test_what_never_had_a_connection_was_never_sent() -> None:
    async def say_nothing(_: int, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with serving(say_nothing) as base_url, AiohttpTransport(connections=1) as transport:
        first = asyncio.create_task(claude(base_url, transport).send_message(ask()))
        await asyncio.sleep(0.05)
        client = claude(base_url, transport, deadline_s=0.05)
        with pytest.raises(TimedOut) as caught:
            await client.send_message(ask())
        assert not caught.value.may_have_arrived
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(TimedOut) as caught:
            await client.send_message(ask())
        assert caught.value.may_have_arrived


def sockets_to(port: int) -> list[socket.socket]:
    """Return this process's connections to a port."""
    found = []
    for one in gc.get_objects():
        if type(one) is socket.socket and one.family == socket.AF_INET:
            with contextlib.suppress(OSError):
                if one.getpeername()[1] == port:
                    found.append(one)
    return found


async def test_a_connection_shows_signs_of_life_while_an_answer_takes_minutes() -> None:
    async with serving(replies(ANSWER)) as base_url, AiohttpTransport() as transport:
        await claude(base_url, transport).send_message(ask())
        [one] = sockets_to(int(base_url.rpartition(":")[2]))
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# Event loops and processes

LOOPS = """
import asyncio, os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from llm_integrations.anthropic import AnthropicClient, AnthropicConfig

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        asked.append(self.client_address)
        self.send_response(200)
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        pass

BODY = sys.argv[1].encode()
asked = []
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
config = AnthropicConfig(
    api_key="k", base_url=f"http://127.0.0.1:{server.server_port}", max_retries=0, timeout_s=20
)
client = AnthropicClient(config)

async def ask(times):
    for _ in range(times):
        assert await client.complete("Hi", model="claude-haiku-5-5", max_tokens=9) == "Hello"

for _ in range(3):
    asyncio.run(ask(2))
    if os.fork() == 0:
        asyncio.run(ask(2))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0

loop = asyncio.new_event_loop()  # one that nobody closes, beside another one
loop.run_until_complete(ask(2))
asyncio.run(ask(2))
loop.run_until_complete(ask(2))
loop.run_until_complete(client.aclose())
asyncio.run(client.aclose())
assert client.get_cost_stats().total.attempts == 12
assert len(asked) == 18
print(len(set(asked)), "connections")
"""


def test_one_client_serves_one_event_loop_after_another_and_a_forked_child() -> None:
    body = ANSWER.partition(b"\r\n\r\n")[2].decode()
    # That a child of a process with threads may hang is what newer Pythons say of the server's.
    quiet = ["-W", "ignore::ResourceWarning", "-W", "ignore::DeprecationWarning"]
    command = [sys.executable, *quiet, "-c", LOOPS, body]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "8 connections\n"  # each is used twice or more, and in one loop only
