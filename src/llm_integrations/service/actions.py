"""What a handler may ask for: actions as values.

A handler returns these; `policy` judges them; `delivery` alone carries them out. They are plain
Structs that survive a round trip through JSON, because a decision is stored before it is applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, assert_never

import msgspec

__all__ = [
    "Action",
    "AddComment",
    "AddLabels",
    "EditComment",
    "NoAction",
    "SetFields",
    "Transition",
    "action_name",
    "decode_actions",
    "describe_action",
    "encode_actions",
]


class AddComment(msgspec.Struct, frozen=True, kw_only=True, tag="AddComment", tag_field="action"):
    """Write a comment.

    Attributes:
        text: Markdown.
        slot: with a slot there is one comment of that name per issue: the first one is written,
            later ones replace its text in place.
    """

    text: str
    slot: str = ""


class EditComment(msgspec.Struct, frozen=True, kw_only=True, tag="EditComment", tag_field="action"):
    """Replace the text of a comment that this account wrote."""

    comment_id: str
    text: str


class Transition(msgspec.Struct, frozen=True, kw_only=True, tag="Transition", tag_field="action"):
    """Move the issue to a status, by the status's name."""

    to: str


class SetFields(msgspec.Struct, frozen=True, kw_only=True, tag="SetFields", tag_field="action"):
    """Set whole field values, in the REST API's own form (`{"priority": {"name": "High"}}`)."""

    fields: dict[str, object]


class AddLabels(msgspec.Struct, frozen=True, kw_only=True, tag="AddLabels", tag_field="action"):
    """Add labels; those the issue has already stay as they are."""

    labels: tuple[str, ...]


class NoAction(msgspec.Struct, frozen=True, kw_only=True, tag="NoAction", tag_field="action"):
    """Decide to do nothing, and say why."""

    reason: str


Action: TypeAlias = AddComment | EditComment | Transition | SetFields | AddLabels | NoAction

_decoder: Final = msgspec.json.Decoder(list[Action])
_encoder: Final = msgspec.json.Encoder()


def encode_actions(actions: Sequence[Action]) -> bytes:
    """Return the actions as JSON, for the store."""
    return _encoder.encode(list(actions))


def decode_actions(data: bytes) -> list[Action]:
    """Read stored actions back.

    Raises:
        msgspec.ValidationError: they were stored by a version that knew other actions.
    """
    return _decoder.decode(data)


def action_name(action: Action) -> str:
    """Return the name that allow-lists use."""
    return type(action).__name__


def describe_action(action: Action) -> str:
    """Say in a few words what an action does, for tables and logs: names and sizes, no content."""
    match action:
        case AddComment(text=text, slot=slot):
            return f"comment {slot or 'new'} ({len(text)} characters)"
        case EditComment(comment_id=comment_id, text=text):
            return f"edit comment {comment_id} ({len(text)} characters)"
        case Transition(to=to):
            return f"move to {to}"
        case SetFields(fields=fields):
            return "set " + ", ".join(sorted(fields))
        case AddLabels(labels=labels):
            return "label " + ", ".join(labels)
        case NoAction(reason=reason):
            return f"nothing: {reason}"
        case _:
            assert_never(action)
