"""The calls of the client, one file per subject; `client` puts them on one connection.

Each call builds one `Operation` (`requests`) and reads its answer; `pages` goes through lists.
"""
