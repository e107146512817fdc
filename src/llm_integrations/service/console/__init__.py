"""The operator's page, on a listener of its own: reads only, for people who have its token.

In: `ConsoleReads` over the stores that the app opened. Out: an ASGI app. Nothing here writes; what
changes the service are commands.
"""

from __future__ import annotations

from llm_integrations.service.console.reads import ConsoleReads
from llm_integrations.service.console.site import Console, make_console

__all__ = ["Console", "ConsoleReads", "make_console"]
