"""DBOS, behind the few calls that the service makes: queue, order and state of workflows.

In: a function that works on one delivery. Out: it is called once for each queued one, one after
the other within a partition; a call that was cut off stays PENDING for `presence` to queue again.
DBOS's steps, sleeps and results are not used: checkpoints and outcomes are ours, so a workflow
holds nothing but its id. Must not know deliveries.

DBOS may begin what it took from the queue a minute late: it reads it once more, and tries that
again while the database is away. By then it may have been queued again and be somebody else's. So
what was taken before the last doubt (`shut`, `open`, `disown`) is begun only if it is still ours.

A workflow that returns is over; one that is cancelled, or raises, is not. There is one engine per
process, because DBOS is one per process.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from importlib.metadata import version
from threading import Thread
from typing import ClassVar, Final

import msgspec
import structlog
from dbos import DBOS, DBOSConfig, Serializer
from dbos import _serialization as dbos_serialization

from llm_integrations._core.clock import SystemClock
from llm_integrations.errors import ConfigError, StoreError, StoreUnavailable
from llm_integrations.store.intake import APPLICATION_VERSION, QUEUE, WORKFLOW
from llm_integrations.store.queue_head import QueueHead
from llm_integrations.store.reach import unavailable

__all__ = ["Engine", "EngineOptions", "migrate_engine"]

_NAME: Final = "llm-integrations"
_LOOKS_OF: Final = ["3", "4"]
_LOOKS_KNOWN: Final = 4_096
_COLLAPSE_S: Final = 10.0
_AWAY_S: Final = 60.0
_AWAY: Final = ("OperationalError", "ConnectionTimeout")
_END_S: Final = 3.0  # three times what the end of idle threads takes
_BEGIN_S: Final = 30.0  # a hundred times what it takes where the database answers
_NO_PRIVILEGE: Final = "42501"

_log = structlog.stdlib.get_logger(__name__)


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine works.

    Attributes:
        executor_id: unique among all processes that ever run.
        concurrency: workflows of this process at one time; those that sleep count too.
        poll_s: how often the queue is looked at; one issue takes one event in each look.
    """

    executor_id: str
    concurrency: int = 256
    poll_s: float = 0.05


class PickledRow(StoreError):
    """A row holds a pickle, which could run code; it is refused."""


class _JsonSerializer(Serializer):
    """JSON by msgspec: what DBOS stores can hold values, never code."""

    def serialize(self, data: object) -> str:
        return msgspec.json.encode(data).decode()

    def deserialize(self, serialized_data: str) -> object:
        return msgspec.json.decode(serialized_data)

    def name(self) -> str:
        return "llm_integrations_json"


def _refuse_pickle(_serializer: object, _data: str) -> object:
    raise PickledRow


# A row names the format it is written in, and DBOS unpickles one that says "py_pickle" whatever
# serializer is configured: whoever can write a row could run code in every worker.
setattr(dbos_serialization.DefaultSerializer, "deserialize", _refuse_pickle)  # noqa: B010 - typed


async def migrate_engine(dsn: str) -> None:
    """Create or update DBOS's tables; other processes may do the same at the same time.

    Raises:
        ConfigError: something is missing, and this role may not create it.
        StoreUnavailable: the database is away, or has no connection left.
    """
    _quieten()
    try:
        await asyncio.wrap_future(_on_a_thread(lambda: DBOS.migrate(dsn), "queue's tables"))
    except Exception as error:
        # SQLAlchemy quotes the statement: no chain.
        if getattr(getattr(error, "orig", None), "sqlstate", "") == _NO_PRIVILEGE:
            raise ConfigError(
                "the queue's tables are missing or old, and this role may not create them: run"
                " `llm-integrations database migrate` with the owner's DATABASE_URL"
            ) from None
        away = unavailable(error)
        if away is None:
            raise
        raise away from None


class Engine:
    """This process's DBOS."""

    _ended: ClassVar[Future[None] | None] = None  # the last end: whoever begins waits for it

    def __init__(self, dsn: str, options: EngineOptions) -> None:
        self._dsn = dsn
        self._options = options
        self._clock = SystemClock()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._looks: _Looks | None = None
        self._doubted_at = -math.inf
        self._is_open = True
        self._changed = asyncio.Event()
        self._changed.set()
        self._begun: Future[None] | None = None
        self._is_launched = False
        self._is_stopping = False

    @property
    def running(self) -> frozenset[str]:
        """Ids of the workflows whose code runs in this process now."""
        return frozenset(self._running)

    @property
    def is_launched(self) -> bool:
        """Whether workflows are taken from the queue: after `start`, before `stop`."""
        return self._is_launched

    async def start(self, work: Callable[[str], Awaitable[None]]) -> None:
        """Begin to take workflows from the queue and call `work` with the id of each.

        Raises:
            StoreUnavailable: the database is away, gives no answer, or has no connection left.
        """
        try:
            await self._launch(work)
        except asyncio.CancelledError:
            await self.stop(0)
            raise
        except Exception as error:
            await self.stop(0)  # DBOS is one to a process, and half of it stands
            away = unavailable(error)
            if away is None:
                raise
            raise away from None  # SQLAlchemy quotes the statement

    async def _launch(self, work: Callable[[str], Awaitable[None]]) -> None:
        async def handle(workflow_id: str) -> None:
            await self._guard(workflow_id, work)

        _quieten()
        if Engine._ended is not None:
            await asyncio.wait([asyncio.wrap_future(Engine._ended)])
        config: DBOSConfig = {
            "name": _NAME,
            "system_database_url": self._dsn,
            "application_version": APPLICATION_VERSION,
            "executor_id": self._options.executor_id,
            "serializer": _JsonSerializer(),
            "log_level": "WARNING",
            "sys_db_pool_size": 8,
            # Without a number every statement may get a thread of its own: a hundred that wait for
            # eight connections, and for each other at every bytecode.
            "max_executor_threads": 16,
            # Nothing here waits for DBOS's messages, events or streams. Listening for them takes a
            # connection, and a thread that wakes up a hundred times a second.
            "use_listen_notify": False,
            # A frozen process must not keep row locks that a take-over waits for.
            "sys_db_idle_transaction_timeout_sec": 10,
            "run_migrations": False,
        }
        dbos = DBOS(config=config)
        DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(handle)
        DBOS.listen_queues([QUEUE])
        # Launched on a thread, it would run the handlers on a loop of its own.
        dbos._background_event_loop.set_main_loop()  # noqa: SLF001 - no public way leads there

        def begin() -> None:
            DBOS.launch()
            self._looks = _look_at_the_head(dbos, self._clock)
            # partition_concurrency must stand alone: any global limit leaves the fast dequeue path.
            DBOS.register_queue(
                QUEUE,
                partition_concurrency=1,
                worker_concurrency=self._options.concurrency,
                polling_interval_sec=self._options.poll_s,
                on_conflict="always_update",
            )

        self._begun = _on_a_thread(begin, "engine begins")
        try:
            async with asyncio.timeout(_BEGIN_S):
                await asyncio.wrap_future(self._begun)
        except TimeoutError:
            msg = f"the database let the queue not begin within {_BEGIN_S:g} s: it gives no answer"
            raise StoreUnavailable(msg) from None
        self._is_launched = True

    async def stop(self, timeout_s: float) -> None:
        """Take nothing more, let what runs end within `timeout_s`, then cut the rest off.

        DBOS waits for its threads one after the other, ten seconds each; those that wait for a
        database that does not answer are left behind.
        """
        self._is_launched = False
        self._is_stopping = True
        loop = asyncio.get_running_loop()
        running = list(self._running.values())
        # It stops dequeuing at once; with a timeout it waits for what runs, in steps of a second.
        wait_s = math.ceil(timeout_s) + 2 if running else 0

        def end() -> None:
            if self._begun is not None:
                wait([self._begun])  # or it would begin behind its end
            DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=wait_s)

        ended = Engine._ended = _on_a_thread(end, "engine ends")
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # Also what was dequeued just before and begins only now.
                while self._running:
                    await asyncio.wait(list(self._running.values()))
        self.shut()
        self._changed.set()
        try:
            await asyncio.wait_for(asyncio.wrap_future(ended), _END_S)
        except TimeoutError:
            _log.warning("the queue's threads are left behind: they do not end")
        # DBOS made its own pool, closed now or soon, the loop's.
        loop.set_default_executor(ThreadPoolExecutor())

    def shut(self) -> None:
        """Cut off everything that runs here and begin nothing; all of it stays PENDING."""
        self._is_open = False
        self._changed.clear()
        self.disown(list(self._running))

    def open(self) -> None:
        """Begin workflows again after `shut`, unless this is about to stop."""
        if self._is_stopping:
            return
        self.disown(())
        self._is_open = True
        self._changed.set()

    def disown(self, workflow_ids: Iterable[str]) -> None:
        """Cut these off, and doubt of all that was taken so far whether it is still ours."""
        self._doubted_at = self._clock.monotonic()
        for workflow_id in workflow_ids:
            if workflow_id in self._running:
                self._running[workflow_id].cancel()

    async def _guard(self, workflow_id: str, work: Callable[[str], Awaitable[None]]) -> None:
        """Run the work in a task of its own, so that it can be cut off."""
        if self._is_open and not await self._is_ours(workflow_id):
            raise asyncio.CancelledError
        if not self._is_open:
            # DBOS takes from the queue as long as there is room, so this fills the room. When it is
            # over a peer may have taken over what waited here: it is left to who owns it then.
            await self._changed.wait()
            raise asyncio.CancelledError
        task = asyncio.ensure_future(_call(work, workflow_id))
        self._running[workflow_id] = task
        try:
            await task
        except Exception as error:  # noqa: BLE001 - whatever it is, the delivery has no outcome
            # Raised, it would end the workflow, and nothing else would ever end its delivery.
            name = type(error).__name__
            _log.error("a workflow failed: it is run again", workflow=workflow_id, error=name)
            raise asyncio.CancelledError from None
        finally:
            task.cancel()
            if self._running.get(workflow_id) is task:
                del self._running[workflow_id]

    async def _is_ours(self, workflow_id: str) -> bool:
        """Whether this execution may begin; where nobody can tell, it is left for later."""
        looks = self._looks
        if looks is None:
            return True
        token = looks.token()
        if looks.began_at(token) > self._doubted_at:
            return True
        try:
            return await asyncio.to_thread(looks.find_owner, workflow_id) == token
        except Exception as error:  # noqa: BLE001 - raised, it would end the workflow
            _log.warning("a workflow is left for later", error=type(error).__name__)
            return False


class _Looks:
    """The looks at the queue that took something, by the token that each writes into its rows."""

    def __init__(
        self,
        look: Callable[..., list[str]],
        find_owner: Callable[[str], str | None],
        clock: SystemClock,
    ) -> None:
        self._look = look
        self._clock = clock
        self._began: dict[str | None, float] = {}
        self.find_owner = find_owner

    def token(self) -> str | None:
        """Return that of the look that took what is about to begin."""
        from dbos._context import get_local_dbos_context  # noqa: PLC0415 - see `_LOOKS_OF`

        context = get_local_dbos_context()
        return None if context is None else context.owner_xid

    def take(self, *terms: object, owner_xid: str | None = None, **more: object) -> list[str]:
        """Look, and note when that began before anything of it can be begun."""
        self._began[owner_xid] = self._clock.monotonic()
        found: list[str] = []
        try:
            found = self._look(*terms, owner_xid=owner_xid, **more)
        finally:
            if not found:
                del self._began[owner_xid]
        if len(self._began) > _LOOKS_KNOWN:
            del self._began[next(iter(self._began))]
        return found

    def began_at(self, owner_xid: str | None) -> float:
        """Return the moment before a look; of one long ago nobody knows it."""
        return self._began.get(owner_xid, -math.inf)


def _look_at_the_head(dbos: DBOS, clock: SystemClock) -> _Looks | None:
    """Have the queue looked at at a cost that does not grow with how many issues wait."""
    if version("dbos").split(".")[:2] != _LOOKS_OF:
        return None  # another version may take rows otherwise; then it does so by itself
    database = dbos._sys_db  # noqa: SLF001 - no public way leads there
    head = QueueHead(
        database.start_queued_partitioned_workflows,
        database.engine.begin,
        name=database.app_name,
        clock=clock,
    )
    looks = _Looks(head.take, database.get_workflow_owner, clock)
    setattr(database, "start_queued_partitioned_workflows", looks.take)  # noqa: B010 - typed
    return looks


def _on_a_thread(work: Callable[[], None], name: str) -> Future[None]:
    """Do what may hang with the database on a thread that nobody has to wait for.

    Neither the loop, nor the end of the process: that of a pool's threads is waited for.
    """
    ended: Future[None] = Future()
    ended.set_running_or_notify_cancel()  # who waits for it no longer does not end it

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            ended.set_exception(error)
        else:
            ended.set_result(None)

    Thread(target=run, name=name, daemon=True).start()
    return ended


async def _call(work: Callable[[str], Awaitable[None]], workflow_id: str) -> None:
    await work(workflow_id)


class _Collapsing(logging.Filter):
    """Lets one line of a kind through in ten seconds, without its traceback.

    While the database is away five threads of DBOS log a traceback in each look, and `presence`
    says so itself: of all of that, one line a minute.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop repeats; keep no traceback, for it may quote a statement."""
        said = record.getMessage()
        is_away = any(name in said for name in _AWAY)
        key = ("away", 0) if is_away else (record.pathname, record.lineno)
        if record.created - self._seen.get(key, 0.0) < (_AWAY_S if is_away else _COLLAPSE_S):
            return False
        self._seen[key] = record.created
        record.exc_info = record.exc_text = None
        return True


class _Forwarding(logging.Handler):
    """Hands DBOS's lines to the service's own logger.

    DBOS adds a handler that writes to the terminal unless its logger has one.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(_Collapsing())

    def emit(self, record: logging.LogRecord) -> None:
        """Forward the first line of a message."""
        line = record.getMessage().partition("\n")[0][:200]
        _log.warning("engine", level_name=record.levelname, message=line)


def _quieten() -> None:
    logger = logging.getLogger("dbos")
    logger.propagate = False
    if not any(isinstance(handler, _Forwarding) for handler in logger.handlers):
        logger.addHandler(_Forwarding())
