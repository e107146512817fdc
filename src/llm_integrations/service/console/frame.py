"""What every page of the console has: head, first and last line, and the chips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from llm_integrations.service.console.markup import Html, element, join

__all__ = ["NOTHING", "Mode", "chip", "document", "standalone"]

NOTHING: Final = element("span", "\N{EN DASH}", class_="faint")
Mode: TypeAlias = Literal["dry-run", "apply"]


def chip(label: str, kind: str, explanation: str = "") -> Html:
    """Return a word on a coloured ground, with a sentence beside it where one helps."""
    word = element("span", label, class_=f"chip {kind}")
    return join([word, element("span", explanation, class_="explained") if explanation else None])


def document(title: str, main: Sequence[Html | None], *, live: str | None = None) -> Html:
    """Return a whole page; `live` is where its script hears of changes."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · llm-integrations"),
        element("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        element("link", rel="stylesheet", href="/static/console.css"),
        element("script", src="/static/console.js", defer=True) if live else None,
    )
    status = element("span", "live updates need JavaScript", id="live", role="status")
    body = element(
        "body",
        element("a", "Skip to the deliveries", href="#main", class_="skip"),
        element(
            "header",
            element("a", "llm-integrations", href="/", class_="home"),
            element("nav", element("a", "Spend", href="/spend"), aria_label="Pages of the console"),
            status if live else None,
        ),
        element("main", *main, id="main", tabindex="-1"),
        data_live=live,
    )
    return _whole(head, body)


def standalone(title: str, main: Sequence[Html | None], style: str) -> Html:
    """Return a whole page in one file, which asks nobody for anything."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · llm-integrations"),
        Html(f"<style>{style}</style>"),  # our own file, where an escaped > would be no CSS
    )
    home = element("span", "llm-integrations", class_="home")
    return _whole(head, element("body", element("header", home), element("main", *main)))


def _whole(head: Html, body: Html) -> Html:
    return Html(f"<!doctype html>\n{element('html', head, body, lang='en')}\n")
