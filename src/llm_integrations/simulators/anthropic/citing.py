"""Finds what an answer can cite: documents and search results that were sent with citations on.

https://platform.claude.com/docs/en/build-with-claude/citations: plain text is cited by
characters, a PDF by pages, a document of blocks and a search result by blocks. Pure.
"""

from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["find_citations"]

_CITED_CHARS: Final = 80

Json = Mapping[str, object]


def find_citations(request: Json) -> tuple[dict[str, object], ...]:
    """Return one citation of each source that may be cited, in the order of the sources."""
    documents = searches = 0
    found: list[dict[str, object]] = []
    for block in _sources(request.get("messages")):
        if block["type"] == "document":
            if _is_citable(block):
                found.extend(_document(block, documents))
            documents += 1
        else:
            if _is_citable(block):
                found.extend(_search_result(block, searches))
            searches += 1
    return tuple(found)


def _sources(value: object) -> Iterator[Json]:
    """Yield documents and search results, those in tool results too."""
    if isinstance(value, list):
        for item in value:
            yield from _sources(item)
    elif isinstance(value, dict):
        if str(value.get("type")) in {"document", "search_result"}:
            yield value
        else:
            yield from _sources(value.get("content"))


def _is_citable(block: Json) -> bool:
    citations = block.get("citations")
    return isinstance(citations, dict) and citations.get("enabled") is True


def _document(block: Json, index: int) -> Iterator[dict[str, object]]:
    source = block.get("source")
    source = source if isinstance(source, dict) else {}
    cited: dict[str, object] = {
        "document_index": index,
        "document_title": block.get("title"),
        "file_id": None,
    }
    match source.get("type"):
        case "text":
            text = str(source.get("data", ""))[:_CITED_CHARS]
            place = {"start_char_index": 0, "end_char_index": len(text)}
            yield {"type": "char_location", "cited_text": text, **cited, **place}
        case "content":
            text = _first_text(source.get("content"))
            blocks = {"start_block_index": 0, "end_block_index": 1}
            yield {"type": "content_block_location", "cited_text": text, **cited, **blocks}
        case "base64" | "url":
            text = "Simulated quotation of a page."
            pages = {"start_page_number": 1, "end_page_number": 2}
            yield {"type": "page_location", "cited_text": text, **cited, **pages}
        case _:
            return


def _search_result(block: Json, index: int) -> Iterator[dict[str, object]]:
    yield {
        "type": "search_result_location",
        "cited_text": _first_text(block.get("content")),
        "search_result_index": index,
        "source": block.get("source"),
        "title": block.get("title"),
        "start_block_index": 0,
        "end_block_index": 1,
    }


def _first_text(content: object) -> str:
    if isinstance(content, str):
        return content
    first = content[0] if isinstance(content, list) and content else None
    return str(first.get("text", "")) if isinstance(first, dict) else ""
