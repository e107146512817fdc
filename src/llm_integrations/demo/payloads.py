"""The demo on recorded webhook bodies: a folder in, one verdict per promise out.

Each body is delivered once, signed, with an identifier of its own. The simulated Jira is told of
the issues first, so that what handlers read back exists; every project in the bodies is mapped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llm_integrations.demo.checks import Verdict
from llm_integrations.errors import ConfigError

if TYPE_CHECKING:
    from llm_integrations.demo.stage import Stage

__all__ = ["judge_payloads", "load_payloads", "projects_of"]


def load_payloads(folder: Path) -> dict[str, bytes]:
    """Return the bodies of a folder by file name.

    Raises:
        ConfigError: the folder cannot be read, or holds no JSON file.
    """
    try:
        bodies = {path.name: path.read_bytes() for path in sorted(folder.glob("*.json"))}
    except OSError as error:
        msg = f"cannot read the payloads in {folder}: {error.strerror}"
        raise ConfigError(msg) from None
    if not bodies:
        msg = f"no *.json files in {folder}; --payloads takes a folder of recorded webhook bodies"
        raise ConfigError(msg)
    return bodies


def projects_of(bodies: Iterable[bytes]) -> list[str]:
    """Return the keys of the projects that the bodies speak of."""
    keys: set[str] = set()
    for body in bodies:
        try:
            issue = json.loads(body)["issue"]
            keys.add(str(issue["key"]).rpartition("-")[0])
        except (ValueError, KeyError, TypeError):
            continue
    return sorted(keys)


def judge_payloads(
    bodies: Mapping[str, bytes], stage: Stage, *, stored: Mapping[str, int], ledger_pusd: int
) -> list[Verdict]:
    """Return the verdict on each promise that holds for any bodies."""
    last = {d.identifier: d.status for d in stage.jira.deliveries}
    bad = sum(1 for status in last.values() if status is None or not 200 <= status < 300)
    total, still_open = sum(stored.values()), stored.get("open", 0)
    invoice_pusd = stage.claude.invoice_pusd()
    return [
        Verdict(
            "every body is acknowledged",
            len(last) >= len(bodies) and not bad,
            f"{len(bodies)} bodies, {len(last)} webhooks with their echoes, {bad} not taken",
        ),
        Verdict(
            "every delivery ends in one stored outcome",
            total == len(last) and not still_open,
            f"{len(last)} sent, {total} stored, {still_open} open",
        ),
        Verdict(
            "the ledger equals Claude's invoice to the last pico-dollar",
            ledger_pusd == invoice_pusd,
            f"ledger {ledger_pusd} pUSD, invoice {invoice_pusd} pUSD",
        ),
    ]
