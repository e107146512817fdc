"""What Markdown cannot say: an ADF node, whole, in a fenced block of the language `adf`. Pure.

In: a node, or a code block. Out: the fence as Markdown, or the node that a code block holds. The
node travels as one line of JSON, so media and macros come back byte for byte. Must not: take what
a document may not hold; then the code block is a code block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, cast

import msgspec

from llm_integrations._core.codec import Undecodable, decode, encode
from llm_integrations.jira.adf.inline import Node
from llm_integrations.jira.adf.nodes import is_block

__all__ = ["read_fence", "write_fence"]

LANGUAGE: Final = "adf"
# What the reader of Markdown drops or changes outside of escapes.
_UNSAFE: Final = re.compile("[\x7f\ufffe\uffff]")
_node: Final[msgspec.json.Decoder[dict[str, object]]] = msgspec.json.Decoder(dict[str, object])


def write_fence(node: Mapping[str, object]) -> str | None:
    """Return the fence of a node, None for one that no document may hold."""
    if not is_block(node):
        return None
    try:
        json = encode(dict(node)).decode()
    except UnicodeEncodeError:  # a lone surrogate: no JSON can say it
        return None
    json = _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", json)
    longest = max((len(run) for run in re.findall("`+", json)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{LANGUAGE}\n{json}\n{ticks}"


def read_fence(block: Node) -> Node:
    """Return the node that a code block holds, or the block itself when it holds none."""
    attrs = block.get("attrs")
    content = cast("list[Node]", block.get("content", []))
    if block.get("type") != "codeBlock" or not content or attrs != {"language": LANGUAGE}:
        return block
    try:
        node = decode(_node, str(content[0]["text"]).encode())
    except (Undecodable, UnicodeEncodeError):
        return block
    return node if is_block(node) else block
