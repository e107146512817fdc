"""Makes the answer to a prompt by plain rules, and says in every text that it is simulated.

In this order:
1. `[[refuse]]` in the last user text: a refusal with no output. `[[refuse-midway]]`: half of the
   answer, then a refusal.
2. Thinking, where it was asked for, or where the model thinks by default and the text is long.
3. Tools: forced by `tool_choice`, or named in the text ("use the NAME tool"); the input obeys the
   tool's schema (`obeying`).
4. `output_config.format`: JSON that obeys the schema.
5. Otherwise text: what was asked, in short; `[[words:500]]` asks for that many words.
An injected order (`reading`) is obeyed by 3 to 5 as far as they can, unless the simulator was
told not to be gullible. Last, stop sequences and `max_tokens` cut what was made.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from llm_integrations.simulators.anthropic.checks import Checked
from llm_integrations.simulators.anthropic.obeying import Reading, obey
from llm_integrations.simulators.anthropic.prompt import Prompt, blocks_of
from llm_integrations.simulators.anthropic.reading import excerpt, find_injection, named_tools
from llm_integrations.simulators.anthropic.tokens import compact_json, split_output

__all__ = ["Answer", "Part", "make_answer"]

_REFUSE: Final = "[[refuse]]"
_REFUSE_MIDWAY: Final = "[[refuse-midway]]"
_WORDS_WANTED: Final = re.compile(r"\[\[words:(\d{1,5})\]\]")
_LONG_TEXT_WORDS: Final = 40
_ROOM_TO_THINK: Final = 512
_SIGNATURE_BYTES: Final = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One content block, in pieces of one output token each."""

    kind: str  # `text`, `thinking` or `tool_use`
    pieces: tuple[str, ...]
    shown: bool = True  # thinking may be counted without being shown
    signature: str = ""
    id: str = ""
    name: str = ""

    @property
    def text(self) -> str:
        """The pieces joined."""
        return "".join(self.pieces)

    def block(self) -> dict[str, object]:
        """Return the block as it stands in a finished message."""
        match self.kind:
            case "thinking":
                shown = self.text if self.shown else ""
                return {"type": "thinking", "thinking": shown, "signature": self.signature}
            case "tool_use":
                return {"type": "tool_use", "id": self.id, "name": self.name, "input": self._input}
            case _:
                return {"type": "text", "text": self.text}

    @property
    def _input(self) -> object:
        try:
            return json.loads(self.text)
        except json.JSONDecodeError:  # cut by max_tokens
            return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All that the simulated model says."""

    parts: tuple[Part, ...] = ()
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    stop_details: Mapping[str, object] | None = None

    @property
    def output_tokens(self) -> int:
        """What the whole answer costs in output."""
        return sum(len(part.pieces) for part in self.parts)

    @property
    def thinking_tokens(self) -> int:
        """How much of it was thinking."""
        return sum(len(part.pieces) for part in self.parts if part.kind == "thinking")

    def cut_to(self, tokens: int, stop_reason: str) -> "Answer":
        """Return the answer ended after so many output tokens, if it is longer than that."""
        if self.output_tokens <= tokens:
            return self
        kept = []
        for part in self.parts:
            if tokens <= 0:
                break
            kept.append(replace(part, pieces=part.pieces[:tokens]))
            tokens -= len(part.pieces)
        return Answer(parts=tuple(kept), stop_reason=stop_reason)


def make_answer(checked: Checked, prompt: Prompt, *, gullible: bool, identity: str) -> Answer:
    """Return the answer to a prompt; `identity` makes tool ids and signatures its own."""
    if _REFUSE in prompt.last_user_text:
        return Answer(stop_reason="refusal", stop_details=_refusal())
    order = find_injection(prompt.last_user_text) if gullible else None
    reading = Reading(text=prompt.last_user_text, order=order)
    body = checked.body
    thinking = _thinking(checked, prompt, identity)
    tools = list(_tool_uses(body, prompt, reading, identity))
    if tools:
        answer = Answer(parts=(*thinking, *tools), stop_reason="tool_use")
    else:
        text = Part(kind="text", pieces=tuple(split_output(_text(body, prompt, reading))))
        answer = _stopped(Answer(parts=(*thinking, text)), body.get("stop_sequences"))
    if _REFUSE_MIDWAY in prompt.last_user_text:
        half = answer.cut_to(max(1, answer.output_tokens // 2), "refusal")
        answer = replace(half, stop_reason="refusal", stop_details=_refusal())
    return _cut(answer, checked, prompt)


def _refusal() -> dict[str, object]:
    return {
        "type": "refusal",
        "category": "general_harms",
        "explanation": "Simulated refusal: the text asked for it.",
    }


def _cut(answer: Answer, checked: Checked, prompt: Prompt) -> Answer:
    room = checked.model.context - prompt.tokens
    if room < checked.max_tokens:
        return answer.cut_to(room, "model_context_window_exceeded")
    return answer.cut_to(checked.max_tokens, "max_tokens")


def _stopped(answer: Answer, sequences: object) -> Answer:
    text = answer.parts[-1].text
    found = [
        (text.index(one), one)
        for one in (sequences if isinstance(sequences, list) else ())
        if one and one in text
    ]
    if not found:
        return answer
    at, sequence = min(found)
    last = replace(answer.parts[-1], pieces=tuple(split_output(text[:at])))
    parts = (*answer.parts[:-1], last)
    return replace(answer, parts=parts, stop_reason="stop_sequence", stop_sequence=sequence)


def _thinking(checked: Checked, prompt: Prompt, identity: str) -> Iterable[Part]:
    asked = checked.body.get("thinking")
    kind = asked.get("type") if isinstance(asked, dict) else None
    count = len(prompt.last_user_text.split())
    by_default = (
        checked.model.thinks_by_default
        and count >= _LONG_TEXT_WORDS
        and checked.max_tokens >= _ROOM_TO_THINK
    )
    if kind in {"disabled", "between_tools"} or (kind is None and not by_default):
        return
    display = asked.get("display") if isinstance(asked, dict) else None
    default = "omitted" if checked.model.is_from_4_7 else "summarized"
    text = f"Simulated thinking: the text has {count} words, a plain rule makes the answer."
    yield Part(
        kind="thinking",
        pieces=tuple(split_output(text)),
        shown=(display or default) == "summarized",
        signature=_signature(identity),
    )


def _signature(identity: str) -> str:
    digest = hashlib.shake_256(identity.encode()).digest(_SIGNATURE_BYTES)
    return base64.b64encode(digest).decode()


def _tool_uses(
    body: Mapping[str, object], prompt: Prompt, reading: Reading, identity: str
) -> Iterable[Part]:
    tools = {str(tool["name"]): tool for tool in blocks_of(body.get("tools"))}
    own = [name for name, tool in tools.items() if isinstance(tool.get("input_schema"), dict)]
    choice = body.get("tool_choice")
    choice = choice if isinstance(choice, dict) else {"type": "auto"}
    names = _tool_names(choice, own, prompt)
    if choice.get("disable_parallel_tool_use") is True:
        names = names[:1]
    if names and choice.get("type") == "auto":
        text = f"Simulated answer: using {', '.join(names)}."
        yield Part(kind="text", pieces=tuple(split_output(text)))
    for at, name in enumerate(names):
        schema = tools[name]["input_schema"]
        value = obey(schema if isinstance(schema, dict) else {}, reading)
        yield Part(
            kind="tool_use",
            pieces=tuple(split_output(compact_json(value))),
            id=f"toolu_01{_letters(f'{identity}:{at}')}",
            name=name,
        )


def _tool_names(choice: Mapping[str, object], own: Sequence[str], prompt: Prompt) -> list[str]:
    named = [] if prompt.answers_tool else named_tools(own, prompt.last_user_text)
    match choice.get("type"):
        case "none":
            return []
        case "tool":
            return [name for name in own if name == choice.get("name")]
        case "any":
            return named or list(own[:1])
        case _:
            return named


def _letters(identity: str) -> str:
    return hashlib.blake2b(identity.encode(), digest_size=11).hexdigest()


def _text(body: Mapping[str, object], prompt: Prompt, reading: Reading) -> str:
    output = body.get("output_config")
    form = output.get("format") if isinstance(output, dict) else None
    if isinstance(form, dict):
        return compact_json(obey(form["schema"], reading))
    if reading.order is not None:
        return reading.sentence()
    wanted = _WORDS_WANTED.search(prompt.last_user_text)
    if wanted is not None:
        return " ".join(["Simulated answer:", *(f"word{at}" for at in range(int(wanted[1])))])
    count = len(prompt.last_user_text.split())
    about = "the tool's result" if prompt.answers_tool else "your text"
    return (
        "Simulated answer: made by a plain rule, no model was asked. "
        f"The beginning of {about} ({count} words): {excerpt(prompt.last_user_text)}"
    )
