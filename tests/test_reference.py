"""The generated reference of the Claude client is fresh, and nothing in it is silent."""

import ast

from scripts import reference
from scripts.public_surface import find, public_names


def test_the_reference_is_what_the_docstrings_say() -> None:
    assert reference.TARGET.read_text(encoding="utf-8") == reference.render(), (
        "docstrings changed: run `.venv/bin/python -m scripts.reference` and read the difference"
    )


def test_every_public_method_of_the_claude_client_says_what_it_does() -> None:
    public = public_names(reference.MODULE)
    silent = [
        f"{name}.{part.name}"
        for name in public
        if (found := find(reference.MODULE, name)) is not None
        and isinstance(found.node, ast.ClassDef)
        for part in found.node.body
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
        and not part.name.startswith("_")
        and not any("overload" in ast.unparse(mark) for mark in part.decorator_list)
        and not ast.get_docstring(part)
    ]
    assert not silent


def test_a_docstring_becomes_markdown() -> None:
    docstring = (
        "Do it.\n\nArgs:\n    what: which one\n        of them.\n    **more: others.\n\nEnd."
    )
    assert list(reference.markdown(docstring)) == [
        "Do it.", "", "Args:\n", "- `what`: which one", "  of them.", "- `**more`: others.", "",
        "End.", "",
    ]  # fmt: skip
