"""Write `docs/reference-claude.md` and `docs/reference-jira.md`: every public name of each client.

    .venv/bin/python -m scripts.reference

In: the source, which is read and never imported. Out: a page for each client, itself first, then
module by module: what a name is for, its signature or fields, and what each method does; the errors
of both stand in the first. The words are the docstrings', so they are written there and only there;
`tests/test_reference.py` says when a page is old, and when something public has nothing to say.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.public_surface import PACKAGE, ROOT, Found, block, find, is_shown, parse, public_names


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its name, the public modules on it, and the module that comes first."""

    name: str
    modules: tuple[str, ...]
    first: str
    head: str

    @property
    def target(self) -> Path:
        """Where it is written."""
        return ROOT / "docs" / f"reference-{self.name}.md"


PAGES: Final = (
    Page(
        "claude",
        (f"{PACKAGE}.anthropic", f"{PACKAGE}.errors"),
        f"{PACKAGE}.anthropic.client",
        """\
# Reference of the Claude client

Made by `python -m scripts.reference` from the docstrings; change those. The tour is
[claude.md](claude.md). All of it is imported from `llm_integrations.anthropic`; errors, at the
end, are imported from `llm_integrations.errors`.
""",
    ),
    Page(
        "jira",
        (f"{PACKAGE}.jira", f"{PACKAGE}.jira.adf", f"{PACKAGE}.jira.jql"),
        f"{PACKAGE}.jira.client",
        """\
# Reference of the Jira client

Made by `python -m scripts.reference` from the docstrings; change those. The tour is
[jira.md](jira.md). All of it is imported from `llm_integrations.jira`, the last two parts from its
`adf` and `jql`; the errors are in the [other reference](reference-claude.md).
""",
    ),
)
SECTION: Final = re.compile(r"(Args|Attributes|Raises|Returns):")
ENTRY: Final = re.compile(r"    ([*\w, ]+): (.*)")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> int:
    """Write the pages."""
    for page in PAGES:
        page.target.write_text(render(page), encoding="utf-8")
        print(f"{page.target.relative_to(ROOT)} is written")
    return 0


def render(page: Page) -> str:
    """Return a whole page."""
    lines = [page.head]
    for room in page.modules:
        public = public_names(room)
        found = {name: origin for name in public if (origin := find(room, name)) is not None}
        modules = {origin.module for origin in found.values()}
        for module in sorted(modules, key=lambda each: (each != page.first, each)):
            lines.append(f"## {first_sentence(parse(module))}\n")
            for name, origin in found.items():
                if origin.module == module:
                    lines += describe(name, origin, public)
    return "\n".join(lines).rstrip() + "\n"


def first_sentence(node: ast.Module) -> str:
    """Return what a module says of itself, as a heading."""
    said = (ast.get_docstring(node) or "").partition("\n\n")[0]
    return re.split(r"[.;:] ", " ".join(said.split()))[0].rstrip(".:")


def describe(name: str, found: Found, public: list[str]) -> Iterator[str]:
    """Yield the entry of one name."""
    yield f"### {name}\n"
    yield from markdown(docstring_of(found))
    yield "```py"
    yield from block(name, found, public)
    yield "```\n"
    if isinstance(found.node, ast.ClassDef):
        for method, said in methods(found.module, found.node, public).items():
            yield f"**`{method}`**\n"
            yield from markdown(said)


def docstring_of(found: Found) -> str:
    """Return the docstring of a class or function; of an overloaded one, that of the last."""
    node = found.node
    if isinstance(node, Function):
        same = [each for each in parse(found.module).body if isinstance(each, Function)]
        node = [each for each in same if each.name == node.name][-1]
    return (ast.get_docstring(node) or "") if isinstance(node, ast.ClassDef | Function) else ""


def methods(module: str, node: ast.ClassDef, public: list[str]) -> dict[str, str]:
    """Return the docstrings of a class's public methods, with those of its private bases."""
    said: dict[str, str] = {}
    for base in reversed(node.bases):
        name = ast.unparse(base).partition("[")[0]
        origin = None if name in public else find(module, name)
        if origin is not None and isinstance(origin.node, ast.ClassDef):
            said |= methods(origin.module, origin.node, public)
    for part in node.body:
        if isinstance(part, Function) and is_shown(part.name):
            docstring = ast.get_docstring(part)
            if docstring is not None:
                said[part.name] = docstring
    return said


def markdown(docstring: str) -> Iterator[str]:
    """Yield a docstring with its Google sections as lists and its sessions as code."""
    in_list = in_session = False
    for line in docstring.splitlines():
        heading, entry = SECTION.fullmatch(line), ENTRY.fullmatch(line)
        if line.startswith(">>> ") and not in_session:
            in_session = True
            yield "```pycon"
        elif in_session and not line:
            in_session = False
            yield "```"
        if heading is not None:
            in_list = True
            yield f"{heading[1]}:\n"
        elif in_list and entry is not None:
            yield f"- `{entry[1]}`: {entry[2]}"
        elif in_list and line.startswith("    "):
            yield f"  {line.strip()}"
        else:
            in_list = in_list and not line
            yield line
    if in_session:
        yield "```"
    if docstring:
        yield ""


if __name__ == "__main__":
    sys.exit(main())
