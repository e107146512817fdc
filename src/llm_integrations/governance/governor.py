"""The governor: budget hold, then limits, then the call, then the books.

An `Ask` flows in and a permit out, or a refusal before anything is sent; the `Actual` of the
attempt flows in and its ledger row is settled. Knows integers and no vendor.

The hold comes before the line: a refused call is refused at once even when that is long, and leaves
the limits as they were. Whoever is cancelled in the line gives the hold back.

The ledger row of an attempt is written before it is sent and settled after. If the database is
away when an attempt ends, its caller gets `StoreUnavailable`, the row stays held, and the
governor tries again until it is back (`late`); if the process dies meanwhile, its lease of
`LEASE_S` runs out and another process, or the next one to open, books the row as "unknown": its
hold then counts as spent.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from itertools import chain, count
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec.structs import replace

from llm_integrations._core.admission import Ask
from llm_integrations._core.clock import SystemClock, id_by_time
from llm_integrations._core.codec import decode
from llm_integrations.errors import (
    BudgetExceeded,
    ConfigError,
    InvalidRequest,
    StoreError,
    StoreUnavailable,
)
from llm_integrations.governance.alerts import Alerts
from llm_integrations.governance.budgets import Budgets, us_of
from llm_integrations.governance.endings import Endings
from llm_integrations.governance.home import HomeLoop, living_on_a_thread
from llm_integrations.governance.late import LateBooks
from llm_integrations.governance.ledger import Ledger
from llm_integrations.governance.limiter import Limiter, check_limits
from llm_integrations.governance.reports import Reports
from llm_integrations.governance.sharing import SharedPools
from llm_integrations.governance.tally import Tally
from llm_integrations.store import open_store
from llm_integrations.store.records import MAX_PUSD, Checkpoint, Hold, Settlement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
    from datetime import datetime

    from llm_integrations._core.admission import Actual, Observation
    from llm_integrations._core.clock import Clock
    from llm_integrations.governance.budgets import Budget, BudgetAlert
    from llm_integrations.governance.limits import Limit, Reservation
    from llm_integrations.store.protocol import GovernanceStore
    from llm_integrations.store.records import FinalState, Refusal

__all__ = ["LEASE_S", "Governor", "Permit"]

T = TypeVar("T")

LEASE_S: Final = 30.0
"""How long after its last heartbeat a process counts as dead; it beats three times as often."""

_KEY_BYTES: Final = 500
"""Rows are found, and summed up, by what is no longer: an index of PostgreSQL takes 2,704 bytes,
and that of the sums has four such names in it; NOTIFY takes 8,000, and tells of pools by name."""

_TIDY_BEATS: Final = 30
"""Old entries are summed up, and forgotten, with every so many heartbeats: each five minutes."""

_LEAVE_S: Final = 10.0
"""How long a governor that ends waits for books that do not answer."""

_HURRY_S: Final = 2.0
"""How long it does when others have waited for them before."""

_PARTING_S: Final = 1.0
"""How long a call that was cancelled waits for its row."""

_logger = logging.getLogger("llm_integrations.governance")


class _Will(msgspec.Struct, frozen=True, kw_only=True):
    """Which row a permit is for, as stored for other processes."""

    call_id: str
    attempt: int
    note: bytes


_will_decoder: Final = msgspec.json.Decoder(_Will)
_WILLS: Final = "handed over: "
_KEYS: Final = ("project", "handler", "issue", "delivery")


class Permit(msgspec.Struct, eq=False, gc=False):
    """One admitted attempt: what it holds, and the key of its ledger row."""

    ask: Ask
    call_id: str
    reservation: Reservation | None
    is_counted: bool = False


class Governor:
    """Limits, budgets and a ledger under any number of clients; open it with `Governor.open`.

    Attributes:
        store: where answers are kept.
        budgets: their state, and how to change them.
        ledger: what each attempt cost.
        reports: sums over the ledger.
        home: the loop it lives on, for callers on other threads and loops.
    """

    def __init__(
        self,
        store: GovernanceStore,
        limits: Sequence[Limit],
        clock: Clock,
        *,
        keep_days: int | None = None,
        on_alert: Callable[[BudgetAlert], object] | None = None,
        tells_alerts: bool = True,
    ) -> None:
        self.store = store
        self.budgets = Budgets(store, clock)
        self.ledger = Ledger(store)
        self.reports = Reports(store)
        self._tally = Tally()
        self.home = HomeLoop()
        self._clock = clock
        self._keep_days = keep_days
        self._alerts = Alerts(store, clock, self._tally, on_alert) if tells_alerts else None
        self._owner = secrets.token_hex(8)
        shared = store.share_limits(self._owner)
        self._pools = None if shared is None else SharedPools(shared, clock)
        opens = None if self._pools is None else self._pools.open_line
        self._limiter = Limiter(limits, clock=clock, open_line=opens)
        self._tags: ContextVar[Mapping[str, str]] = ContextVar("tags", default={})  # noqa: B039 - never changed, only replaced
        self._late = LateBooks(store, clock)
        # What a fleet shares, others wait for.
        self._endings = Endings(self._post, waits=self._pools is None)
        store.on_look = self._endings.work_off
        self._undoing: set[asyncio.Task[None]] = set()
        self._leave_s = _LEAVE_S

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str = "memory:",
        *,
        budgets: Sequence[Budget] | None = None,
        limits: Sequence[Limit] | None = None,
        keep_days: int | None = None,
        on_alert: Callable[[BudgetAlert], object] | None = None,
        tells_alerts: bool = True,
        clock: Clock | None = None,
    ) -> AsyncIterator[Governor]:
        """Open the books at `memory:`, `sqlite:///file` or `postgresql://…`.

        Args:
            url: where the books are. Those in memory remember the newest 20,000 attempts one by
                one, and the sum of all.
            budgets: added to those stored, replacing any of the same name; None changes nothing.
            limits: hold in this process; on PostgreSQL in all processes that open these books
                together. What they leave open is learned from headers.
            keep_days: entries that are older are deleted; their sums by quarter of an hour, model,
                project and handler stay. None keeps all.
            on_alert: called, and awaited if that is to be, when 50, 80 or 100 % of a budget are
                spent, within ten seconds, once in each window: of all processes with these books
                one calls. A warning is logged too.
            tells_alerts: False leaves that to the other processes; for one that only looks.
            clock: time and chance.

        Raises:
            ConfigError: a budget, a limit or the URL makes no sense.
            StoreError: the database is of a newer version, locked or away.

        Example:
            async with Governor.open(
                "sqlite:///costs.db", budgets=[Budget("cap", usd="1.00", window="day")]
            ) as governor:
                ...
        """
        if keep_days is not None and keep_days < 2:
            raise ConfigError(f"keep_days is {keep_days}: entries are kept for two days at least")
        clock = clock or SystemClock()
        check_limits(limits or ())
        store = await open_store(url, clock=clock)
        governor = cls(
            store,
            limits or (),
            clock,
            keep_days=keep_days,
            on_alert=on_alert,
            tells_alerts=tells_alerts,
        )
        try:
            await governor._start(budgets)
        except BaseException:
            await governor._close()
            raise
        keepers = [
            asyncio.create_task(governor._keep_alive(), name="governor"),
            asyncio.create_task(governor._late.run(), name="late books"),
        ]
        for keeper in keepers:
            keeper.add_done_callback(_report_end)
        try:
            yield governor
        finally:
            await governor.home.close()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.wait(keepers)
            await governor._stop()

    @classmethod
    @contextmanager
    def threaded(
        cls,
        url: str = "memory:",
        *,
        budgets: Sequence[Budget] | None = None,
        limits: Sequence[Limit] | None = None,
        keep_days: int | None = None,
        on_alert: Callable[[BudgetAlert], object] | None = None,
        clock: Clock | None = None,
    ) -> Iterator[Governor]:
        """Open the books for code that has no event loop: the governor lives on a thread.

        See `open`; `on_alert` is called on that thread. Ask it by `run`; any number of threads
        may. A process that is forked off opens a governor of its own.

        Example:
            with Governor.threaded("sqlite:///costs.db") as governor:
                print(governor.run(governor.ledger.total_pusd()))
        """
        opening = cls.open(
            url,
            budgets=budgets,
            limits=limits,
            keep_days=keep_days,
            on_alert=on_alert,
            clock=clock,
        )
        with living_on_a_thread(opening) as governor:
            yield governor

    def run(self, question: Coroutine[object, object, T]) -> T:
        """Return what a coroutine of this governor returns, to code that has no event loop.

        Raises:
            ConfigError: this is the governor's own loop, or a forked process, or it is closed.
        """
        try:
            return self.home.run(lambda: question)
        finally:
            question.close()  # had it not run: no warning that nobody awaited it

    async def admit(self, ask: Ask) -> Permit:
        """Hold the money, wait for room, and return a permit.

        Raises:
            BudgetExceeded: a hard budget has too little left, or cannot tell what it would cost.
            InvalidRequest: the ask is larger than a limit can ever admit, or makes no sense.
            RateLimited: the server asked for a pause that is longer than calls wait for.
            StoreUnavailable: the books cannot be written, so nothing may be sent.
            TimeoutError: there was no room for as long as the ask has patience.
            ConfigError: this is another event loop than the governor's own.
        """
        if not self.home.is_here:
            raise ConfigError(
                "this governor lives on another event loop, and nothing was sent: a client needs"
                " one that was opened on its own loop, by `async with Governor.open(...)`"
            )
        tags = self._tags.get()
        if tags:
            ask = replace(ask, tags={**tags, **ask.tags})
        hold_pusd = ask.hold_pusd
        if hold_pusd is not None and not 0 <= hold_pusd <= MAX_PUSD:
            raise InvalidRequest("the call may cost more than four million dollars, or less than 0")
        hold = self._hold(ask)
        size = len(ask.model) + len(ask.group) + len(ask.workspace) + len(hold.tags)
        if size * 4 > _KEY_BYTES:
            _check_keys(ask, hold)
        taken = self._limiter.take(ask)
        try:
            refusal = await self.store.hold(hold, at_once=ask.at_once)
            if refusal is not None and self._endings.work_off():
                refusal = await self.store.hold(hold, at_once=ask.at_once)
        except (asyncio.CancelledError, StoreUnavailable):
            self._undo(hold, taken)  # it may have been written
            raise
        except BaseException:
            self._give_back(taken)
            raise
        if refusal is not None:
            self._give_back(taken)
            self._tally.add(ask.model, "over budget")
            raise self._exceeded(hold, refusal)
        if taken is None:
            self._endings.work_off()
            try:
                taken = await self._limiter.admit(ask)
            except BaseException:
                self._undo(hold)
                raise
        return Permit(ask, hold.call_id, taken)

    async def settle(self, permit: object, actual: Actual) -> None:
        """Book what the attempt used, and keep its answer in the same commit; safe to repeat.

        A cost that makes no sense counts as unknown. A task that was cancelled waits a second, and
        is told of no failure: that would take the place of its end.

        Raises:
            StoreUnavailable: it could not be booked yet; it will be, at the latest as "unknown".
        """
        await self._book(self._end(_own(permit), actual))

    def post(self, permit: object, find: Callable[[], Actual]) -> None:
        """Book what the attempt used, with others and without waiting for the commit.

        It is written within 50 ms; this governor's budgets, limits and ledger count with it at
        once. If the process dies before, the attempt is "unknown"; if the database is away, it is
        booked later. Where an answer is to be kept, `settle` it.
        """
        self._endings.add(_own(permit), find)
        if self._limiter.waiting:
            self._endings.work_off()

    async def cancel(self, permit: object) -> None:
        """Give everything back: nothing was sent."""
        permit = _own(permit)
        self._give_back(permit.reservation)
        await self._book(self._plain(permit.call_id, permit.ask.attempt, "released"))

    async def hand_over(
        self, permit: object, key: str, note: bytes, *, until: datetime | None = None
    ) -> None:
        """Store which row a permit is for, so that any process with these books may settle it.

        Args:
            until: so long the row stays held even if this process ends; then it is "unknown",
                whoever lives to see it.

        Raises:
            StoreUnavailable: it is not stored; this process can still settle.
        """
        permit = _own(permit)
        will = _Will(call_id=permit.call_id, attempt=permit.ask.attempt, note=note)
        await self.store.keep(_WILLS + key, "row", msgspec.json.encode(will))
        if until is not None:
            left_s = max(0.0, (until - self._clock.now()).total_seconds())
            await self.store.entrust(permit.call_id, permit.ask.attempt, left_s)

    async def take_over(self, key: str) -> tuple[object, bytes] | None:
        """Return a permit that another process stored under this key, and its note.

        It holds no place under the limits, and settles a row once, whoever is first.
        """
        kept = await self.store.load_kept(_WILLS + key)
        if "row" not in kept:
            return None
        will = decode(_will_decoder, kept["row"])
        ask = Ask(group="", attempt=will.attempt, call_id=will.call_id)
        permit = Permit(ask, will.call_id, None)
        permit.is_counted = True  # where it was admitted
        return permit, will.note

    async def catch_up(self) -> None:
        """Book what could not be booked when it happened, so that answers paid for are kept.

        Raises:
            StoreUnavailable: the database is still away.
        """
        self._endings.work_off()
        await self.store.flush()
        await self._late.catch_up()

    @property
    def tally(self) -> Tally:
        """What this process asked for, was charged and told people since it started."""
        self._endings.work_off()
        return self._tally

    def observe(self, ask: Ask, seen: Observation, sent_at: float) -> None:
        """Learn the server's limits from headers; a pause holds back the whole group."""
        self._limiter.observe(ask, seen, sent_at)

    @contextmanager
    def tags(self, **tags: str) -> Iterator[None]:
        """Tag all calls made inside, for calls made by other people's code.

        Example:
            with governor.tags(issue="ABC-1"):
                await client.complete("...", model=ClaudeModel.HAIKU_5_5, max_tokens=100)
        """
        token = self._tags.set({**self._tags.get(), **tags})
        try:
            yield
        finally:
            self._tags.reset(token)

    def _hold(self, ask: Ask) -> Hold:
        """Turn an ask into the ledger row to be."""
        now_us = us_of(self._clock.now())
        tags = ask.tags
        return Hold(
            call_id=ask.call_id or id_by_time(),
            attempt=ask.attempt,
            owner=self._owner,
            group=ask.group,
            model=ask.model,
            hold_pusd=ask.hold_pusd,
            bounded=ask.bounded,
            price_version=ask.price_version,
            tags=_encode_tags(tags) if tags else "{}",
            issue=tags.get("issue"),
            delivery=tags.get("delivery"),
            created_us=now_us,
            estimate_pusd=ask.hold_pusd if ask.estimate_pusd is None else ask.estimate_pusd,
            windows=self.budgets.book.find_windows(tags, now_us),
        )

    def _end(self, permit: Permit, actual: Actual) -> Settlement:
        """End what the permit took of the limits, and return how its row ends."""
        ask, cost_pusd, at_most_pusd = permit.ask, actual.cost_pusd, actual.at_most_pusd
        if cost_pusd is not None and not 0 <= cost_pusd <= MAX_PUSD:
            cost_pusd = None
        if at_most_pusd is not None and not 0 <= at_most_pusd <= MAX_PUSD:
            at_most_pusd = None
        if permit.reservation is not None:
            self._limiter.finish(permit.reservation, actual)
        if not permit.is_counted:
            permit.is_counted = True
            charged_pusd = cost_pusd  # as the ledger will say
            if charged_pusd is None:
                charged_pusd = 0 if actual.state == "refused" else ask.hold_pusd or 0
            self._tally.add(actual.model or ask.model, actual.state, charged_pusd)
        keep, kept = ask.keep, None
        if keep is not None and actual.answer is not None:
            kept = Checkpoint(keep.scope, keep.name, actual.answer)
        return Settlement(
            call_id=permit.call_id,
            attempt=ask.attempt,
            state=actual.state,
            cost_pusd=cost_pusd,
            at_most_pusd=at_most_pusd,
            served=_storable(actual.model),
            request_id=_storable(actual.request_id),
            counters=_encode(actual.counters),
            raw=actual.raw,
            settled_us=us_of(self._clock.now()),
            latency_ms=actual.latency_ms,
            ttft_ms=actual.ttft_ms,
            keep=kept,
        )

    def _post(self, permit: Permit, actual: Actual) -> None:
        settlement = self._end(permit, actual)
        try:
            self.store.post(settlement, self._put_off)
        except StoreError as error:
            self._put_off(settlement, error)

    def _put_off(self, settlement: Settlement, error: StoreError) -> None:
        """Note that a settlement nobody waits for was not booked."""
        if isinstance(error, StoreUnavailable):
            self._late.add(settlement)
            _logger.warning("an attempt is booked later: %s", error)
        else:
            _logger.warning("an attempt stays unknown: %s", error)

    def _exceeded(self, hold: Hold, refusal: Refusal) -> BudgetExceeded:
        """Say which budget refused, and why."""
        span = next(
            (row.span for row in self.budgets.book.rows if row.name == refusal.budget), "total"
        )
        whose = f"{refusal.budget!r}" + (f" of {refusal.key}" if refusal.key else "")
        left = f"{refusal.left_pusd / 10**12:.6f} USD left"
        if self._alerts is not None:
            self._alerts.note(refusal)
        by_estimate = any(
            claim.by_estimate and claim.budget == refusal.budget for claim in hold.windows
        )
        if hold.hold_pusd is None:
            why = f"has {left}, and the price of {hold.model or 'this call'} is not known"
        elif by_estimate:
            why = (
                f"has {left}, the call will likely cost {(hold.estimate_pusd or 0) / 1e12:.6f} USD"
            )
        elif not hold.bounded:
            why = f"has {left}, and this call has no upper bound of its cost"
        else:
            why = f"has {left}, the call may cost {hold.hold_pusd / 10**12:.6f} USD"
        return BudgetExceeded(
            f"budget {whose} {why}",
            budget=refusal.budget,
            left_pusd=refusal.left_pusd,
            resets_in_s=None if span == "total" else (refusal.end_us - hold.created_us) / 1e6,
        )

    def _plain(self, call_id: str, attempt: int, state: FinalState) -> Settlement:
        now_us = us_of(self._clock.now())
        return Settlement(call_id=call_id, attempt=attempt, state=state, settled_us=now_us)

    def _give_back(self, reservation: Reservation | None) -> None:
        if reservation is not None:
            self._limiter.give_back(reservation)

    def _undo(self, hold: Hold, reservation: Reservation | None = None) -> None:
        """Release a hold from where one cannot wait for it."""
        self._give_back(reservation)
        release = self._plain(hold.call_id, hold.attempt, "released")
        task = asyncio.get_running_loop().create_task(self._book_quietly(release))
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)

    async def _book(self, settlement: Settlement) -> None:
        """Settle; when the database is away, or nobody waits any more, remember to do it later."""
        if settlement.keep is None and _is_cancelled():
            await self._book_in_parting(settlement)
            return
        try:
            await self.store.settle(settlement)
        except (asyncio.CancelledError, StoreUnavailable):
            self._late.add(settlement)
            raise

    async def _book_in_parting(self, settlement: Settlement) -> None:
        try:
            async with asyncio.timeout(_PARTING_S):
                await self.store.settle(settlement)
        except (StoreError, TimeoutError) as error:
            self._late.add(settlement)
            why = str(error) or f"no answer within {_PARTING_S:g} s"
            _logger.warning("a cancelled attempt is booked later: %s", why)
        except asyncio.CancelledError:
            self._late.add(settlement)
            raise

    async def _book_quietly(self, settlement: Settlement) -> None:
        try:
            await self._book(settlement)
        except StoreUnavailable as error:
            _logger.warning("a hold is given back later: %s", error)

    async def _start(self, budgets: Sequence[Budget] | None) -> None:
        """Show that this process lives, book what dead ones left, and read the budgets."""
        await self.store.beat(self._owner, LEASE_S)
        await self._sweep()
        if budgets is not None:
            await self.budgets.save(budgets)
        await self.budgets.load()

    async def _keep_alive(self) -> None:
        """Beat until cancelled; in passing catch up with what was missed, and tidy up."""
        told: type[StoreError] | None = None
        for beat in count():
            await self._clock.sleep(LEASE_S / 3)
            try:
                await self.store.beat(self._owner, LEASE_S)
                await self.catch_up()
                await self._sweep()
                await self.budgets.load()
                if self._alerts is not None:
                    await self._alerts.tell()
                if beat % _TIDY_BEATS == 0:
                    await self.ledger.tidy(self._clock.now(), keep_days=self._keep_days)
            except StoreError as error:
                if told is not type(error):
                    _logger.warning("the books cannot be reached: %s", error)
                told = type(error)
            else:
                if told is not None:
                    _logger.warning("the books are reached again")
                told = None

    async def _sweep(self, whose: str = "of dead processes") -> None:
        lost = await self.store.sweep()
        if lost:
            _logger.warning("%d attempts %s are booked as unknown", lost, whose)
        if self._pools is not None:
            await self._pools.sweep()

    def hurry(self) -> None:
        """Wait for the books two seconds at the end, not ten: who says so had no answer of them."""
        self._leave_s = _HURRY_S

    async def _stop(self) -> None:
        """Leave in order, and without a word if that takes longer than `_leave_s`."""
        leaving = asyncio.create_task(self._leave(), name="governor leaves")
        try:
            done, _ = await asyncio.wait([leaving], timeout=self._leave_s)
            if not done:
                _logger.warning(
                    "the books do not answer and are left as they are: what is on its way is booked"
                    ' as "unknown" when the lease of this process is over'
                )
            if self._alerts is not None:
                await self._alerts.finish()
        finally:
            await self._close()
            await leaving

    async def _leave(self) -> None:
        """Leave nothing held but what is handed over: what is on its way becomes "unknown"."""
        try:
            if self._undoing:
                await asyncio.wait(self._undoing)
            await self.catch_up()
            if self._alerts is not None:
                await self._alerts.tell()
            if self._pools is not None:
                await self._pools.tell()
            await self.store.retire(self._owner)
            await self._sweep("that are on their way")
        except StoreError as error:
            _logger.warning("the books cannot be closed in order: %s", error)

    async def _close(self) -> None:
        if self._pools is not None:
            await self._pools.close()
        await self.store.close()


def _own(permit: object) -> Permit:
    if not isinstance(permit, Permit):
        raise TypeError("this permit was not given by a Governor")
    return permit


def _is_cancelled() -> bool:
    """Whether the task that asks was told to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _report_end(keeper: asyncio.Task[None]) -> None:
    """Say so if a task of the governor ended by anything but the governor's own end."""
    if not keeper.cancelled() and (error := keeper.exception()) is not None:
        _logger.error("the task %r of a governor has ended", keeper.get_name(), exc_info=error)


def _check_keys(ask: Ask, hold: Hold) -> None:
    """Refuse names that are too long to find rows by.

    Raises:
        InvalidRequest: says which one.
    """
    keys = {"name of the model": ask.model, "group": ask.group, "workspace": ask.workspace}
    keys |= {f"tag {name!r}": ask.tags.get(name, "") for name in _KEYS}
    keys |= {f"tag of the budget {claim.budget!r}": claim.key for claim in hold.windows}
    for what, key in keys.items():
        if len(key) * 4 > _KEY_BYTES and len(key.encode(errors="surrogatepass")) > _KEY_BYTES:
            raise InvalidRequest(f"the {what} is longer than {_KEY_BYTES} bytes")


def _storable(text: str) -> str:
    """Drop what is no text to a database: NUL, and bytes of a header that are not UTF-8.

    An answer of the server names its model: what is too long to find rows by is cut.
    """
    if text.isascii() and text.isprintable():
        return text[:_KEY_BYTES]
    kept = text.encode(errors="ignore")[:_KEY_BYTES]
    return kept.decode(errors="ignore").replace("\0", "")


def _encode_tags(tags: Mapping[str, str]) -> str:
    try:
        if all(isinstance(text, str) for text in chain(tags, tags.values())):
            return _encode(tags)
    except ValueError:  # half of a character
        pass
    raise InvalidRequest("tags must be text with text for a name")


def _encode(values: Mapping[str, object]) -> str:
    return msgspec.json.encode(values).decode() if values else "{}"
