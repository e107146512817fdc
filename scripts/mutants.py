"""Break one module in every small way, one at a time, and see whether its tests notice.

    .venv/bin/python -m scripts.mutants anthropic/pricing [more modules]
        [--tests FILE ...] [--without NAME]

In: modules of the package, by path. Out: a line for each mutant that no test killed, and the sums.
A mutant lives in the memory of a forked process only; no file is written. Libraries, and the rooms
that do not import the module, are imported once, before the forks, so that a mutant costs about a
second. Properties run on fewer examples and are not shrunk. By default a module is held against the
tests that are named after it (`tests/rules/test_ROOM_NAME*.py`). docs/mutants.md keeps the figures
and the survivors.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import importlib.machinery
import os
import signal
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

import hypothesis
import pytest
from _pytest.config import default_plugins

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = "llm_integrations"
TIMEOUT_S: Final = 120
EXAMPLES: Final = 20
HEAVY: Final = ("aiohttp", "genai_prices", "hypothesis.strategies", "llm_integrations.anthropic")
# Rules need no plugin, no fixture and no settings; starting these is most of what a mutant costs.
BARE: Final = (
    *("-x", "-q", "-c", os.devnull, "--rootdir", str(ROOT), "--noconftest", "--assert=plain"),
    *("--import-mode=importlib", "-m", "not soak", "-p", "no:cacheprovider"),
)
# Only for files with a test that awaits.
LOOP: Final = (
    *("-p", "pytest_asyncio.plugin", "-o", "asyncio_mode=auto"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
)
HABITS: Final = ("frozen", "kw_only")  # of every Struct here; no test should depend on them

SWAPS: Final[dict[type[ast.AST], type[ast.AST]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Add,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


class Mutant(NamedTuple):
    """One way to break a module: at a node (by its place in the walk), put another one."""

    place: int
    line: int
    before: str
    after: str
    node: ast.AST


def main() -> int:
    """Run every mutant of every module that was named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="+", help="like anthropic/pricing")
    parser.add_argument("--tests", nargs="+", default=[], help="files to hold it against")
    parser.add_argument("--without", default="", help="tests to leave out, as for pytest -k")
    wanted = parser.parse_args()
    sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
    os.chdir(ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in (*HEAVY, *(f"_pytest.{plugin}" for plugin in default_plugins)):
        importlib.import_module(name)
    for module in wanted.modules:
        tests = wanted.tests or _tests_of(module)
        if any("async def test" in Path(test).read_text(encoding="utf-8") for test in tests):
            tests = [*tests, *LOOP]
        if wanted.without:
            tests += ["-k", f"not ({wanted.without})"]
        if not _try_all(module, tests):
            return 1
    return 0


def _tests_of(module: str) -> list[str]:
    """Return the tests that are named after a module, after its folder, or without the room."""
    parts = module.split("/")
    names = ["_".join(parts[:end]) for end in range(len(parts), 1, -1)]
    for name in (*names, parts[-1]):
        if found := sorted(ROOT.glob(f"tests/rules/test_{name}*.py")):
            return [str(path) for path in found]
    return []


def _try_all(module: str, tests: list[str]) -> bool:
    """Print the survivors and the sums of one module; False when its tests fail by themselves."""
    path = ROOT / "src" / PACKAGE / f"{module}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    print(f"{module}: against {' '.join(Path(test).name for test in tests)}", flush=True)
    if _is_killed(module, path, tree, tests):
        print("the tests fail without any mutant", file=sys.stderr)
        return False
    mutants = list(find_mutants(tree))
    survivors = 0
    for number, mutant in enumerate(mutants):
        if number % 25 == 0:
            print(f"  {number} of {len(mutants)}", file=sys.stderr, flush=True)
        if not _is_killed(module, path, _apply(tree, mutant), tests):
            survivors += 1
            print(f"  line {mutant.line}: {mutant.before}  ->  {mutant.after}", flush=True)
    killed = len(mutants) - survivors
    print(f"{module}: {len(mutants)} mutants, {killed} killed, {survivors} survived", flush=True)
    return True


def find_mutants(tree: ast.Module) -> Iterator[Mutant]:
    """Yield every mutant of a module, in the order of a walk."""
    skipped = set(_without_meaning(tree))
    for place, node in enumerate(ast.walk(tree)):
        if node not in skipped:
            for other in _others(node):
                line = getattr(node, "lineno", 0)
                yield Mutant(place, line, _show(node), _show(other), other)


def _without_meaning(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes that running code does not see: docstrings, annotations, names."""
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                parts.append(node.body[0] if ast.get_docstring(node) is not None else None)
                if isinstance(node, ast.ClassDef):
                    parts += [each for each in node.keywords if each.arg in HABITS]
                elif not isinstance(node, ast.Module):
                    parts.append(node.returns)
            case ast.arg() | ast.AnnAssign():
                parts.append(node.annotation)
            case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]):
                parts.append(node)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                parts.append(node)
            case _:
                pass
        for part in parts:
            if part is not None:
                yield from ast.walk(part)


def _others(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place."""
    if isinstance(node, ast.Constant):
        if (value := _other_value(node.value)) is not None:
            yield ast.Constant(value)
    elif isinstance(node, ast.stmt):
        yield from _other_statements(node)
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                if type(op) in SWAPS:
                    yield _with(node, ops=[*ops[:at], SWAPS[type(op)](), *ops[at + 1 :]])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in SWAPS:
            yield _with(node, op=SWAPS[type(op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.If() | ast.While() | ast.IfExp():
            yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.comprehension(ifs=[_, *_]):
            yield _with(node, ifs=[])
        case _:
            pass


def _other_value(value: object) -> bool | int | str | bytes | None:
    """Return another constant of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return "" if value else "x"
        case bytes():
            return b"" if value else b"x"
        case _:
            return None


def _other_statements(node: ast.stmt) -> Iterator[ast.stmt]:
    """Yield what may be done instead: nothing, or the opposite."""
    match node:
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Assign(targets=targets, value=value) if not _is_none(value):
            yield ast.Assign(targets, ast.Constant(None))
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case _:
            pass


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with(node: ast.AST, **changes: object) -> ast.AST:
    """Return a copy of a node with some of its fields changed."""
    changed = copy.copy(node)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def _show(node: ast.AST) -> str:
    """Return a node as one line of code."""
    if isinstance(node, ast.comprehension):
        return f"for {ast.unparse(node.target)} in ... " + " ".join(
            f"if {ast.unparse(test)}" for test in node.ifs
        )
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node)))
    return text.splitlines()[0][:90]


def _apply(tree: ast.Module, mutant: Mutant) -> ast.Module:
    """Return a copy of the tree with the mutant in it."""
    changed = copy.deepcopy(tree)
    target = next(node for place, node in enumerate(ast.walk(changed)) if place == mutant.place)
    for parent in ast.walk(changed):
        for name, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, name, mutant.node)
            elif isinstance(value, list) and any(item is target for item in value):
                value[:] = [mutant.node if item is target else item for item in value]
    return ast.fix_missing_locations(changed)


class _Swapped(MetaPathFinder):
    """Imports one module from a tree instead of its file."""

    def __init__(self, module: str, path: Path, tree: ast.Module) -> None:
        self.name = f"{PACKAGE}.{module.replace('/', '.')}"
        self._path = str(path)
        self._code = compile(tree, self._path, "exec")

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where the module comes from, if it is the one."""
        if fullname != self.name:
            return None
        loader = _Loader(fullname, self._path)
        loader.code = self._code
        return importlib.machinery.ModuleSpec(fullname, loader, origin=self._path)


class _Loader(importlib.machinery.SourceFileLoader):
    """Has the code already."""

    code: object

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        """Return the code, whatever the file says."""
        return self.code


def _is_killed(module: str, path: Path, tree: ast.Module, tests: list[str]) -> bool:
    """Run the tests on a module's tree in a process of their own; whether they failed."""
    child = os.fork()
    if child == 0:
        os._exit(_run(_Swapped(module, path, tree), tests))
    _, status = os.waitpid(child, 0)
    return status != 0


def _run(swapped: _Swapped, tests: list[str]) -> int:
    """Run the tests in silence, stop at the first that fails."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    signal.alarm(TIMEOUT_S)
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutants", max_examples=EXAMPLES, deadline=None, database=None, phases=phases
    )
    hypothesis.settings.load_profile("mutants")
    sys.meta_path.insert(0, swapped)
    for name in _importers(swapped.name):
        sys.modules.pop(name, None)  # it may be imported lazily
    return int(pytest.main([*BARE, *tests]))


def _importers(module: str) -> set[str]:
    """Return the loaded modules of the package that have to be imported anew with this one."""
    found = {module}
    loaded = {n: m for n, m in sys.modules.items() if n.split(".")[0] in {PACKAGE, "tests"}}
    while True:
        more = {
            name
            for name, loaded_module in loaded.items()
            if name not in found and _uses(vars(loaded_module), found)
        }
        if not more:
            return found
        found |= more


def _uses(names: dict[str, object], modules: set[str]) -> bool:
    """Whether any name in a module comes from one of these modules, or is one of them."""
    return any(
        getattr(value, "__module__", None) in modules
        or (isinstance(value, ModuleType) and value.__name__ in modules)
        for value in names.values()
    )


if __name__ == "__main__":
    sys.exit(main())
