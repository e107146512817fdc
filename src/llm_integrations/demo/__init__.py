"""The offline show: thirty tickets, both simulators, the real service, and a judge.

In: options. Out: an exit code: 0 when every promise was kept, 1 when one was not.
"""
