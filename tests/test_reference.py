"""The generated reference of the Claude client is fresh, and nothing in it is silent."""

import ast

import pytest

from scripts import reference
from scripts.public_surface import find, public_names


def test_the_reference_is_what_the_docstrings_say() -> None:
    assert reference.TARGET.read_text(encoding="utf-8") == reference.render(), (
        "docstrings changed: run `.venv/bin/python -m scripts.reference` and read the difference"
    )


@pytest.mark.parametrize("room", reference.MODULES)
def test_every_public_name_has_its_entry_and_every_method_says_what_it_does(room: str) -> None:
    page = reference.TARGET.read_text(encoding="utf-8")
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
