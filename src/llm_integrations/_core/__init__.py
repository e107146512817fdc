"""What both clients stand on: clock, settings, codec, HTTP, SSE, retry rules and the call loop.

Private: import from `llm_integrations.jira`, `.anthropic`, `.governance`, `.service` instead.
"""
