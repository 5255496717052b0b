"""Several processes at work on one pass: shared memory, the same numbers as alone, and every way it can go wrong.

What members do to each other is tested with threads in their place, which can be given any order and any cut; that real
helper processes serve, and are never out of date, with the processes.
"""

import dataclasses
import gc
import os
import platform
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from mmap import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidat
from minidat import ops
from minidat.errors import ShapeError
from minidat.models import team
from minidat.nn import Context
from minidat.ops import _team, _threads

from .test_models import configs

# --- the memory -------------------------------------------------------------------------------------------------------


@given(steps=st.lists(st.one_of(st.integers(1, 5000), st.just("reclaim"), st.integers(-20, -1)), max_size=60))
def test_arrays_never_overlap_and_a_place_is_not_used_again_before_it_is_reclaimed(steps):
    arena = _team.Arena(mmap(-1, 2**20), 4096, 2**20)
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
    arena = _team.Arena(mmap(-1, 2**16), 0, 2**16)
    with pytest.raises(_team.TeamError, match="no 70016 bytes"):
        arena.empty((70000,), np.uint8)


def test_pages_in_gaps_are_given_back_and_others_are_not():
    arena = _team.Arena(mmap(-1, 2**20), 0, 2**20)
    first, second, third = (arena.empty((2**16,), np.uint8) for _ in range(3))
    for array in (first, second, third):
        array[:] = 7
    del second
    arena.reclaim()
    arena.discard()
    assert (first == 7).all()
    assert (third == 7).all()
    assert not arena.empty((2**16,), np.uint8).any()  # in the gap: a new page is all zeros


# --- members, as threads ----------------------------------------------------------------------------------------------


def run_together(function, size, jitter=None):
    """What each of `size` members gets from function(), and the trail of the arrays it made."""
    memory, counters = mmap(-1, 2**33), memoryview(bytearray(64 * 8 * size)).cast("q")
    results, trails, errors = [None] * size, [None] * size, []

    def check():
        if errors:
            raise _team.TeamError

    def run(rank):
        arena = _team.Arena(memory, 0, 2**33)
        member = _team.Member(rank, size, arena, counters, 1, check)
        if jitter is not None:
            generator, meet = random.Random(f"{jitter} {rank}"), member.meet
            member.meet = lambda: (time.sleep(generator.choice([0, 0, 1e-3])), meet())
        try:
            result = _team.run_as(member, function)
            member.meet()
            results[rank], trails[rank] = np.array(result), arena.trail
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
    monkeypatch.setattr(_team, "GRAIN_DIVISOR", 10**12)
    monkeypatch.setattr(_team, "LOOKS", 10)


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
    with _threads.alone():
        alone = model.forward(images, Context())[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_team, "GRAIN_DIVISOR", 10**12)
        patch.setattr(_team, "LOOKS", 10)
        results, trails = run_together(lambda: model.forward(images, Context())[0], size, jitter)
    assert len(set(trails)) == 1
    for result in results:
        np.testing.assert_allclose(result, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["dat_tiny", "datpp_tiny", "datplus_tiny"])
def test_members_share_a_published_model_where_no_window_and_no_stride_fits(name):
    model = minidat.create_model(name, dtype=np.float64)
    images = np.random.default_rng(0).standard_normal((1, 150, 203, 3))
    with _threads.alone():
        alone = model.forward(images, Context())[0]
    results, _ = run_together(lambda: model.forward(images, Context())[0], 2)
    for result in results:
        np.testing.assert_allclose(result, alone, rtol=1e-9, atol=1e-12)


def test_what_all_members_see_cannot_be_changed_outside_of_a_region(finest_cut):
    def program():
        output, _ = ops.linear(np.ones((4, 3)), np.ones((5, 3)), None)
        output += 1  # once by each member, if it were possible

    with pytest.raises(ValueError, match="read-only"):
        run_together(program, 2)


def test_an_error_of_one_member_ends_the_others(finest_cut):
    def program():
        def work(start, stop):
            if start > 0:
                raise ZeroDivisionError

        _threads.parallel(work, 2)

    with pytest.raises(ZeroDivisionError):
        run_together(program, 2)


# --- helper processes -------------------------------------------------------------------------------------------------


def by_threads(function, images):
    instance, team._Team.instance = team._Team.instance, None
    try:
        return function(images)
    finally:
        team._Team.instance = instance


def image_for(model, seed=0):
    shape = (1, *model.config.image_size, 3)
    return np.random.default_rng(seed).standard_normal(shape).astype(model.dtype)


@pytest.fixture(scope="module")
def small_model():
    """A model that helpers are ready for, in float64."""
    team._Team.stop()  # other tests may have tried, with one thread
    team._Team.asked = 0
    model = minidat.create_model("datpp_tiny", image_size=64, num_classes=10, dtype=np.float64)
    for _ in range(2):
        model(image_for(model))
    if not team.await_helpers():
        assert sys.platform != "linux" or platform.machine() != "x86_64" or _threads.thread_count() == 1
        pytest.skip("no helper processes on this machine")
    return model


@pytest.fixture
def passes():
    """How many passes the team has run until now, as a function."""
    return lambda: team._Team.instance.shared.control[team.PASS]


def assert_helped(model, images, passes):
    before = passes()
    np.testing.assert_allclose(model(images), by_threads(model, images), rtol=1e-9, atol=1e-12)
    assert passes() == before + 1


def test_logits_and_features_are_those_of_threads(small_model, passes):
    for seed in range(3):
        images = image_for(small_model, seed)
        assert_helped(small_model, images, passes)
        features = small_model.features(images)
        expected = by_threads(small_model.features, images)
        for ours, theirs in zip(features, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
            assert ours.flags.writeable


def test_several_models_and_sizes_take_turns(small_model, passes):
    other = minidat.create_model("dat_tiny", image_size=(64, 96), num_classes=3)
    for _ in range(2):
        assert_helped(small_model, image_for(small_model), passes)
        before = passes()
        np.testing.assert_allclose(other(image_for(other)), by_threads(other, image_for(other)), rtol=1e-4, atol=1e-5)
        assert passes() == before + 1
    assert_helped(small_model, np.random.default_rng(0).standard_normal((1, 75, 50, 3)), passes)


def test_helpers_see_every_change_of_the_model(small_model, passes):
    images = image_for(small_model)
    before = small_model(images)
    block = small_model.stages[2].blocks[0]
    weight = block.mlp.fc1.weight
    weight.value[:50] *= 1.5  # in place
    assert_helped(small_model, images, passes)
    weight.value = weight.value * 1.5  # another array
    assert_helped(small_model, images, passes)
    small_model.load_state_dict({name: 1.01 * value for name, value in small_model.state_dict().items()})
    assert_helped(small_model, images, passes)
    perception, block.perception = block.perception, None  # another structure
    assert_helped(small_model, images, passes)
    block.perception = perception
    assert_helped(small_model, images, passes)
    assert np.abs(small_model(images) - before).max() > 1e-6


def test_a_replaced_function_is_never_mixed_with_the_helpers_own(small_model, passes, monkeypatch):
    images, before = image_for(small_model), passes()
    usual = small_model(images)
    assert passes() == before + 1
    with monkeypatch.context() as patch:
        patch.setattr(ops, "layer_norm", lambda x, weight, bias: (x, None))
        changed = small_model(images)
        assert passes() == before + 1  # nobody has helped
    with monkeypatch.context() as patch:
        patch.setattr(type(small_model.norm), "forward", lambda self, x, context: (x, None))
        np.testing.assert_array_equal(small_model(images), changed)
        assert passes() == before + 1
    np.testing.assert_array_equal(small_model(images), usual)
    assert passes() == before + 2


def test_a_model_that_cannot_be_sent_is_left_to_threads(small_model, passes):
    images, before = image_for(small_model), passes()
    expected = by_threads(small_model, images)
    small_model.note = lambda: None
    np.testing.assert_array_equal(small_model(images), expected)
    small_model.note = threading.Lock()
    np.testing.assert_array_equal(small_model(images), expected)

    class Mine(type(small_model.norm)):
        pass

    small_model.note = Mine(3)
    np.testing.assert_array_equal(small_model(images), expected)
    del small_model.note
    assert passes() == before
    assert_helped(small_model, images, passes)


def test_batches_are_shared_too(small_model, passes):
    for batch in (2, 3):
        images = np.concatenate([image_for(small_model, seed) for seed in range(batch)])
        assert_helped(small_model, images, passes)


def test_only_plain_inference_is_for_a_team(small_model, passes):
    images, before = image_for(small_model), passes()
    small_model.forward(images, Context(gradients=True))
    small_model.forward(images, Context(training=True, rng=np.random.default_rng(0)))
    small_model.forward(images, Context(trace={}))
    small_model.forward(images, Context(local_trace={}))

    class Watching(Context):
        pass

    small_model.forward(images, Watching())
    assert passes() == before


def test_an_error_in_the_model_reaches_the_caller_and_the_helpers_go_on(small_model, passes):
    config = minidat.models.get_config("dat_tiny").replace(image_size=(64, 64), num_classes=2)
    stages = tuple(
        stage
        if stage.deformable is None
        else dataclasses.replace(stage, deformable=dataclasses.replace(stage.deformable, position_encoding="fixed"))
        for stage in config.stages
    )
    model = minidat.create_model(config.replace(stages=stages), dtype=np.float64)
    with pytest.raises(ShapeError, match="fixed position bias"):
        model(np.zeros((1, 96, 96, 3)))
    assert_helped(model, image_for(model), passes)


def one_after_the_other(model, count):
    for seed in range(count):
        model(image_for(model, seed))


def test_an_interrupted_pass_leaves_the_team_in_order(small_model, passes):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for seconds in (0.002, 0.005, 0.01, 0.02):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            with pytest.raises(KeyboardInterrupt):
                one_after_the_other(small_model, 100)
            assert_helped(small_model, image_for(small_model), passes)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_memory_of_dead_models_and_large_passes_is_given_back(small_model):
    def used():
        gc.collect()
        small_model(image_for(small_model))
        return os.stat(f"/proc/self/fd/{team._Team.instance.shared.file}").st_blocks * 512

    before = used()
    for _ in range(3):
        model = minidat.create_model("dat_tiny", image_size=64)  # 115 MB
        model(image_for(model))
        assert used() > before + 100e6
        del model
        assert used() < before + 100e6


# --- from start to end ------------------------------------------------------------------------------------------------

START = """
import os, signal, sys
import numpy as np
import minidat
from minidat.models import team
model = minidat.create_model("datpp_tiny", image_size=64, num_classes=10)
images = np.random.default_rng(0).standard_normal((1, 64, 64, 3), dtype=np.float32)
logits = model(images)
"""


def run_program(text, **environment):
    program = START + textwrap.dedent(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.split()


def test_who_classifies_one_image_starts_no_process():
    assert run_program("print(team.helper_processes())") == ["[]"]


def test_one_thread_means_one_process():
    assert run_program("model(images); print(team.helper_processes())", MINIDAT_NUM_THREADS="1") == ["[]"]


@pytest.mark.parametrize("threads", ["2", "3"])
def test_helpers_end_with_the_program(small_model, threads):
    program = """
    model(images)
    assert team.await_helpers()
    assert np.allclose(model(images), logits, atol=1e-4)
    print(*team.helper_processes())
    """
    processes = run_program(program, MINIDAT_NUM_THREADS=threads)
    assert len(processes) == int(threads) - 1
    for process in processes:
        assert not os.path.exists(f"/proc/{process}")


def test_helpers_end_when_the_program_is_killed(small_model):
    program = START + "model(images); team.await_helpers(); model(images)\n"
    program += "print(*team.helper_processes(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    (process,) = done.stdout.split()[:1]
    for _ in range(500):
        try:
            status = Path(f"/proc/{process}/stat").read_text()
        except FileNotFoundError:
            return
        if status.rsplit(")")[-1].split()[0] == "Z":  # ended, and nobody has asked how
            return
        time.sleep(0.01)
    pytest.fail("the helper is still there")


def test_a_killed_helper_is_done_without(small_model):
    program = """
    model(images)
    assert team.await_helpers()
    os.kill(team.helper_processes()[0], signal.SIGKILL)
    for _ in range(2):
        assert np.allclose(model(images), logits, atol=1e-4)
    print(team.helper_processes())
    """
    assert run_program(program) == ["[]"]


def test_a_forked_child_has_weights_of_its_own(small_model):
    program = """
    model(images)
    assert team.await_helpers()
    assert np.allclose(model(images), logits, atol=1e-4)
    if HELPERS_DIE:
        os.kill(team.helper_processes()[0], signal.SIGKILL)
        model(images)
    child = os.fork()
    if child == 0:
        for _, parameter in model.named_parameters():
            parameter.value *= 0
        os._exit(0 if team.helper_processes() == [] and not model(images).any() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.allclose(model(images), logits, atol=1e-4)
    print(len(team.helper_processes()))
    """
    for helpers_die, left in (("False", "1"), ("True", "0")):
        assert run_program(program.replace("HELPERS_DIE", helpers_die), MINIDAT_NUM_THREADS="2") == [left]
