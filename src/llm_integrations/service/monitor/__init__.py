"""What machines ask a process: is it alive, is it ready, how much is there to do.

In: checks and counts of the rooms that the app opened. Out: an ASGI application for a listener of
its own. Nothing here writes, and no answer holds text of users, a key, an address or a secret.
"""

from __future__ import annotations

from llm_integrations.service.monitor.site import Monitor

__all__ = ["Monitor"]
