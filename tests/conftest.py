"""What every test may need; other fixtures stand beside the tests that use them."""

import os
import signal

import pytest
from hypothesis import settings

from scripts import chromium as browser

pytest_plugins = ["tests.postgres"]

# Whoever starts the tests in the background has them ignore Ctrl-C, and with them every process
# that they start to see how it takes Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Nor is what they start to write each line at once, which hides that something was not written.
os.environ.pop("PYTHONUNBUFFERED", None)

# No deadline: a loaded machine is no bug. In CI the examples are the same in every run, so that a
# red one is about the change; elsewhere they differ, and the blob printed repeats a failure.
settings.register_profile(
    "repository", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("repository")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make soak ARGS=...` say how long and how hard."""
    group = parser.getgroup("soak", "how `make soak` goes")
    group.addoption("--soak-seed", type=int, default=1, help="draws webhooks and trouble")
    group.addoption("--soak-deliveries", type=int, default=10_000, help="distinct webhooks")
    group.addoption(
        "--soak-seconds", type=float, default=3_600.0, help="of the run without trouble"
    )
    group.addoption("--soak-rate", type=float, default=50.0, help="webhooks a second")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a real Chromium; skip with the command that installs one."""
    found = browser.find()
    if found is None:
        pytest.skip(browser.SKIP_REASON)
    return found
