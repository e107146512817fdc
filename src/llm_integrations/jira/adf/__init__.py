"""Rich text of Jira: Atlassian Document Format, Markdown and wiki markup. Pure, all of it.

`documents` is both ways between ADF and Markdown: it reads with `markdown` and `inline`, and what
Markdown cannot say it carries in `fences`, checked against `nodes`. `wiki` is the markup of Data
Center and of webhooks, `splitting` cuts what is too long for one comment.
"""

from llm_integrations.jira.adf.documents import (
    TEXT_LIMIT,
    from_markdown,
    to_markdown,
    to_readable,
    to_text,
)

__all__ = ["TEXT_LIMIT", "from_markdown", "to_markdown", "to_readable", "to_text"]
