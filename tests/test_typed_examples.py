"""Every public name of the Claude client is shown in an example that the type checkers read."""

import ast
from pathlib import Path

import llm_integrations.anthropic

EXAMPLES = Path(__file__).parent / "typing"


def used_names() -> set[str]:
    """Return the names that the examples use, beyond importing them."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in EXAMPLES.glob("*.py")]
    return {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_every_public_name_of_the_claude_client_is_in_a_typed_example() -> None:
    assert not set(llm_integrations.anthropic.__all__) - used_names()
