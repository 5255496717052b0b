"""The members of a team at work on one pass: shared memory, and the same numbers as alone.

Threads stand in for the processes here: they can be given any order and any cut. See `test_session` for the processes.
"""

import gc
import random
import threading
import time
from mmap import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidat
from minidat import kernels
from minidat.nn import Context
from minidat.runtime import team, threads

from .test_models import configs

# --- the memory -------------------------------------------------------------------------------------------------------


@given(steps=st.lists(st.one_of(st.integers(1, 5000), st.just("reclaim"), st.integers(-20, -1)), max_size=60))
def test_arrays_never_overlap_and_a_place_is_not_used_again_before_it_is_reclaimed(steps):
    arena = team.Arena(mmap(-1, 2**20), 4096, 2**20)
    alive, died = [], []

    def place(array):
        start = array.__array_interface__["data"][0]
        return start, start + array.nbytes

    for step in steps:
        if step == "reclaim":
            arena.reclaim()
            died = []
        elif step > 0:
            alive.append(arena.empty((step,), np.float32))
            start, end = place(alive[-1])
            others = [place(array) for array in alive[:-1]] + died
            assert all(end <= first or last <= start for first, last in others)
        elif alive:
            array = alive.pop(step % len(alive))
            died.append(place(array))
            del array
    alive.clear()
    arena.reclaim()
    assert arena._gaps == [(4096, 2**20)]


def test_an_arena_that_is_full_says_so():
    arena = team.Arena(mmap(-1, 2**16), 0, 2**16)
    with pytest.raises(MemoryError, match="no 70016 bytes"):
        arena.empty((70000,), np.uint8)


# --- members, as threads ----------------------------------------------------------------------------------------------


def run_together(function, size, jitter=None):
    """What each of `size` members gets from function(), and the trail of the arrays it made."""
    memory, counters = mmap(-1, 2**33), memoryview(bytearray(64 * 8 * size)).cast("q")
    results, trails, errors = [None] * size, [None] * size, []

    def check():
        if errors:
            raise team.TeamError

    def run(rank):
        arena = team.Arena(memory, 0, 2**33)
        member = team.Member(rank, size, arena, counters, 1, check)
        if jitter is not None:
            generator, meet = random.Random(f"{jitter} {rank}"), member.meet
            member.meet = lambda: (time.sleep(generator.choice([0, 0, 1e-3])), meet())
        try:
            result = team.run_as(member, function)
            trails[rank] = member.finish()
            results[rank] = np.array(result)
        except BaseException as error:
            errors.append(error)

    members = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    enabled = gc.isenabled()
    gc.disable()
    try:
        for thread in members:
            thread.start()
        for thread in members:
            thread.join()
    finally:
        if enabled:
            gc.enable()
    if errors:
        raise errors[0]
    return results, trails


@pytest.fixture
def finest_cut(monkeypatch):
    """Every region is shared, however small."""
    monkeypatch.setattr(team, "GRAIN_DIVISOR", 10**12)
    monkeypatch.setattr(team, "LOOKS", 10)


@settings(max_examples=40, deadline=None)
@given(
    config=configs(),
    batch=st.sampled_from([1, 1, 2, 5]),
    size=st.sampled_from([2, 3]),
    jitter=st.integers(0, 99),
    data=st.data(),
)
def test_members_together_compute_what_one_computes_alone(config, batch, size, jitter, data):
    scale = data.draw(st.sampled_from([1, 2]))
    height, width = (scale * side for side in config.image_size)
    model = minidat.create_model(config, dtype=np.float64)
    fixed = any(s.deformable.position_encoding == "fixed" and "deformable" in s.blocks for s in config.stages)
    if fixed:
        height, width = config.image_size
    images = np.random.default_rng(jitter).standard_normal((batch, height, width, 3))
    with threads.alone():
        alone = model.forward(images, Context())[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(team, "GRAIN_DIVISOR", 10**12)
        patch.setattr(team, "LOOKS", 10)
        results, trails = run_together(lambda: model.forward(images, Context())[0], size, jitter)
    assert len(set(trails)) == 1
    for result in results:
        np.testing.assert_allclose(result, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["dat_tiny", "datpp_tiny", "datplus_tiny"])
def test_members_share_a_published_model_where_no_window_and_no_stride_fits(name):
    model = minidat.create_model(name, dtype=np.float64)
    images = np.random.default_rng(0).standard_normal((1, 150, 203, 3))
    with threads.alone():
        alone = model.forward(images, Context())[0]
    results, _ = run_together(lambda: model.forward(images, Context())[0], 2)
    for result in results:
        np.testing.assert_allclose(result, alone, rtol=1e-9, atol=1e-12)


def test_what_all_members_see_cannot_be_changed_outside_of_a_region(finest_cut):
    def program():
        output, _ = kernels.linear(np.ones((4, 3)), np.ones((5, 3)), None)
        output += 1  # once by each member, if it were possible

    with pytest.raises(ValueError, match="read-only"):
        run_together(program, 2)


def test_an_error_of_one_member_ends_the_others(finest_cut):
    def program():
        def work(start, stop):
            if start > 0:
                raise ZeroDivisionError

        threads.parallel(work, 2)

    with pytest.raises(ZeroDivisionError):
        run_together(program, 2)


def test_a_member_of_another_program_is_found_out_and_nobody_waits_for_it_forever(finest_cut):
    ranks = iter(range(3))

    def program():
        for _ in range(1 + next(ranks)):  # as many meetings
            threads.parallel(lambda start, stop: None, 3)

    _, fingerprints = run_together(program, 3)
    assert len(set(fingerprints)) == 3
