"""Tools, typed answers, batches and files as people write them; checked by mypy and pyright."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, assert_type

import msgspec

from llm_integrations.anthropic import (
    AnthropicClient,
    Batch,
    Batches,
    BatchRequest,
    BatchResult,
    CanceledResult,
    ErroredResult,
    ExpiredResult,
    FileInfo,
    Files,
    MessageRequest,
    MessageResponse,
    RequestCounts,
    SucceededResult,
    Tool,
    ToolCall,
    ToolDefinition,
    ToolResultBlock,
    ToolRun,
    ToolTurn,
    UnknownResult,
    UnreadableResult,
    output_format,
    parse_output,
    tool,
)
from llm_integrations.errors import OutputUnusable, ToolFailed, ToolLoopStopped


@tool
async def find_issues(jql: str, limit: Annotated[int, msgspec.Meta(ge=1, le=50)] = 10) -> list[str]:
    """Find Jira issues."""
    if not jql:
        raise ToolFailed("the query is empty")
    return [f"ABC-{number}" for number in range(limit)]


@tool(strict=True, timeout_s=5, description="Tell the time in a city.")
def tell_time(city: str) -> dict[str, str]:
    return {"city": city, "time": "12:00"}


async def tools_are_still_functions() -> None:
    assert_type(find_issues.name, str)
    assert_type(find_issues.definition, ToolDefinition)
    assert_type(await find_issues("project = ABC", limit=3), list[str])
    assert_type(tell_time("Berlin"), dict[str, str])
    known: Tool[[str], dict[str, str]] = tell_time
    assert_type(known.arguments({"city": "Berlin"}), dict[str, object])


async def the_model_runs_tools(client: AnthropicClient, request: MessageRequest) -> str:
    def watch(turn: ToolTurn) -> None:
        for call in turn.calls:
            assert_type(call, ToolCall)
            assert_type(call.error, Exception | None)

    try:
        run = await client.run_tools(
            request, [find_issues, tell_time], max_turns=5, max_usd="0.50", on_turn=watch
        )
    except ToolLoopStopped as stopped:
        return stopped.cap
    assert_type(run, ToolRun)
    assert_type(run.cost_pusd, int | None)
    return run.message.text


async def or_the_loop_is_ones_own(
    client: AnthropicClient, request: MessageRequest
) -> MessageResponse:
    answer = await client.send_message(request)
    results: list[ToolResultBlock] = [use.result({"found": 3}) for use in answer.tool_uses]
    return await client.send_message(request.continued(answer, *results))


class Verdict(msgspec.Struct):
    is_bug: bool
    reason: str


@dataclass
class Labels:
    labels: list[str]


async def answers_have_types(client: AnthropicClient, request: MessageRequest) -> Labels | None:
    assert_type(await client.parse(request, Verdict), Verdict)
    assert_type(output_format(Labels), dict[str, Any])
    try:
        return parse_output(await client.send_message(request), Labels)
    except OutputUnusable as error:
        assert_type(error.reason, str)
        return None


async def a_batch_is_made_waited_for_and_read(
    client: AnthropicClient, tickets: Mapping[str, MessageRequest]
) -> dict[str, str]:
    batches: Batches = client.batches
    batch = await batches.create(tickets, tags={"project": "ABC"})
    assert_type(batch, Batch)
    batch = await batches.wait(batch.id, progress=lambda seen: print(seen.request_counts.done))
    assert_type(batch.request_counts, RequestCounts)
    assert_type(await batches.results(batch.id), dict[str, BatchResult])
    return {result.custom_id: how_it_ended(result) async for result in batches.iter_results("b")}


def how_it_ended(result: BatchResult) -> str:
    match result:
        case SucceededResult(message=message):
            return message.text
        case ErroredResult(error=error):
            return f"again: {error.retryable}"
        case UnreadableResult(line=line, error=error):
            return f"line {line}: {error}"
        case CanceledResult() | ExpiredResult() | UnknownResult():
            return result.type


async def batches_are_looked_for(client: AnthropicClient, one: MessageRequest) -> None:
    await client.batches.create([BatchRequest("a", one), BatchRequest("b", {"model": "claude-x"})])
    async for batch in client.batches.iter(limit=10):
        if not batch.has_ended:
            assert_type(await client.batches.cancel(batch.id), Batch)
    assert_type(await client.batches.list(), Sequence[Batch])
    await client.batches.delete("batch_011")


async def files_come_and_go(client: AnthropicClient, rows: AsyncIterator[bytes]) -> Path:
    files: Files = client.files
    report = await files.upload(Path("report.pdf"), expires_in_s=86_400)
    assert_type(report, FileInfo)
    await files.upload(rows, filename="rows.csv", media_type="text/csv")
    assert_type(await files.list(ids=[report.id]), Sequence[FileInfo])
    assert_type(await files.download(report.id), bytes)
    await files.delete((await files.get(report.id)).id)
    return await files.download(report.id, "copy.pdf")
