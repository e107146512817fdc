"""Ids by time: one name for one thing, in the order of their making, in every process."""

import os
import time

from llm_integrations._core.clock import id_by_time


def test_ids_differ_sort_by_time_and_begin_with_it() -> None:
    before_us = time.time_ns() // 1_000
    made = [id_by_time() for _ in range(10_000)]
    assert len(set(made)) == len(made)
    assert {len(each) for each in made} == {32}
    moments = [int(each[:14], 16) for each in made]
    assert before_us <= moments[0]
    assert moments == sorted(moments)
    assert made == sorted(made)
    assert moments[-1] <= time.time_ns() // 1_000


def test_a_forked_process_makes_ids_of_its_own() -> None:
    mine = id_by_time()
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writes, id_by_time().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reads, 64).decode()
    os.close(reads)
    os.close(writes)
    assert len(theirs) == 32
    assert theirs[14:26] != mine[14:26]
