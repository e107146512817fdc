"""What people build on: the public names, their signatures, and how they differ from the design."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Final

import pytest

import llm_integrations
from scripts import public_surface

# The names that the design promises, room by room. A dotted one is a member of a class.
PROMISED: Final = {
    "jira": """
        JiraClient JiraClient.create_issue JiraClient.get_issue JiraClient.update_issue
        JiraClient.delete_issue JiraClient.search_issues JiraClient.iter_issues
        JiraClient.get_projects JiraClient.get_project JiraClient.get_boards
        JiraClient.get_board_sprints JiraConfig JiraConfig.base_url JiraConfig.auth
        JiraConfig.timeout_s JiraConfig.max_retries JiraConfig.rate_limit_per_minute
        JiraConfig.from_env JiraAuth BasicAuth OAuth2 PersonalAccessToken AuthManager Issue
        IssueFields IssueType Status Priority User Project Component Board Sprint Changelog Comment
        WebhookEvent WebhookEvent.name WebhookEvent.issue_key WebhookEvent.issue_id
        WebhookEvent.actor_id WebhookEvent.timestamp WebhookEvent.raw CreateIssueRequest
        UpdateIssueRequest JqlSearchRequest JqlSearchResponse ErrorResponse WebhookProcessor
        WebhookProcessor.register_handler WebhookProcessor.verify_signature
        WebhookProcessor.process_event WebhookProcessor.process_raw_event
        WebhookProcessor.validate_event WebhookHandler WebhookHandler.on_issue_created
        WebhookHandler.on_issue_updated WebhookHandler.on_issue_deleted
        WebhookHandler.on_other_event LoggingWebhookHandler parse_event verify adf
        adf.from_markdown adf.to_markdown jql jql.quote
    """,
    "anthropic": """
        AnthropicClient AnthropicClient.send_message AnthropicClient.complete
        AnthropicClient.complete_with_system AnthropicClient.stream_message
        AnthropicClient.stream_complete AnthropicClient.count_tokens
        AnthropicClient.validate_request AnthropicClient.get_cost_stats
        AnthropicClient.reset_cost_stats AnthropicConfig AnthropicConfig.api_key
        AnthropicConfig.base_url AnthropicConfig.timeout_s AnthropicConfig.max_retries
        AnthropicConfig.rate_limit_per_minute AnthropicConfig.api_version AnthropicConfig.from_env
        ClaudeModel MessageRequest Message MessageContent Role ContentBlock TextBlock ThinkingBlock
        ToolUseBlock UnknownBlock ImageSource MessageResponse Usage StopReason StreamEvent
        StreamHandler StreamCollector StreamCollector.add StreamCollector.message CostTracker
        RateLimitInfo TokenCounter TokenCounter.count_text TokenCounter.count_request
        TokenCounter.estimate_cost TokenCounter.clear_cache TokenCounter.cache_size TokenEstimate
        TokenEstimate.tokens TokenEstimate.margin TokenEstimate.tier TokenBudget
        TokenBudget.can_allocate TokenBudget.allocate TokenBudget.remaining TokenBudget.utilization
        TokenBudget.reset parse_message parse_events price price_message govern
    """,
    "governance": "Governor Governor.open Governor.tags Budget Limit",
    "errors": """
        IntegrationError ConfigError InvalidRequest BudgetExceeded TransportError ConnectFailed
        TimedOut ConnectionBroken APIError AuthFailed NotAllowed NotFound Conflict Rejected
        RateLimited Overloaded ServerFailed StreamInterrupted BadDelivery SignatureMissing
        SignatureWrong PayloadMalformed StoreError LeaseLost StoreUnavailable RetryLater GiveUp
    """,
    "service": """
        App App.on Context Context.ask Context.get_issue Context.step AddComment EditComment
        Transition SetFields AddLabels NoAction RetryLater GiveUp
    """,
    "simulators": """
        ClaudeSimulator ClaudeSimulator.base_url ClaudeSimulator.invoice_pusd JiraSimulator
        JiraSimulator.base_url JiraSimulator.requests JiraSimulator.issues JiraSimulator.comments
    """,
}
DIFFERENCES: Final[dict[str, str]] = {}
HEAVY: Final = set("asyncio importlib.metadata msgspec aiohttp llm_integrations._core".split())


def is_offered(room: str, name: str) -> bool:
    """Whether a name, or a member of one, is there to be used."""
    place: object = import_module(f"llm_integrations.{room}")
    first, _, member = name.partition(".")
    if first not in getattr(place, "__all__", ()):
        return False
    owner = getattr(place, first)
    return not member or hasattr(owner, member) or member in inspect.get_annotations(owner)


def test_the_public_surface_is_the_one_that_was_reviewed() -> None:
    reviewed = public_surface.TARGET.read_text(encoding="utf-8")
    assert public_surface.render() == reviewed, (
        "the public surface changed: run `.venv/bin/python -m scripts.public_surface`, read the"
        " difference as a user would, and name it in CHANGELOG.md"
    )


@pytest.mark.parametrize("room", PROMISED)
def test_every_name_the_design_promises_is_there_or_its_absence_is_explained(room: str) -> None:
    missing = {f"{room}.{name}" for name in PROMISED[room].split() if not is_offered(room, name)}
    assert missing == {name for name in DIFFERENCES if name.startswith(f"{room}.")}


@pytest.mark.parametrize("module", public_surface.MODULES)
def test_every_public_name_can_be_imported_and_is_listed_once(module: str) -> None:
    loaded = import_module(module)
    names = public_surface.public_names(module)
    assert names == list(loaded.__all__)
    assert len(set(names)) == len(names)
    assert not [name for name in names if not hasattr(loaded, name)]
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        loaded.nothing_of_this_name  # noqa: B018 - asking is the test


def test_every_public_class_and_function_says_what_it_is_for() -> None:
    silent = [
        f"{module}.{name}"
        for module in public_surface.MODULES
        for name in public_surface.public_names(module)
        if (found := public_surface.find(module, name)) is not None
        and isinstance(found.node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not ast.get_docstring(found.node)
    ]
    assert not silent


def test_the_version_is_that_of_the_installed_package() -> None:
    assert llm_integrations.__version__ == version("llm-integrations")


def test_the_package_itself_loads_nothing() -> None:
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", "import sys, llm_integrations; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not HEAVY & set(loaded)
