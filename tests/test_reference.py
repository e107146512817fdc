"""The generated references of both clients are fresh, and nothing in them is silent."""

import ast
from pathlib import Path

import pytest

from scripts import reference
from scripts.public_surface import find, public_names


@pytest.mark.parametrize("page", reference.PAGES, ids=lambda page: page.name)
def test_the_reference_is_what_the_docstrings_say(page: reference.Page) -> None:
    assert page.target.read_text(encoding="utf-8") == reference.render(page), (
        "docstrings changed: run `.venv/bin/python -m scripts.reference` and read the difference"
    )


@pytest.mark.parametrize(
    ("target", "room"), [(page.target, room) for page in reference.PAGES for room in page.modules]
)
def test_every_public_name_has_its_entry_and_every_method_says_what_it_does(
    target: Path, room: str
) -> None:
    page = target.read_text(encoding="utf-8")
    silent = []
    for name in public_names(room):
        assert f"\n### {name}\n" in page
        found = find(room, name)
        assert found is not None
        if isinstance(found.node, ast.ClassDef):
            silent += [f"{name}.{method}" for method in silent_methods(found.node)]
    assert not silent


def silent_methods(node: ast.ClassDef) -> list[str]:
    """Return the public methods of a class that have no docstring."""
    return [
        part.name
        for part in node.body
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
        and not part.name.startswith("_")
        and not any("overload" in ast.unparse(mark) for mark in part.decorator_list)
        and not ast.get_docstring(part)
    ]


def test_a_docstring_becomes_markdown() -> None:
    docstring = (
        "Do it.\n\nArgs:\n    what: which one\n        of them.\n    **more: others.\n\nEnd."
    )
    assert list(reference.markdown(docstring)) == [
        "Do it.", "", "Args:\n", "- `what`: which one", "  of them.", "- `**more`: others.", "",
        "End.", "",
    ]  # fmt: skip
