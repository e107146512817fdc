"""`serve` with one safety rule switched off, so that the judge has something to object to.

python -m tests.fleet.planted RULE ROLE SETTINGS
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from llm_integrations.service import App
from llm_integrations.service.settings import Seams, load_settings

if TYPE_CHECKING:
    from llm_integrations.service.app import Role


async def main(rule: str, role: str, settings: str) -> None:
    loaded = load_settings(Path(settings), os.environ)
    app = App(loaded, seams=Seams(**{rule: False}))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with app.running(cast("Role", role)):
        print("mode      planted", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
