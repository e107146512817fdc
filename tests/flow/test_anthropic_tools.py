"""Tools and typed answers against the simulator, and the tool loop on scripted answers."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
import pytest

from llm_integrations.anthropic import (
    AnthropicClient,
    AnthropicConfig,
    ClaudeModel,
    Message,
    MessageRequest,
    MessageResponse,
    TextBlock,
    Tool,
    ToolDefinition,
    ToolRun,
    ToolTurn,
    ToolUseBlock,
    parse_message,
    price_message,
    tool,
)
from llm_integrations.anthropic.tool_loop import Caps, ToolLoop, open_calls
from llm_integrations.errors import (
    ConfigError,
    InvalidRequest,
    OutputUnusable,
    ToolFailed,
    ToolLoopStopped,
)
from llm_integrations.governance import Budget, Governor
from llm_integrations.simulators import ClaudeSimulator

MODEL = ClaudeModel.OPUS_5_5


@pytest.fixture
async def sim() -> AsyncIterator[ClaudeSimulator]:
    async with ClaudeSimulator(latency_ms=(0, 0)) as sim:
        yield sim


@pytest.fixture
async def client(sim: ClaudeSimulator) -> AsyncIterator[AnthropicClient]:
    config = AnthropicConfig(api_key="sk-ant-1", base_url=sim.base_url, max_retries=1)
    async with AnthropicClient(config) as client:
        yield client


def ask(prompt: str, **more: object) -> MessageRequest:
    fields = {"model": MODEL, "max_tokens": 500, "messages": [Message.user(prompt)]}
    return MessageRequest.from_dict(fields | more)


class Weather(msgspec.Struct):
    """The weather somewhere."""

    sky: Literal["clear", "cloudy"]
    degrees: Annotated[int, msgspec.Meta(ge=-80, le=60)]


# Typed answers


async def test_an_answer_comes_as_a_value_of_the_wanted_type(client: AnthropicClient) -> None:
    weather = await client.parse(ask("A cloudy day, degrees: 7"), Weather)
    assert weather == Weather(sky="cloudy", degrees=7)


async def test_a_mapping_can_be_parsed_too_and_keeps_its_effort(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    request = {
        "model": MODEL,
        "max_tokens": 500,
        "messages": [{"role": "user", "content": "clear, degrees: 1"}],
        "output_config": {"effort": "low"},
    }
    assert await client.parse(request, Weather) == Weather(sky="clear", degrees=1)
    sent = sim.requests[0].json
    assert isinstance(sent, dict)
    assert sent["output_config"]["effort"] == "low"


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "reason"),
    [
        ("[[refuse]]", 500, "refusal"),
        ("A cloudy day", 3, "max_tokens"),
        ("degrees: 99", 500, "mismatch"),
    ],
)
async def test_an_answer_that_is_no_such_value_is_an_error_that_carries_it(
    client: AnthropicClient, prompt: str, max_tokens: int, reason: str
) -> None:
    with pytest.raises(OutputUnusable) as caught:
        await client.parse(ask(prompt, max_tokens=max_tokens), Weather)
    assert caught.value.reason == reason
    assert isinstance(caught.value.answer, MessageResponse)
    assert caught.value.request_id.startswith("req_")
    assert caught.value.request_id == caught.value.answer.request_id


async def test_an_answer_keeps_its_request_id_plain_and_streamed(client: AnthropicClient) -> None:
    for max_tokens in (8_192, 8_193):
        message = await client.send_message(ask("Hi", max_tokens=max_tokens))
        assert message.request_id.startswith("req_")
        assert parse_message(message.raw) == message


# The loop against the simulator


@tool
async def find_issue(issue_key: str) -> dict[str, str]:
    """Find an issue."""
    return {"key": issue_key, "summary": "It crashes"}


@tool
def count_issues(jql: str) -> int:
    """Count issues."""
    return len(jql)


async def test_tools_run_and_their_results_reach_the_model(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    request = ask("use the find_issue tool and use the count_issues tool", max_tokens=2_000)
    run = await client.run_tools(request, [find_issue, count_issues], tags={"issue": "ABC-1"})
    assert run.message.stop_reason == "end_turn"
    assert "It crashes" in run.message.text
    first, last = run.turns
    assert [call.use.name for call in first.calls] == ["find_issue", "count_issues"]
    assert not last.calls
    assert run.cost_pusd == sim.invoice_pusd()
    assert run.cost_pusd == client.get_cost_stats().by_tag["issue=ABC-1"].cost_pusd
    assert [turn.role for turn in run.messages if isinstance(turn, Message)] == [
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    sent = sim.requests[1].json
    assert isinstance(sent, dict)
    assert sent["messages"][1]["content"] == first.message.to_dict()["content"]
    assert [block["type"] for block in sent["messages"][2]["content"]] == ["tool_result"] * 2


async def test_a_tool_of_the_server_that_pauses_goes_on(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    search = {"type": "web_search_20260318", "name": "web_search"}
    request = ask("use the web_search tool [[searches:12]]", tools=[search], max_tokens=4_000)
    run = await client.run_tools(request, [find_issue])
    assert [turn.message.stop_reason for turn in run.turns] == ["pause_turn", "end_turn"]
    assert run.cost_pusd == sim.invoice_pusd()
    sent = sim.requests[1].json
    assert isinstance(sent, dict)
    assert sent["messages"][1]["content"] == run.turns[0].message.to_dict()["content"]


async def test_a_plain_function_is_a_tool_and_the_tools_of_the_request_stay(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    async def add(a: int, b: int = 2) -> int:
        """Add numbers."""
        return a + b

    request = ask("use the add tool with a: 40", tools=[find_issue])
    run = await client.run_tools(request, [add, find_issue])
    sent = sim.requests[0].json
    assert isinstance(sent, dict)
    assert [one["name"] for one in sent["tools"]] == ["find_issue", "add"]
    assert len(run.turns) == 2


async def test_a_budget_of_the_governor_holds_inside_the_loop(sim: ClaudeSimulator) -> None:
    budgets = [Budget("cap", usd="1.00", window="day")]
    async with Governor.open("memory:", budgets=budgets) as governor:
        config = AnthropicConfig(api_key="k", base_url=sim.base_url)
        async with AnthropicClient(config, governor=governor) as client:
            run = await client.run_tools(ask("use the count_issues tool"), [count_issues])
        assert await governor.ledger.total_pusd() == run.cost_pusd == sim.invoice_pusd()


async def test_caps_are_checked_before_anything_is_sent(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    with pytest.raises(InvalidRequest, match="at least 1"):
        await client.run_tools(ask("x"), [], max_turns=0)
    with pytest.raises(ConfigError):
        await client.run_tools(ask("x"), [], max_usd="a lot")
    assert sim.requests == []


async def test_the_cap_on_money_stops_before_the_next_turn_is_bought(
    client: AnthropicClient, sim: ClaudeSimulator
) -> None:
    ran: list[str] = []

    async def note(text: str) -> None:
        ran.append(text)

    with pytest.raises(ToolLoopStopped) as caught:
        await client.run_tools(ask("use the note tool"), [note], max_usd="0.000000000001")
    assert caught.value.cap == "money"
    assert isinstance(caught.value.run, ToolRun)
    assert caught.value.run.cost_pusd == sim.invoice_pusd()
    assert caught.value.run.message.stop_reason == "tool_use"
    assert len(sim.requests) == 1
    assert ran == []


# The loop on scripted answers


def _answer(*content: dict[str, Any], stop_reason: str, **more: object) -> MessageResponse:
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5-5",
        "content": content,
        "stop_reason": stop_reason,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
    return parse_message(json.dumps(body | more).encode())


def _use(name: str, /, **tool_input: object) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": tool_input}


DONE = _answer({"type": "text", "text": "Done."}, stop_reason="end_turn")


class Script:
    """Gives one answer after the other and keeps what was sent."""

    def __init__(self, *answers: MessageResponse) -> None:
        self._answers = list(answers)
        self.sent: list[MessageRequest] = []

    async def send(self, request: MessageRequest) -> MessageResponse:
        self.sent.append(request)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    async def run(
        self,
        *tools: Tool[..., Any] | Callable[..., Any],
        caps: Caps | None = None,
        on_turn: Callable[[ToolTurn], None] | None = None,
        **more: object,
    ) -> ToolRun:
        loop = ToolLoop(self.send, tools, caps=caps or Caps(turns=5), on_turn=on_turn)
        return await loop.run(ask("Go", **more))

    def last_turn(self) -> list[dict[str, Any]]:
        """The newest turn that was sent, as blocks."""
        turn = self.sent[-1].messages[-1]
        assert isinstance(turn, Message)
        blocks: list[dict[str, Any]] = json.loads(msgspec.json.encode(turn.content))
        return blocks


async def test_what_fails_is_an_answer_without_its_secrets() -> None:
    async def refuses(why: str) -> str:
        raise ToolFailed(f"not today: {why}")

    async def breaks() -> str:
        raise RuntimeError("password=hunter2")

    @tool(timeout_s=0.01)
    async def hangs() -> str:
        await asyncio.sleep(60)
        return ""

    def gives_back_what_is_no_json() -> object:
        return object()

    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    def half_a_character() -> str:
        return "\ud800"

    uses = [
        _use("half_a_character"),
        _use("refuses", why="rain"),
        _use("breaks"),
        _use("hangs"),
        _use("gives_back_what_is_no_json"),
        _use("cancels_itself"),
        _use("stranger"),
        _use("refuses", why=3),
    ]
    turns: list[ToolTurn] = []
    script = Script(_answer(*uses, stop_reason="tool_use"), DONE)
    await script.run(
        half_a_character,
        refuses,
        breaks,
        hangs,
        gives_back_what_is_no_json,
        cancels_itself,
        on_turn=turns.append,
    )
    blocks = script.last_turn()
    assert [block["tool_use_id"] for block in blocks] == [use["id"] for use in uses]
    assert all(block["is_error"] for block in blocks)
    assert [block["content"] for block in blocks] == [
        "The tool failed.",
        "not today: rain",
        "The tool failed.",
        "The tool took longer than 0.01 s.",
        "The tool failed.",
        "The tool failed.",
        "There is no tool named stranger.",
        "The input does not fit: Expected `str`, got `int` - at `$.why`",
    ]
    assert "hunter2" in str(turns[0].calls[2].error)


async def test_an_input_that_is_no_json_is_answered_as_an_error() -> None:
    answer = _answer(_use("add"), stop_reason="tool_use")
    cut = msgspec.structs.replace(answer, unparsed_tool_inputs={"toolu_add": '{"a": '})

    async def add() -> int:
        return 0

    script = Script(cut, DONE)
    await script.run(add)
    assert script.last_turn()[0]["content"] == "The input is no JSON object."


async def test_results_take_every_form_that_the_model_can_read() -> None:
    async def text() -> str:
        return "plain"

    def nothing() -> None:
        pass

    async def block() -> TextBlock:
        return TextBlock(text="one")

    async def blocks() -> list[TextBlock]:
        return [TextBlock(text="one"), TextBlock(text="two")]

    def data() -> Awaitable[list[int]]:
        async def later() -> list[int]:
            return [1, 2]

        return later()

    names = ["text", "nothing", "block", "blocks", "data"]
    script = Script(_answer(*map(_use, names), stop_reason="tool_use"), DONE)
    await script.run(text, nothing, block, blocks, data)
    one, two = {"type": "text", "text": "one"}, {"type": "text", "text": "two"}
    assert [result.get("content") for result in script.last_turn()] == [
        "plain",
        None,
        [one],
        [one, two],
        "[1,2]",
    ]


async def test_calls_run_side_by_side_up_to_a_bound() -> None:
    running, most = 0, 0

    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return n

    script = Script(_answer(*[_use("work", n=n) for n in range(9)], stop_reason="tool_use"), DONE)
    await script.run(work, caps=Caps(turns=2, parallel=3))
    assert most == 3
    assert [block["content"] for block in script.last_turn()] == [str(n) for n in range(9)]


async def test_a_function_that_is_not_async_runs_in_a_thread() -> None:
    def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    script = Script(_answer(_use("where"), stop_reason="tool_use"), DONE)
    await script.run(where, tools=[ToolDefinition(name="other", input_schema={})])
    assert script.last_turn()[0]["content"] == "false"


async def test_a_function_that_finds_nothing_next_fails_at_once() -> None:
    def find(name: str) -> str:
        return next(one for one in ("a", "b") if one == name)

    script = Script(_answer(_use("find", name="c"), stop_reason="tool_use"), DONE)
    async with asyncio.timeout(5):
        run = await script.run(find)
    [call] = run.turns[0].calls
    assert isinstance(call.error, RuntimeError)
    assert isinstance(call.error.__cause__, StopIteration)
    assert script.last_turn()[0]["content"] == "The tool failed."


async def test_a_paused_turn_goes_back_as_it_is_and_nothing_with_it() -> None:
    paused = _answer(
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"q": "x"}},
        stop_reason="pause_turn",
        container={"id": "container_1", "expires_at": "2026-11-23T05:00:00Z"},
    )
    script = Script(paused, DONE)
    run = await script.run(container={"skills": []})
    last = script.sent[1].messages[-1]
    assert isinstance(last, Message)
    assert last == paused.to_message()
    assert script.sent[1].container == {"skills": [], "id": "container_1"}
    assert run.message.text == "Done."


async def test_a_server_tool_that_was_put_off_gets_results_only() -> None:
    async def look() -> str:
        return "seen"

    put_off = _answer(
        {"type": "thinking", "thinking": "", "signature": "c2ln", "new": [1.50]},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        _use("look"),
        stop_reason="tool_use",
        container={"id": "container_1"},
    )
    script = Script(put_off, DONE)
    await script.run(look)
    assert [block["type"] for block in script.last_turn()] == ["tool_result"]
    assert script.sent[0].tools == script.sent[1].tools
    assert script.sent[1].container == "container_1"
    echoed = script.sent[1].messages[-2]
    assert isinstance(echoed, Message)
    assert msgspec.json.encode(echoed.content) in put_off.raw


async def test_the_cap_on_turns_stops_before_the_tools_of_the_last_one_act() -> None:
    ran: list[int] = []

    async def again() -> None:
        ran.append(1)

    script = Script(_answer(_use("again"), stop_reason="tool_use"))
    with pytest.raises(ToolLoopStopped) as caught:
        await script.run(again, caps=Caps(turns=3))
    assert caught.value.cap == "turns"
    assert len(script.sent) == 3
    assert len(ran) == 2
    run = caught.value.run
    assert isinstance(run, ToolRun)
    assert len(run.messages) == 1 + 2 * 2 + 1
    more = Script(DONE)
    rest = await more.run(again, messages=run.messages)
    assert len(ran) == 3
    assert more.last_turn()[0]["tool_use_id"] == "toolu_again"
    assert len(rest.messages) == len(run.messages) + 2


@pytest.mark.parametrize(
    "last",
    [
        {"role": "assistant", "content": [_use("look")]},
        Message.assistant(ToolUseBlock(id="toolu_look", name="look", input={})),
    ],
)
async def test_calls_that_nobody_has_answered_are_answered_first(
    last: Message | dict[str, Any],
) -> None:
    async def look() -> str:
        return "seen"

    script = Script(DONE)
    await script.run(look, messages=[Message.user("Go"), last])
    assert script.last_turn() == [
        {"type": "tool_result", "tool_use_id": "toolu_look", "content": "seen"}
    ]


async def test_a_call_that_was_cut_off_is_not_run_without_its_input_when_the_run_goes_on() -> None:
    ran: list[str | None] = []

    def close(project: str | None = None) -> None:
        """Close the issues of a project, or all of them."""
        ran.append(project)

    written = {"toolu_close": '{"project": "AB'}
    thought = {"type": "thinking", "thinking": "", "signature": "s", "new": 1.0}
    cut = _answer(thought, _use("close"), stop_reason="max_tokens", unparsed_tool_inputs=written)
    run = await Script(cut).run(close)
    more = Script(DONE)
    await more.run(close, messages=run.messages)
    assert ran == []
    assert "does not fit" in more.last_turn()[0]["content"]
    assert more.last_turn()[0]["is_error"] is True
    sent = json.loads(msgspec.json.encode(more.sent[0].messages[-2]))
    assert sent["content"][0] == thought
    assert sent["content"][1]["input"] == {"unparsed_json": '{"project": "AB'}


def test_only_a_turn_of_the_model_has_open_calls() -> None:
    answered = ask("Go", messages=[{"role": "user", "content": [_use("look")]}])
    assert open_calls(answered) == []
    assert open_calls(ask("Go", messages=[])) == []
    assert open_calls(ask("Go", messages=[{"role": "assistant", "content": None}])) == []
    assert open_calls(ask("Go", messages=[Message.assistant("text")])) == []


async def test_an_unknown_price_counts_as_above_the_cap_and_is_no_zero() -> None:
    async def again() -> None:
        """Do nothing."""

    stranger = _answer(_use("again"), stop_reason="tool_use", model="claude-stranger-1")
    with pytest.raises(ToolLoopStopped, match="unknown"):
        await Script(stranger).run(again, caps=Caps(turns=3, pusd=10**15))
    run = await Script(stranger, DONE).run(again)
    assert run.cost_pusd is None
    run = await Script(_answer(_use("again"), stop_reason="tool_use"), DONE).run(
        again, caps=Caps(turns=3, pusd=10**15)
    )
    price = price_message(DONE)
    assert price is not None
    assert run.cost_pusd == 2 * price


@pytest.mark.parametrize("stop_reason", ["refusal", "max_tokens", "compaction", "novel"])
async def test_any_other_stop_is_the_end(stop_reason: str) -> None:
    run = await Script(_answer(_use("look"), stop_reason=stop_reason)).run()
    assert len(run.turns) == 1


async def test_cancelling_the_loop_cancels_its_tools() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    script = Script(_answer(_use("work"), stop_reason="tool_use"), DONE)
    run = asyncio.create_task(script.run(work))
    await started.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert ended.is_set()


async def test_what_is_told_of_a_turn_may_be_awaited_and_may_end_the_run() -> None:
    async def look() -> None:
        """Do nothing."""

    told: list[str | None] = []

    async def on_turn(turn: ToolTurn) -> None:
        await asyncio.sleep(0)
        told.append(turn.message.stop_reason)

    script = Script(_answer(_use("look"), stop_reason="tool_use"), DONE)
    loop = ToolLoop(script.send, [look], caps=Caps(turns=3), on_turn=on_turn)
    await loop.run(ask("Go"))
    assert told == ["tool_use", "end_turn"]

    def stop(turn: ToolTurn) -> None:
        raise LookupError(turn.message.id)

    with pytest.raises(LookupError):
        await Script(DONE).run(on_turn=stop)


async def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="two have the name find_issue"):
        await Script(DONE).run(find_issue, find_issue)
