"""The offline show: thirty tickets, both simulators, the real service, and a judge.

In: `DemoOptions`. Out: an exit code: 0 when every promise was kept, 1 when one was not.
"""

from llm_integrations.demo.show import DemoOptions, run

__all__ = ["DemoOptions", "run"]
