"""The tree of commands, and the one place where exceptions become exit codes."""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from cyclopts import App, CycloptsError, Parameter

from llm_integrations.cli import (
    asking,
    costs,
    databases,
    deliveries,
    gateway,
    jira,
    offline,
    purging,
    serving,
)
from llm_integrations.cli.failures import FAILED, INTERRUPTED, OK, WRONG, complain, report
from llm_integrations.errors import IntegrationError

__all__ = ["run"]

_HELP: Final = """\
Jira and Claude, joined: webhooks in, Claude's work on the issue, the result written back once.

Try it offline, without keys: `llm-integrations demo`

Go live: `llm-integrations serve --settings llm-integrations.toml`

Settings come from a TOML file (`./llm-integrations.toml` when it is there), then from the
environment. Exit codes: 0 done, 1 failed, 2 settings or usage, 130 interrupted.
"""

_ESCAPES: Final = "llm-integrations-escapes"
_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a pipe of Windows, say, is not in UTF-8
        codecs.register_error(_ESCAPES, _escaped)
        sys.stdout.reconfigure(errors=_ESCAPES)
    if isinstance(sys.stdin, io.TextIOWrapper):  # a log holds bytes that are no text
        sys.stdin.reconfigure(errors="replace")
    try:
        result = _program()(
            list(words), exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()
    except CycloptsError as error:
        complain(f"{error} See: llm-integrations --help")
        return WRONG
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # whoever read it has gone
        return FAILED
    except OSError as error:
        if error.errno not in _DISK or error.filename is not None:
            raise
        _drop_output()
        complain(f"standard output: {error.strerror}")
        return FAILED
    except (ImportError, IntegrationError) as error:
        return report(error, words)
    return result if isinstance(result, int) else OK


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks as JSON does: no answer is lost, and JSON stays JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return re.sub("(....)", r"\\u\1", lacking), error.end


def _drop_output() -> None:
    """Write to nowhere from here on: Python would complain once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _program() -> App:
    """Build the tree."""
    program = App(
        name="llm-integrations",
        version=f"llm-integrations {version('llm-integrations')}",
        help=_HELP,
        help_format="markdown",
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
    )
    for command in (
        offline.demo,
        serving.serve,
        serving.pause,
        serving.resume,
        purging.purge,
        asking.ask,
        gateway.gateway,
        offline.simulate,
    ):
        program.command(command)
    books = App(name="costs")
    books.default(costs.costs)
    books.command(costs.export)
    books.command(costs.reconcile)
    program.command(books)
    inbox = App(name="deliveries", help="What arrived, what became of it, and once more.")
    inbox.command(deliveries.list_, name="list")
    inbox.command(deliveries.show)
    inbox.command(deliveries.replay)
    program.command(inbox)
    database = App(name="database", help="Roles, tables, backups: what PostgreSQL itself needs.")
    database.command(databases.sql)
    database.command(databases.migrate)
    database.command(databases.run)
    program.command(database)
    program.command(_jira())
    return program


def _jira() -> App:
    """Build the commands of the Jira client; their rooms are in `cli/jira`."""
    group = App(name="jira", help="Read and write Jira. Needs the JIRA_* environment only.")
    for command in (
        jira.issues.get,
        jira.issues.search,
        jira.issues.create,
        jira.issues.comment,
        jira.issues.transition,
        jira.files.attach,
        jira.files.download,
        jira.exporting.export,
        jira.login.login,
    ):
        group.command(command)
    webhooks = App(name="webhooks", help="Where Jira tells of events, and of which.")
    webhooks.command(jira.hooks.list_, name="list")
    webhooks.command(jira.hooks.register)
    webhooks.command(jira.hooks.refresh)
    webhooks.command(jira.hooks.delete)
    group.command(webhooks)
    return group
