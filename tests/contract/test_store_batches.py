"""Those who ask at the same time share a statement, and nobody pays for a neighbour."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence

import pytest

from llm_integrations.errors import StoreUnavailable
from llm_integrations.store.batches import Batches


class Doubling:
    """Doubles numbers, and remembers what it was asked in which batch; takes no zero."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.is_away = False

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.asked.append(list(numbers))
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        if 0 in numbers:
            raise ValueError("zero")
        return [2 * number for number in numbers]


async def test_who_asks_at_the_same_time_is_answered_together() -> None:
    double = Doubling()
    batches = Batches(double, cap=2)
    assert await asyncio.gather(*(batches.ask(n) for n in (1, 2, 3))) == [2, 4, 6]
    assert double.asked == [[1, 2], [3]]


async def test_a_wrong_question_fails_alone() -> None:
    batches = Batches(Doubling(), cap=8)
    answers = await asyncio.gather(*(batches.ask(n) for n in (1, 0, 2)), return_exceptions=True)
    assert answers[0] == 2
    assert isinstance(answers[1], ValueError)
    assert answers[2] == 4


async def test_while_the_database_is_away_all_are_told_and_nobody_is_asked_twice() -> None:
    double = Doubling()
    double.is_away = True
    batches = Batches(double, cap=8)
    answers = await asyncio.gather(*(batches.ask(n) for n in (1, 2)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable, StoreUnavailable]
    assert double.asked == [[1, 2]]
    double.is_away = False
    assert await batches.ask(3) == 6


async def test_a_question_taken_back_in_time_is_not_asked() -> None:
    double = Doubling()
    batches = Batches(double, cap=8)
    taken_back, kept = batches.ask(1), batches.ask(2)
    taken_back.cancel()
    assert await kept == 4
    assert double.asked == [[2]]


async def test_closing_answers_what_was_asked_and_takes_no_more() -> None:
    batches = Batches(Doubling(), cap=8)
    answer = batches.ask(1)
    await batches.close()
    assert answer.result() == 2
    with pytest.raises(StoreUnavailable):
        await batches.ask(2)


async def test_nothing_is_said_of_an_error_whose_asker_is_gone() -> None:
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what["message"]))
    double = Doubling()
    double.is_away = True
    batches = Batches(double, cap=8)

    async def ask() -> None:
        await asyncio.shield(batches.ask(1))

    asker = asyncio.create_task(ask())
    await asyncio.sleep(0)
    asker.cancel()
    await asyncio.wait([asker])
    await batches.close()
    gc.collect()
    assert double.asked == [[1]]
    assert said == []


async def test_what_has_no_answer_for_long_is_waited_for_a_second_more() -> None:
    async def say_nothing(numbers: Sequence[int]) -> list[int]:
        await asyncio.sleep(60)
        return list(numbers)

    batches = Batches(say_nothing, cap=8)
    asked = batches.ask(1)
    await asyncio.sleep(2.5)
    began = time.monotonic()
    await batches.close()
    assert 0.9 < time.monotonic() - began < 2.5
    asked.cancel()
