"""The gateway: Claude's API at an address of this machine, with a governor between.

In: requests of any client in any language. Out: the same bytes at the real API, and its answer as
it comes; each attempt held, limited and booked as under `govern()`, by the same rules
(`anthropic/exchanges`). No service, no PostgreSQL: one governor, one HTTP client, one listener.

`door` says who and what comes in and which headers pass; `proxy` carries the bytes.
"""

from llm_integrations.service.gateway.door import GatewayOptions
from llm_integrations.service.gateway.proxy import Gateway

__all__ = ["Gateway", "GatewayOptions"]
