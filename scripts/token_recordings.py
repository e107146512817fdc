"""Recorded requests with what they were billed for: what estimates of tokens are fitted to.

In: the folder of `messages.jsonl` and `streams.jsonl`. Out: `Recording`s, each prompt of a model
once, without those that were written or edited by hand.
"""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from llm_integrations.anthropic import StreamCollector, parse_events, parse_message
from llm_integrations.anthropic.catalogue import CatalogueEntry, find_model
from llm_integrations.anthropic.tokens.prompts import Prompt, read_prompt

Json: TypeAlias = Any  # the JSON border

OLDER, NEWER = "2024", "2026"
GRADES: Final = {"recorded", "recorded_stripped"}
FLAGS: Final = {"usage_hand_edited", "multi_message_start", "odd_message_id"}


@dataclass(frozen=True)
class Recording:
    """A recorded request with what it was billed for, and its answer where that is only text."""

    repo: str
    model: str
    request: dict[str, Json]
    input_tokens: int
    answer: str | None = None
    output_tokens: int = 0
    entry: CatalogueEntry | None = None

    @property
    def tokenizer(self) -> str | None:
        """The tokenizer that counted it; None for models before Claude 3."""
        if self.entry is None:
            return None if self.model.startswith("claude-2") else NEWER
        return self.entry.tokenizer


def read_recordings(folder: Path) -> Iterator[Recording]:
    """Yield what was really recorded, each prompt of a model once."""
    seen: set[tuple[str, str]] = set()
    for name in ("messages.jsonl", "streams.jsonl"):
        with (folder / name).open(encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                if record["grade"] not in GRADES or FLAGS & set(record["flags"]):
                    continue
                if not isinstance(record["request"], dict):
                    continue
                found = _recording(record)
                key = (found.model, json.dumps(found.request, sort_keys=True))
                if found.input_tokens and key not in seen:
                    seen.add(key)
                    yield found


def _recording(record: Mapping[str, Json]) -> Recording:
    if "response_sse" in record:
        collector = StreamCollector()
        for event in parse_events([record["response_sse"].encode()]):
            collector.add(event)
        message = collector.message()
    else:
        message = parse_message(json.dumps(record["response_body"]).encode())
    request = with_image_heads(record["request"], record["blobs"])
    model = str(request.get("model"))
    plain = message.stop_reason == "end_turn" and not request.get("thinking")
    only_text = plain and all(block.type == "text" for block in message.content)
    return Recording(
        repo=record["source_repo"],
        model=model,
        request=request,
        input_tokens=message.usage.prompt_tokens,
        answer=message.text if only_text and message.text else None,
        output_tokens=message.usage.output_tokens,
        entry=find_model(model) or find_model(message.model),
    )


def with_image_heads(request: dict[str, Json], blobs: Sequence[Mapping[str, Json]]) -> Json:
    """Return a request whose elided images are a PNG's head of the recorded size.

    Elided PDFs of a known number of pages become so many page marks.
    """
    stand_ins = {blob["sha256"][:16]: _stand_in(blob) for blob in blobs if blob.get("elided")}
    text = json.dumps(request)
    for blob in blobs:
        if (stand_in := stand_ins.get(blob["sha256"][:16])) is not None:
            elided = f"[elided base64 sha256={blob['sha256'][:16]} bytes={blob['bytes']}]"
            text = text.replace(elided, stand_in)
    return json.loads(text)


def _stand_in(blob: Mapping[str, Json]) -> str | None:
    if blob.get("width"):
        header = b"IHDR" + struct.pack(">IIBBBBB", blob["width"], blob["height"], 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        return b64encode(b"\x89PNG\r\n\x1a\n" + chunk).decode()
    if blob.get("pages"):
        return b64encode(b"%PDF-1.4\n" + b"/Type /Page\n" * blob["pages"]).decode()
    return None


def prompt_of(recording: Recording) -> Prompt:
    """Return the parts of a recorded prompt."""
    most = 4_784 if recording.entry is None else recording.entry.image_tokens
    return read_prompt(recording.request, most_image_tokens=most)


def is_text(recording: Recording, prompt: Prompt) -> bool:
    """Whether a prompt is nothing but text."""
    config = recording.request.get("output_config") or {}
    return (
        not any(recording.request.get(name) for name in ("tools", "thinking", "mcp_servers"))
        and not recording.request.get("context_management")
        and not set(config) - {"effort"}
        and set(+prompt.parts) <= {"request", "message"}
        and not prompt.guess.spread
    )
