"""`POST /v1/messages` and `.../count_tokens`: check, count, admit, answer, charge.

`compose` is the model's part alone; a batch uses it too, with its own admission and price.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from llm_integrations.simulators.anthropic.answers import make_answer
from llm_integrations.simulators.anthropic.betas import fall_back, manage_context
from llm_integrations.simulators.anthropic.checks import Checked, check_request
from llm_integrations.simulators.anthropic.errors import ApiError
from llm_integrations.simulators.anthropic.events import Written
from llm_integrations.simulators.anthropic.parts import Answer
from llm_integrations.simulators.anthropic.prompt import Prompt, read_prompt
from llm_integrations.simulators.anthropic.routing import Route
from llm_integrations.simulators.anthropic.server_tools import Loop
from llm_integrations.simulators.anthropic.state import State
from llm_integrations.simulators.anthropic.threads import Threads
from llm_integrations.simulators.anthropic.tokens import compact_json
from llm_integrations.simulators.anthropic.wire import (
    RecordedRequest,
    Reply,
    StreamReply,
    json_reply,
)

__all__ = ["MessageRoutes"]

_CACHE_SCOPE: Final = ("thinking", "output_config", "speed", "tool_choice")


class MessageRoutes:
    """The endpoints that ask the model."""

    def __init__(self, state: State) -> None:
        """Take what the routes share."""
        self._state = state
        self._threads = Threads()

    def routes(self) -> tuple[Route, ...]:
        """Return the endpoints."""
        return (
            Route(method="POST", path="/v1/messages", handler=self._create, takes="json"),
            Route(
                method="POST",
                path="/v1/messages/count_tokens",
                handler=self._count_tokens,
                takes="json",
                bucket="count_tokens",
            ),
        )

    def compose(
        self,
        body: object,
        headers: Mapping[str, str],
        *,
        admit: bool = True,
        tier: str = "standard",
    ) -> tuple[Checked, Written]:
        """Return the answer to a request; raises the `ApiError` of one that is refused."""
        state = self._state
        checked, prompt = self._checked(body, headers, counting=False)
        now = state.seconds()
        counts = state.cache.count(
            prompt, scope=_cache_scope(checked), minimum=checked.model.min_cacheable, now=now
        )
        if admit:
            state.check_spending()
            state.limits.admit(_group(checked), counts.uncached, now)
        loop = Loop(
            rule=state.tokens,
            identity=state.new_id("msg_01"),
            now=state.now(),
            make_file=state.make_file,
        )
        answer = make_answer(checked, prompt, loop, gullible=state.gullible)
        refused_at_once = answer.is_free
        answer = fall_back(answer, checked, prompt)
        answer, counts = manage_context(answer, checked, prompt, counts, loop)
        answer = replace(answer, iterates=answer.iterates or _must_iterate(checked, answer))
        takes_over = [part.next_model for part in answer.parts if part.next_model]
        written = Written(
            id=loop.identity,
            model=takes_over[0] if takes_over and refused_at_once else checked.model.id,
            asked_model=checked.model.id,
            answer=answer,
            counts=counts,
            geo=_served_geo(checked),
            speed=_served_speed(checked),
            tier=tier,
        )
        return checked, written

    def _create(self, record: RecordedRequest, _: str) -> Reply | StreamReply:
        state = self._state
        body = self._threads.expanded(record.json)
        checked, written = self.compose(body, record.headers)
        group = _group(checked)
        headers = state.limits.headers(group, state.seconds())

        def done(output_tokens: int, completed: bool) -> None:  # noqa: FBT001 - called by `wire`
            state.limits.produced(group, output_tokens, state.seconds())
            if completed and "thread" in checked.body:
                self._threads.keep(checked.body, written.message())
            record.billed_pusd = state.charge(
                record.request_id,
                written.asked_model,
                written.usage(output_tokens),
                at=record.at,
                billed=not written.answer.is_free,
            )

        if checked.stream:
            events = written.events(
                message_deltas=state.behaviour.message_deltas, sparse=state.behaviour.sparse_usage
            )
            return StreamReply(events=events, headers=headers, done=done)
        made = written.answer.output_tokens
        return Reply(
            body=compact_json(written.message()).encode(),
            headers=headers,
            done=lambda: done(made, completed=True),
        )

    def _count_tokens(self, record: RecordedRequest, _segment: str) -> Reply:
        _, prompt = self._checked(record.json, record.headers, counting=True)
        return json_reply({"input_tokens": prompt.tokens})

    def _checked(
        self, body: object, headers: Mapping[str, str], *, counting: bool
    ) -> tuple[Checked, Prompt]:
        state = self._state
        checked = check_request(
            body,
            version=headers["anthropic-version"],
            betas=headers.get("anthropic-beta", ""),
            now=state.now(),
            counting=counting,
        )
        inlined = state.files.inlined(checked.body, state.now())
        prompt = read_prompt(inlined, checked.model, state.tokens)
        if prompt.tokens > checked.model.context:
            raise ApiError(
                400,
                f"prompt is too long: {prompt.tokens} tokens > {checked.model.context} maximum",
            )
        return checked, prompt


def _must_iterate(checked: Checked, answer: Answer) -> bool:
    """Whether the usage tells of every run: another model ran too, or a budget was given."""
    output = checked.body.get("output_config")
    return any(part.advice is not None for part in answer.parts) or (
        isinstance(output, dict) and output.get("task_budget") is not None
    )


def _cache_scope(checked: Checked) -> str:
    return compact_json([checked.model.id, *(checked.body.get(name) for name in _CACHE_SCOPE)])


def _group(checked: Checked) -> str:
    group = checked.model.group
    return f"{group}-fast" if _served_speed(checked) == "fast" else group


def _served_geo(checked: Checked) -> str:
    if not checked.model.is_from_4_6:
        return "not_available"
    return str(checked.body.get("inference_geo") or "global")


def _served_speed(checked: Checked) -> str | None:
    wanted = checked.body.get("speed")
    if wanted is None:
        return None
    return "fast" if wanted == "fast" and checked.model.fast == "served" else "standard"
