"""Write `tests/public_surface.txt`: every public name with its signature, for review.

    .venv/bin/python -m scripts.public_surface

In: the source, which is read and never imported, so the result is the same on every Python and
with any extra absent. Out: one block per name of a public module's `__all__`; of a class its fields
and methods, with those of its private bases. `tests/test_public_surface.py` compares; a change of
this file is a change for users and belongs into CHANGELOG.md.
"""

import ast
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "tests" / "public_surface.txt"
PACKAGE: Final = "llm_integrations"
MODULES: Final = (
    PACKAGE,
    f"{PACKAGE}.anthropic",
    f"{PACKAGE}.errors",
    f"{PACKAGE}.governance",
    f"{PACKAGE}.jira",
    f"{PACKAGE}.jira.adf",
    f"{PACKAGE}.jira.jql",
    f"{PACKAGE}.service",
    f"{PACKAGE}.simulators",
    f"{PACKAGE}.simulators.faults",
)
# Classes without a public name of their own whose objects people are handed.
HANDED_OUT: Final[dict[str, tuple[str, ...]]] = {
    f"{PACKAGE}.governance": ("budgets.Budgets", "ledger.Ledger", "reports.Reports"),
    f"{PACKAGE}.service": ("app.Books", "app.Running"),
}
SHOWN_DUNDERS: Final = frozenset(
    "__init__ __call__ __aenter__ __aexit__ __aiter__ __iter__ __len__".split()
)

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True, slots=True)
class Found:
    """A name's definition, and the module in which it stands."""

    module: str
    node: Definition | None  # None for a module


@cache
def parse(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    path = ROOT / "src" / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def exists(module: str) -> bool:
    """Whether there is a module or package of this name."""
    path = ROOT / "src" / Path(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield a module's statements, those under `if TYPE_CHECKING:` included."""
    for node in tree.body:
        yield from node.body if isinstance(node, ast.If) else (node,)


def public_names(module: str) -> list[str]:
    """Return the names of a module's `__all__`."""
    for node in top_level(parse(module)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise SystemExit(f"{module} has no __all__")


def source_of(module: str, node: ast.ImportFrom) -> str:
    """Return the full name of the module that a statement imports from."""
    if not node.level:
        return node.module or ""
    is_package = (ROOT / "src" / Path(*module.split("."))).is_dir()
    package = module if is_package else module.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def find(module: str, name: str) -> Found | None:
    """Follow a name through imports inside the package to its definition, past its overloads."""
    for node in top_level(parse(module)):
        match node:
            case ast.FunctionDef(decorator_list=[ast.Name(id="overload"), *_]):
                continue
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() if node.name == name:
                return Found(module, node)
            case ast.Assign() if ast.unparse(node.targets[0]) == name:
                return Found(module, node)
            case ast.AnnAssign() if ast.unparse(node.target) == name:
                return Found(module, node)
            case ast.ImportFrom():
                source = source_of(module, node)
                for alias in node.names if source.startswith(PACKAGE) else ():
                    if (alias.asname or alias.name) == name:
                        submodule = f"{source}.{alias.name}"
                        if exists(submodule):
                            return Found(submodule, None)
                        return find(source, alias.name)
            case _:
                continue
    return None


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return a function's head on one line, with the decorators that change how it is called."""
    marks = "".join(
        f"@{mark} "
        for mark in map(ast.unparse, node.decorator_list)
        if "cache" not in mark or "property" in mark
    )
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{marks}{word} {node.name}({ast.unparse(node.args)}){result}"


def is_shown(name: str) -> bool:
    """Whether a member of a class is public."""
    return not name.startswith("_") or name in SHOWN_DUNDERS


def kept_by(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, str]]:
    """Yield the public attributes that a constructor sets."""
    for part in ast.walk(node):
        match part:
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=attr)]):
                line = attr
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=attr)):
                line = f"{attr}: {ast.unparse(part.annotation)}"
            case _:
                continue
        if is_shown(attr):
            yield attr, line


def own_members(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Yield the name and the line of each public member that a class itself defines."""
    for part in node.body:
        match part:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                if part.name == "__init__":
                    yield from kept_by(part)
                if is_shown(part.name):
                    yield part.name, signature(part)
            case ast.AnnAssign() if is_shown(name := ast.unparse(part.target)):
                yield name, ast.unparse(part)
            case ast.Assign() if is_shown(name := ast.unparse(part.targets[0])):
                yield name, ast.unparse(part)


def members(module: str, node: ast.ClassDef, public: Collection[str]) -> dict[str, list[str]]:
    """Return all public members of a class by name; what a class defines hides its bases'."""
    collected: dict[str, list[str]] = {}
    for base in reversed(node.bases):
        origin = find(module, ast.unparse(base).partition("[")[0])
        if origin is None or ast.unparse(base) in public:
            continue  # of another package, or described under its own name
        if isinstance(origin.node, ast.ClassDef):
            collected |= members(origin.module, origin.node, public)
    own: dict[str, list[str]] = {}
    for name, line in own_members(node):
        own.setdefault(name, []).append(line)
    return collected | own


def block(name: str, found: Found | None, public: Collection[str] = ()) -> Iterator[str]:
    """Yield the lines that describe one public name."""
    if found is None:
        raise SystemExit(f"{name} is in __all__ and defined nowhere")
    match found.node:
        case None:
            yield f"module {name}"
        case ast.ClassDef() as node:
            heads = [*map(ast.unparse, node.bases), *map(ast.unparse, node.keywords)]
            marks = "".join(f"@{ast.unparse(each)} " for each in node.decorator_list)
            yield f"{marks}class {name}" + (f"({', '.join(heads)})" if heads else "")
            for lines in members(found.module, node, public).values():
                yield from (f"    {line}" for line in lines)
        case ast.FunctionDef() | ast.AsyncFunctionDef() as node:
            yield signature(node)
        case node:
            yield ast.unparse(node)


def describe(module: str) -> Iterator[str]:
    """Yield the lines that describe one public module."""
    yield f"# {module}"
    public = public_names(module)
    for name in public:
        yield from block(name, find(module, name), public)
    for path in HANDED_OUT.get(module, ()):
        room, _, name = path.rpartition(".")
        yield from block(f"{name} (handed out)", find(f"{module}.{room}", name))


def render() -> str:
    """Return the whole file."""
    return "\n\n".join("\n".join(describe(module)) for module in MODULES) + "\n"


def main() -> int:
    """Write the file."""
    TARGET.write_text(render(), encoding="utf-8")
    print(f"{TARGET.relative_to(ROOT)} is written; say in CHANGELOG.md what changes for users")
    return 0


if __name__ == "__main__":
    sys.exit(main())
