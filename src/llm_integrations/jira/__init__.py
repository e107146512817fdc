"""A typed async client for Jira Cloud and Data Center, and the rules of its webhooks."""
