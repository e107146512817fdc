"""How each kind of Jira is spoken to: Cloud in ADF and account ids, Data Center in wiki and names.

In: Markdown, user ids. Out: what requests carry. Pure. Next room: `field_values`, `requests`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from llm_integrations.jira import adf
from llm_integrations.jira.adf import wiki
from llm_integrations.jira.adf.markdown import parse_blocks
from llm_integrations.jira.adf.splitting import split

__all__ = ["CLOUD", "SERVER", "Dialect"]

_LEAST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a kind of Jira is spoken to.

    Attributes:
        api: the REST version: 3 on Cloud, 2 on Data Center.
        user_member: what names a user: `accountId`, on Data Center `name`.
    """

    is_cloud: bool
    api: str
    user_member: str

    def rich(self, markdown: str) -> object:
        """Return Markdown as this kind of Jira stores it.

        Raises:
            InvalidRequest: it is longer than Jira stores.
        """
        return (
            adf.from_markdown(markdown, fences=False)
            if self.is_cloud
            else wiki.from_markdown(markdown)
        )

    def rich_parts(self, markdown: str) -> list[object]:
        """Return Markdown of any length as this kind of Jira stores it, in parts that it takes."""
        doc = {"type": "doc", "version": 1, "content": parse_blocks(markdown)}
        if self.is_cloud:
            return list(split(doc))
        # Markup is longer than the text in it; half the limit leaves room for it, mostly.
        return list(_markup(doc, adf.TEXT_LIMIT // 2))

    def user(self, user_id: str | None) -> dict[str, str | None]:
        """Return a user reference."""
        return {self.user_member: user_id}


def _markup(doc: Mapping[str, object], limit: int) -> Iterator[str]:
    """Yield a document's parts of at most `limit` characters of text, or less where it must be."""
    for part in split(doc, limit=limit):
        markup = wiki.from_adf(part)
        if len(markup) > adf.TEXT_LIMIT and limit > _LEAST:
            yield from _markup(part, limit * 2 // 3)
        else:
            yield markup


CLOUD: Final = Dialect(is_cloud=True, api="3", user_member="accountId")
SERVER: Final = Dialect(is_cloud=False, api="2", user_member="name")
