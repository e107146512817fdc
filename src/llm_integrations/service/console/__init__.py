"""The operator's page, on a listener of its own: reads only, for people who have its token.

In: `reads.ConsoleReads` over the stores that the app opened. Out: the ASGI app of `site`. Nothing
here writes; what changes the service are commands. `spend` draws for the terminal's `--html` too,
which needs neither web server nor PostgreSQL: so nothing is imported here.
"""
