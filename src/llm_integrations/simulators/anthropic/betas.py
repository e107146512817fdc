"""What beta features do to an answer: summaries, cleared context, models that take over.

1. `context_management`: `compact_20260112` summarises a prompt over its trigger in a run of its
   own, `clear_tool_uses_20250919` and `clear_thinking_20251015` leave old blocks out.
2. `compaction`: nothing but a summary.
3. `fallbacks`: another model takes over from one that refuses (`[[refuse]]`,
   `[[refuse-midway]]`); with `[[refuse-all]]` in the text as well, nobody does.

https://platform.claude.com/docs/en/build-with-claude/context-editing, .../compaction. Pure.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from llm_integrations.simulators.anthropic.answers import text_part
from llm_integrations.simulators.anthropic.caching import InputCounts
from llm_integrations.simulators.anthropic.checks import Checked
from llm_integrations.simulators.anthropic.parts import Answer, Part, Run, complete
from llm_integrations.simulators.anthropic.prompt import Prompt, blocks_of
from llm_integrations.simulators.anthropic.server_tools import Loop
from llm_integrations.simulators.anthropic.tokens import compact_json, opaque, split_output

__all__ = ["fall_back", "manage_context"]

_COMPACT_ABOVE: Final = 150_000
_CLEAR_ABOVE: Final = 100_000
_KEPT_TOOL_USES: Final = 3
_DEFAULT_FALLBACK: Final = "claude-opus-4-8"
_SUMMARY: Final = "Simulated summary: the conversation so far, in short."

Json = Mapping[str, object]


def manage_context(
    answer: Answer, checked: Checked, prompt: Prompt, counts: InputCounts, loop: Loop
) -> tuple[Answer, InputCounts]:
    """Return the answer and the prompt's counts after context management."""
    body = checked.body
    if body.get("compaction") is not None:
        return _summarised(answer, checked, counts, loop, only=True)
    management = body.get("context_management")
    if not isinstance(management, dict):
        return answer, counts
    applied: list[dict[str, object]] = []
    for edit in blocks_of(management.get("edits")):
        match edit.get("type"):
            case "compact_20260112":
                answer = replace(answer, iterates=True)
                if prompt.tokens > _trigger(edit, _COMPACT_ABOVE):
                    only = edit.get("pause_after_compaction") is True
                    answer, counts = _summarised(answer, checked, counts, loop, only=only)
            case "clear_tool_uses_20250919" if prompt.tokens > _trigger(edit, _CLEAR_ABOVE):
                kept = _value(edit.get("keep"), _KEPT_TOOL_USES)
                tokens = _tokens(body, "tool_result", kept, loop)
                if tokens:
                    applied.append(
                        {
                            "type": edit["type"],
                            "cleared_tool_uses": len(tokens),
                            "cleared_input_tokens": sum(tokens),
                        }
                    )
            case "clear_thinking_20251015":
                tokens = _tokens(body, "thinking", _value(edit.get("keep"), 1), loop)
                if tokens:
                    applied.append(
                        {
                            "type": edit["type"],
                            "cleared_thinking_turns": len(tokens),
                            "cleared_input_tokens": sum(tokens),
                        }
                    )
            case _:
                pass
    cleared = sum(int(str(edit["cleared_input_tokens"])) for edit in applied)
    counts = replace(counts, plain=max(0, counts.plain - cleared))
    context = {**answer.context, "context_management": {"applied_edits": applied}}
    return replace(answer, context=context), counts


def _summarised(
    answer: Answer, checked: Checked, counts: InputCounts, loop: Loop, *, only: bool
) -> tuple[Answer, InputCounts]:
    pieces = tuple(split_output(_SUMMARY))
    run = Run(
        kind="compaction",
        model=checked.model.id,
        counts=counts,
        output_tokens=len(pieces),
    )
    part = Part(
        frame={"type": "compaction"},
        goes_to="content",
        pieces=pieces,
        signature=opaque(f"{loop.identity}:summary", 160),
    )
    if only:
        whole = Answer(
            parts=(part,),
            stop_reason="compaction",
            summary=run,
            is_only_summary=True,
            iterates=True,
        )
        return whole, counts
    summarised = replace(answer, parts=(part, *answer.parts), summary=run, iterates=True)
    return summarised, InputCounts(plain=min(counts.plain, 100) + len(pieces))


def _trigger(edit: Json, default: int) -> int:
    return _value(edit.get("trigger"), default)


def _value(given: object, default: int) -> int:
    value = given.get("value") if isinstance(given, dict) else None
    return value if isinstance(value, int) else default


def _tokens(body: Json, kind: str, kept: int, loop: Loop) -> list[int]:
    """Return what the blocks of a kind cost, all but the last `kept` ones."""
    found = [
        loop.rule.text(compact_json(block))
        for turn in blocks_of(body.get("messages"))
        for block in blocks_of(turn.get("content"))
        if block.get("type") == kind
    ]
    return found[: max(0, len(found) - kept)]


def fall_back(answer: Answer, checked: Checked, prompt: Prompt) -> Answer:
    """Return what the next model makes of a refusal, where the request names one."""
    fallbacks = checked.body.get("fallbacks")
    if fallbacks is None:
        return answer
    answer = replace(answer, iterates=True)
    if answer.stop_reason != "refusal" or "[[refuse-all]]" in prompt.last_user_text:
        return answer
    named = (
        [str(one.get("model")) for one in blocks_of(fallbacks)] if fallbacks != "default" else []
    )
    model = named[0] if named else _DEFAULT_FALLBACK
    hand_over = {
        "type": "fallback",
        "from": {"model": str(checked.body["model"])},
        "to": {"model": model},
        "trigger": {"type": "refusal", "category": "general_harms"},
    }
    text = text_part(f"Simulated answer: {model} took over.")
    taken_over = replace(
        answer,
        parts=(*answer.parts, replace(complete(hand_over), next_model=model), text),
        stop_reason="end_turn",
        stop_details=None,
        reported_tokens=0,
    )
    return taken_over.cut_to(checked.max_tokens, "max_tokens")
