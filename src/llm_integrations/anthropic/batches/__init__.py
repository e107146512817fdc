"""Batches of messages: half the price, answered within a day, their results in any order.

`endpoint` talks to the API; `plan` checks and bounds what goes in, `values` are what comes out,
`results` reads them in constant memory, and `bills` keeps the money of a batch until its results
are known; `exchanges` does so for batches of other people's clients. Nothing here is imported
before a program asks for it.
"""
