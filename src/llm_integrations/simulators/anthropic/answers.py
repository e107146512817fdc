"""Makes the answer to a prompt by plain rules, and says in every text that it is simulated.

In this order:
1. `[[refuse]]` in the last user text: a refusal with no output. `[[refuse-midway]]`: half of the
   answer, then a refusal.
2. Thinking, where it was asked for, or where the model thinks by default and the text is long;
   `[[redact]]` makes it unreadable.
3. Server tools named in the text (`server_tools`).
4. Tools: forced by `tool_choice`, or named in the text ("use the NAME tool"); the input obeys the
   tool's schema (`obeying`).
5. `output_config.format`: JSON that obeys the schema.
6. Otherwise text: what was asked, in short; `[[words:500]]` asks for that many words. It cites
   every source that was sent with citations on.
An injected order (`reading`) is obeyed by 4 to 6 as far as they can, unless the simulator was
told not to be gullible. Last, stop sequences and `max_tokens` cut what was made.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from llm_integrations.simulators.anthropic.checks import Checked
from llm_integrations.simulators.anthropic.obeying import Reading, obey
from llm_integrations.simulators.anthropic.parts import Answer, Part, complete
from llm_integrations.simulators.anthropic.prompt import Prompt, blocks_of
from llm_integrations.simulators.anthropic.reading import excerpt, find_injection, named_tools
from llm_integrations.simulators.anthropic.server_tools import Loop, ServerTools
from llm_integrations.simulators.anthropic.tokens import compact_json, opaque, split_output

__all__ = ["make_answer", "text_part"]

_REFUSE: Final = "[[refuse]]"
_REFUSE_MIDWAY: Final = "[[refuse-midway]]"
_REDACT: Final = "[[redact]]"
_WORDS_WANTED: Final = re.compile(r"\[\[words:(\d{1,5})\]\]")
_LONG_TEXT_WORDS: Final = 40
_ROOM_TO_THINK: Final = 512
_SIGNATURE_LETTERS: Final = 128
_REPORTED_WITH_A_REFUSAL: Final = 5  # output tokens, as recorded; they are not billed
_REFUSAL: Final[Mapping[str, object]] = {
    "type": "refusal",
    "category": "general_harms",
    "explanation": "Simulated refusal: the text asked for it.",
}


def make_answer(checked: Checked, prompt: Prompt, loop: Loop, *, gullible: bool) -> Answer:
    """Return the answer to a prompt."""
    if _REFUSE in prompt.last_user_text:
        reported = _REPORTED_WITH_A_REFUSAL
        return Answer(stop_reason="refusal", stop_details=_REFUSAL, reported_tokens=reported)
    order = find_injection(prompt.last_user_text) if gullible else None
    reading = Reading(text=prompt.last_user_text, order=order)
    body = checked.body
    tools = list(_tool_uses(body, prompt, reading, loop.identity))
    if tools:
        answer = Answer(parts=tuple(tools), stop_reason="tool_use")
    else:
        text = text_part(_text(body, prompt, reading), citations=prompt.citations)
        answer = _stopped(Answer(parts=(text,)), body.get("stop_sequences"))
    asked = "" if prompt.answers_tool else prompt.last_user_text
    answer = ServerTools(body, asked, loop).answer(answer)
    answer = replace(answer, parts=(*_thinking(checked, prompt, loop.identity), *answer.parts))
    if _REFUSE_MIDWAY in prompt.last_user_text:
        half = answer.cut_to(max(1, answer.output_tokens // 2), "refusal")
        answer = replace(half, stop_reason="refusal", stop_details=_REFUSAL)
    return _cut(answer, checked, prompt)


def text_part(text: str, *, citations: Sequence[Mapping[str, object]] = ()) -> Part:
    """Return a text block."""
    pieces = tuple(split_output(text))
    return Part(frame={"type": "text"}, goes_to="text", pieces=pieces, citations=tuple(citations))


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
    signature = opaque(identity, _SIGNATURE_LETTERS)
    if _REDACT in prompt.last_user_text:
        yield complete({"type": "redacted_thinking", "data": signature})
        return
    text = f"Simulated thinking: the text has {count} words, a plain rule makes the answer."
    yield Part(
        frame={"type": "thinking"},
        goes_to="thinking",
        pieces=tuple(split_output(text)),
        shown=(display or default) == "summarized",
        signature=signature,
    )


def _tool_uses(
    body: Mapping[str, object], prompt: Prompt, reading: Reading, identity: str
) -> Iterable[Part]:
    schemas = {
        str(tool.get("name")): schema
        for tool in blocks_of(body.get("tools"))
        if isinstance(schema := tool.get("input_schema"), dict)
    }
    choice = body.get("tool_choice")
    choice = choice if isinstance(choice, dict) else {"type": "auto"}
    names = _tool_names(choice, list(schemas), prompt)
    if choice.get("disable_parallel_tool_use") is True:
        names = names[:1]
    if names and choice.get("type") == "auto":
        yield text_part(f"Simulated answer: using {', '.join(names)}.")
    for at, name in enumerate(names):
        value = obey(schemas[name], reading)
        frame = {
            "type": "tool_use",
            "id": f"toolu_01{opaque(f'{identity}:{at}', 22)}",
            "name": name,
            "caller": {"type": "direct"},
        }
        pieces = tuple(split_output(compact_json(value)))
        yield Part(frame=frame, goes_to="input", pieces=pieces)


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
