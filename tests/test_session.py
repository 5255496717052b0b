"""Sessions: the numbers of the model as it was, and every way in which processes can go wrong.

No test depends on how fast anything is: what must happen some time is waited for, for as long as it takes.
"""

import gc
import multiprocessing
import os
import pickle
import platform
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import minidat
from minidat.detection import CascadeMaskRCNN, MaskRCNN, RetinaNet
from minidat.errors import SessionError, ShapeError
from minidat.models import DAT, DeformableConfig, ModelConfig, StageConfig, get_config
from minidat.nn import Parameter
from minidat.nn.initializers import constant
from minidat.runtime import session as session_module

from .session_models import Probe, Unloadable
from .small_detectors import small_cascade, small_mask_rcnn, small_retinanet

ROOT = Path(__file__).parent.parent
DEADLINE = 120  # seconds, for what takes a moment on a quiet machine

needs_helpers = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="helpers need Linux on x86-64"
)


@pytest.fixture
def helpers(monkeypatch):
    """Makes sessions have so many helpers, whatever the machine; one stands for none."""

    def choose(count):
        monkeypatch.setattr(session_module, "thread_count", lambda: count)

    choose(2)
    return choose


@pytest.fixture(scope="module")
def model():
    return small_model()


def small_model(seed=0):
    """All kinds of blocks, in float64."""
    dims, kinds = (8, 16, 32, 64), ("window", "shifted_window", "neighborhood", "deformable")
    deformable = DeformableConfig(2, 3, position_rule="dat++")
    stages = tuple(StageConfig(dim, 2, kinds, window=2, neighborhood=3, deformable=deformable) for dim in dims)
    config = ModelConfig(
        "small", (64, 64), 10, stages, resize_size=64, convolutional_patches=True, local_perception=True,
        convolutional_mlp=True, layer_scale=0.5,
    )  # fmt: skip
    return minidat.create_model(config, dtype=np.float64, seed=seed)


@pytest.fixture
def probe_session(helpers):
    with minidat.Session(Probe()) as session:
        yield session


def images_for(model, batch=1, seed=0):
    shape = (batch, *model.config.image_size, 3)
    return np.random.default_rng(seed).standard_normal(shape).astype(model.dtype)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def assert_works(session):
    np.testing.assert_array_equal(session(np.arange(9.0)), 2 * np.arange(9.0))


def alive(process):
    """Whether a process still runs; one that nobody has asked for its status has ended."""
    try:
        return status(process)[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def status(process):
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def await_that(condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- the right numbers ------------------------------------------------------------------------------------------------


@needs_helpers
@pytest.mark.parametrize("count", [2, 3])
def test_a_session_returns_what_the_model_does(model, helpers, count):
    helpers(count)
    with minidat.Session(model) as session:
        assert len(session.helpers) == count
        for batch in (1, 2, 3):
            images = images_for(model, batch, seed=batch)
            logits = session(images)
            assert_close(logits, model(images))
            np.testing.assert_array_equal(logits, session(images))
            features = session.run("features", images)
            for ours, theirs in zip(features, model.features(images), strict=True):
                assert_close(ours, theirs)
        other_size = np.random.default_rng(0).standard_normal((1, 75, 50, 3))
        assert_close(session(other_size), model(other_size))
        assert_close(session(images_for(model, 2)[:, ::-1]), model(images_for(model, 2)[:, ::-1]))


def test_with_one_thread_there_are_no_helpers_and_the_same_numbers(model, helpers):
    helpers(1)
    with minidat.Session(model) as session:
        assert session.helpers == ()
        images = images_for(model, 2)
        np.testing.assert_array_equal(session(images), model(images))
        np.testing.assert_array_equal(session.run("features", images)[3], model.features(images)[3])


@needs_helpers
@pytest.mark.parametrize(
    ("kind", "config"),
    [(RetinaNet, small_retinanet()), (MaskRCNN, small_mask_rcnn()), (CascadeMaskRCNN, small_cascade())],
)
def test_detectors_work_in_a_session(helpers, kind, config):
    """What they find is a list of records, and they have methods with settings."""
    model = kind(config)
    model.initialize(np.random.default_rng(0), np.float64)
    images = np.random.default_rng(1).standard_normal((2, 64, 64, 3))
    expected = model.detect(images, score_threshold=0.001, limit=10)
    with minidat.Session(model) as session:
        found = session.run("detect", images, score_threshold=0.001, limit=10)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == len(theirs) > 0
        np.testing.assert_allclose(ours.boxes, theirs.boxes, rtol=1e-6)
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-6)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert (ours.masks is None) == (theirs.masks is None)
        if ours.masks is not None:
            np.testing.assert_array_equal(ours.masks, theirs.masks)


@needs_helpers
def test_float32_is_as_good_as_by_threads(helpers):
    model = minidat.create_model("dat_tiny", image_size=(64, 96), num_classes=3)
    with minidat.Session(model) as session:
        logits = session(images_for(model, 2))
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, model(images_for(model, 2)), rtol=1e-4, atol=1e-5)


@needs_helpers
def test_the_work_is_shared(helpers):
    helpers(3)
    with minidat.Session(Probe()) as session:
        assert session.run("workers").tolist() == [process for process in session.helpers for _ in range(4)]


@pytest.mark.parametrize("count", [1, 2])
def test_results_may_be_nested_and_belong_to_the_caller(helpers, count):
    helpers(count)
    x = np.arange(12.0).reshape(4, 3)
    with minidat.Session(Probe(np.full((4, 1), 2.0))) as session:
        result = session.run("nested", x)
        first = result["maps"][0].copy()
        session.run("nested", 5 * x)
    assert list(result) == ["maps", "name", "none", "empty"]
    assert isinstance(result["maps"][1], tuple)
    np.testing.assert_array_equal(first, 2 * x)
    np.testing.assert_array_equal(result["maps"][0], 2 * x)  # nobody has written to it
    np.testing.assert_array_equal(result["maps"][1][1], x[::-1])
    assert result["empty"].shape == (0, 3)
    result["maps"][0][:] = 0  # nor is it read-only
    assert result["none"] is None


@pytest.mark.parametrize("count", [1, 2])
def test_the_snapshot_and_the_model_leave_each_other_alone(helpers, count):
    helpers(count)
    model = small_model()
    arrays, images = model.state_dict(), images_for(model)
    before = model(images)
    with minidat.Session(model) as session:
        assert all(model.state_dict()[name] is array for name, array in arrays.items())
        for array in arrays.values():
            array *= 1.5  # in place
        model.head.weight.value = model.head.weight.value + 1
        model.stages[2].blocks[0].perception = None
        assert_close(session(images), before)
        changed = model(images)
        assert np.abs(changed - before).max() > 1e-6
        with minidat.Session(model) as another:
            assert_close(another(images), changed)
        assert_close(session(images), before)


@pytest.mark.parametrize("count", [1, 2])
def test_the_snapshot_cannot_be_written_to(helpers, count):
    helpers(count)
    with minidat.Session(Probe()) as session:
        with pytest.raises(ValueError, match="read-only"):
            session.run("writes")
        assert_works(session)


@needs_helpers
def test_several_sessions_work_at_once_and_threads_take_turns(model, helpers):
    other = small_model(seed=1)
    images, other_images = images_for(model), images_for(other)
    expected, other_expected = model(images), other(other_images)
    failures = []

    def use(session, images, expected):
        try:
            for _ in range(3):
                assert_close(session(images), expected)
        except BaseException as error:
            failures.append(error)

    with minidat.Session(model) as session, minidat.Session(other) as other_session:
        arguments = [(session, images, expected), (other_session, other_images, other_expected)]
        users = [threading.Thread(target=use, args=each) for each in 2 * arguments]
        for user in users:
            user.start()
        for user in users:
            user.join()
    assert failures == []


# --- models that can be pickled ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dat_tiny", "datpp_tiny", "datplus_tiny"])
def test_published_models_can_be_pickled(name):
    model = DAT(get_config(name))  # without numbers
    copy = pickle.loads(pickle.dumps(model))
    assert [(path, p.shape) for path, p in copy.named_parameters()] == [
        (path, p.shape) for path, p in model.named_parameters()
    ]
    first, second = (dict(each.named_parameters())["stages.3.blocks.0.norm1.weight"] for each in (model, copy))
    np.testing.assert_array_equal(*(p.initializer(np.random.default_rng(0), p.shape) for p in (first, second)))


def test_a_pickled_model_is_the_same():
    model = small_model()
    model.labels = list("abcdefghij")
    copy = pickle.loads(pickle.dumps(model))
    assert copy.config == model.config
    assert copy.labels == model.labels
    for (ours, array), (theirs, other) in zip(model.state_dict().items(), copy.state_dict().items(), strict=True):
        assert ours == theirs
        assert array is not other
        np.testing.assert_array_equal(array, other)
    np.testing.assert_array_equal(model(images_for(model)), copy(images_for(model)))
    for each in (model, copy):
        each.initialize(np.random.default_rng(7), np.float64)
    np.testing.assert_array_equal(model(images_for(model)), copy(images_for(model)))


def test_gradients_are_not_pickled():
    parameter = Parameter((3,), constant(1.0))
    parameter.grad = np.ones(3)
    assert pickle.loads(pickle.dumps(parameter)).grad is None
    assert parameter.grad is not None


def test_models_can_be_sent_to_spawned_processes(model):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert_close(pool.apply(model, (images_for(model),)), model(images_for(model)))


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_error_of_the_model_is_the_callers_and_the_session_goes_on(model, helpers):
    with minidat.Session(model) as session:
        with pytest.raises(ShapeError, match=r"images: found shape \(1, 64, 64, 2\)"):
            session(np.zeros((1, 64, 64, 2)))
        with pytest.raises(AttributeError, match="fly"):
            session.run("fly", 3)
        assert_close(session(images_for(model)), model(images_for(model)))


@needs_helpers
def test_any_error_comes_with_its_traceback(probe_session):
    with pytest.raises(ZeroDivisionError, match="in the last slice") as found:  # of one of them alone
        probe_session.run("one_fails")
    assert "in work" in found.value.__notes__[0]
    with pytest.raises(ValueError, match=r"é{1000}"):
        probe_session.run("fails", "é" * 1000)
    with pytest.raises(SessionError, match=r"ValueError: é{1,200}$"):
        probe_session.run("fails", "é" * 100_000)
    with pytest.raises(SessionError, match="UnpicklableError: with a lock"):
        probe_session.run("fails_unpicklably")
    with pytest.raises(SessionError, match="the lock cannot be pickled"):
        probe_session.run("returns_a_lock")
    with pytest.raises(SessionError, match="the tuple cannot be pickled"):
        probe_session(lambda: None)
    assert_works(probe_session)


@pytest.mark.parametrize("count", [1, 2])
def test_a_model_that_cannot_be_sent_is_refused(helpers, count):
    helpers(count)
    probe = Probe()
    probe.lock = threading.Lock()
    with pytest.raises(SessionError, match="the Probe cannot be pickled: cannot pickle"):
        minidat.Session(probe)


@needs_helpers
def test_a_model_that_helpers_cannot_load_is_refused(helpers):
    with pytest.raises(SessionError, match="cannot load the Unloadable: RuntimeError: no such thing"):
        minidat.Session(Unloadable())
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("count", [1, 2])
def test_a_session_that_has_ended_says_so(helpers, count):
    helpers(count)
    with minidat.Session(Probe()) as session:
        assert_works(session)
    with pytest.raises(SessionError, match="session: it has ended; open another one"):
        session(np.ones(3))
    session.close()  # again


def test_where_no_process_can_be_started_threads_do_the_work(helpers, monkeypatch):
    def no_more(*_, **__):
        raise BlockingIOError("too many processes")

    monkeypatch.setattr(session_module.subprocess, "Popen", no_more)
    with minidat.Session(Probe()) as session:
        assert session.helpers == ()
        assert_works(session)


def test_other_machines_work_by_threads(helpers, monkeypatch):
    monkeypatch.setattr(session_module.platform, "machine", lambda: "arm64")
    with minidat.Session(Probe()) as session:
        assert session.helpers == ()
        assert_works(session)


# --- helpers in trouble -----------------------------------------------------------------------------------------------


def assert_lost(session, processes):
    with pytest.raises(SessionError, match="session: it has lost its helper processes; open another one"):
        session(np.ones(3))
    assert session.helpers == ()
    assert not any(map(alive, processes))


@needs_helpers
@pytest.mark.parametrize("method", ["one_exits", "one_is_killed"])
def test_a_helper_that_ends_in_a_pass_is_named(probe_session, method):
    processes = probe_session.helpers
    status = {"one_exits": 3, "one_is_killed": -9}[method]
    with pytest.raises(SessionError, match=f"helper process {processes[1]} has ended, status {status}"):
        probe_session.run(method)
    assert_lost(probe_session, processes)


@needs_helpers
@pytest.mark.parametrize("which", [0, 1])
def test_a_helper_that_ends_between_passes_is_named(probe_session, which):
    processes = probe_session.helpers
    assert_works(probe_session)
    os.kill(processes[which], signal.SIGKILL)
    await_that(lambda: not alive(processes[which]))
    with pytest.raises(SessionError, match=f"helper process {processes[which]} has ended, status -9"):
        probe_session(np.ones(3))
    assert_lost(probe_session, processes)


@needs_helpers
def test_a_stopped_helper_is_named(probe_session, monkeypatch):
    """As many looks as usual, one soon after the other: the machine may be so busy that all seem to stand still."""
    processes = probe_session.helpers
    monkeypatch.setattr(session_module, "LOOK_SECONDS", 0.01)
    with pytest.raises(SessionError, match=rf"helper process ({processes[0]}|{processes[1]}) does not answer"):
        probe_session.run("one_stops")
    assert_lost(probe_session, processes)


@needs_helpers
def test_only_a_helper_that_does_nothing_is_given_up(probe_session):
    stopped, working = probe_session._helpers
    os.kill(stopped.process.pid, signal.SIGSTOP)
    await_that(lambda: status(stopped.process.pid)[0] == "T")
    stopped.send((2, []))
    working.send((2, probe_session_call(probe_session)))
    for _ in range(2 * session_module.PATIENCE):  # it waits for the other one, which is some work
        await_that(lambda: sum(map(int, status(working.process.pid)[11:13])) != working.ticks)
        working.look()
    for _ in range(session_module.PATIENCE):  # after a first look
        stopped.look()
    with pytest.raises(SessionError, match=f"helper process {stopped.process.pid} does not answer"):
        stopped.look()


def probe_session_call(session):
    return session_module._pack(("workers", (), {}), session._memory, session._memory.call)


@needs_helpers
@pytest.mark.parametrize("method", ["one_makes_more_arrays", "one_meets_more_often"])
def test_helpers_that_do_different_things_are_found_out(probe_session, method):
    processes = probe_session.helpers
    with pytest.raises(SessionError, match="the helper processes have not done the same"):
        probe_session.run(method)
    assert_lost(probe_session, processes)


# --- interrupts -------------------------------------------------------------------------------------------------------


class Interrupts:
    """Raises KeyboardInterrupt at the given lines of session.py, counted from now on."""

    def __init__(self, lines):
        self.lines, self.line = set(lines), 0

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename != session_module.__file__:
            return None
        if event == "line":
            self.line += 1
            if self.line in self.lines:
                raise KeyboardInterrupt
        return self.trace

    def __enter__(self):
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_):
        sys.settrace(None)


@needs_helpers
@pytest.mark.parametrize("seed", range(8))
def test_an_interrupt_at_any_line_never_gives_a_wrong_answer(helpers, seed):
    """Also two or three, of which the later ones fall into the clearing up after the first."""
    x, generator = np.arange(9.0), random.Random(seed)
    with minidat.Session(Probe()) as session:
        processes = session.helpers
        with Interrupts([]) as counted:
            session(x)
        start = 1 + int(counted.line * (seed + generator.random()) / 8)
        interrupts = [start, *(start + generator.randint(1, 12) for _ in range(seed % 3))]
        before = sys.gettrace()
        try:
            with Interrupts(interrupts):
                session(x)
        except KeyboardInterrupt:
            pass
        else:
            pytest.fail("it has not been interrupted")
        finally:
            sys.settrace(before)
        for _ in range(2):
            try:
                np.testing.assert_array_equal(session(3 * x), 6 * x)
            except SessionError as error:
                assert "was interrupted; open another one" in str(error)  # noqa: PT017
    del session
    await_that(lambda: not any(map(alive, processes)))


@needs_helpers
def test_a_signal_in_the_middle_of_a_pass_ends_the_session(probe_session):
    processes = probe_session.helpers

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            probe_session.run("one_takes_its_time", 3600.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not any(map(alive, processes))
    with pytest.raises(SessionError, match="session: it was interrupted; open another one"):
        probe_session(np.ones(3))


@needs_helpers
@pytest.mark.filterwarnings("ignore:(subprocess .* is still running|unclosed file):ResourceWarning")
def test_an_interrupted_beginning_leaves_nothing_behind(helpers):
    for line in (5, 20, 30, 60, 80, 100):
        with pytest.raises(KeyboardInterrupt), Interrupts([line]):
            minidat.Session(Probe())
        gc.collect()
        await_that(lambda: children() == [])
        assert mappings() == 0
        assert shared_files() == []


def children():
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split() if is_helper(pid)]


def is_helper(pid):
    try:
        return b"runtime.session" in Path(f"/proc/{pid}/cmdline").read_bytes() and alive(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- memory -----------------------------------------------------------------------------------------------------------


def mappings():
    return Path("/proc/self/maps").read_text().count("memfd:minidat")


def shared_files():
    """Open files of shared memory, as file descriptors."""
    files = Path("/proc/self/fd")
    return [int(file.name) for file in files.iterdir() if file.is_symlink() and "memfd:minidat" in os.readlink(file)]


@needs_helpers
def test_all_memory_is_given_back_at_the_end(helpers):
    gc.disable()  # nothing is left to the collector
    try:
        assert mappings() == 0
        session = minidat.Session(Probe(np.ones(2**21)))
        assert mappings() == 1
        kept = os.dup(shared_files()[0])
        session(np.ones(2**20))
        assert os.fstat(kept).st_blocks * 512 >= 8 * (2**21 + 3 * 2**20)  # the weights; a call, an array, a result
        with pytest.raises(ValueError, match="oh") as error:
            session.run("fails", "oh")
        session.close()
        assert os.fstat(kept).st_blocks == 0
        os.close(kept)
        assert mappings() == 0
        assert shared_files() == []
        del error
    finally:
        gc.enable()


@needs_helpers
def test_memory_and_processes_of_a_forgotten_session_are_given_back(helpers):
    session = minidat.Session(Probe())
    processes = session.helpers
    del session
    gc.collect()
    assert mappings() == 0
    assert not any(map(alive, processes))


# --- other processes --------------------------------------------------------------------------------------------------

START = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
import minidat
from tests.session_models import Probe
x = np.arange(9.0)
"""


def run_program(text, threads=2, status=0):
    """What the program prints, after Probe and x have been defined."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", START + textwrap.dedent(text)],
        env={**os.environ, "MINIDAT_NUM_THREADS": str(threads)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.stderr == ""
    assert done.returncode == status
    return done.stdout.split()


@needs_helpers
def test_the_model_itself_starts_no_process():
    program = """
    model = minidat.create_model("dat_tiny", image_size=64, num_classes=10)
    for _ in range(4):
        model(np.zeros((2, 64, 64, 3), np.float32))
    print("children:", *(path.read_text() for path in Path("/proc/self/task").glob("*/children")))
    """
    assert run_program(program) == ["children:"]


@needs_helpers
@pytest.mark.parametrize("end", ["pass", "session.close()", "del session", "sys.exit(0)"])
def test_helpers_end_with_the_program(end):
    processes = run_program(f"session = minidat.Session(Probe()); session(x); print(*session.helpers); {end}")
    assert len(processes) == 2
    assert not any(map(alive, processes))


@needs_helpers
@pytest.mark.parametrize("moment", ["", "session.run('one_takes_its_time', 1.0)"])
def test_helpers_end_when_the_program_is_killed(moment):
    program = f"""
    import threading
    session = minidat.Session(Probe())
    session(x)
    print(*session.helpers, flush=True)
    threading.Thread(target=lambda: {moment or "None"}).start()
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    processes = run_program(program, status=-signal.SIGKILL)
    assert len(processes) == 2
    await_that(lambda: not any(map(alive, processes)))


@needs_helpers
def test_helpers_end_when_the_program_is_killed_and_a_forked_child_lives_on():
    program = """
    session = minidat.Session(Probe())
    session(x)
    if os.fork() == 0:
        for file in (1, 2):
            os.close(file)
        while any(os.path.exists(f"/proc/{process}") for process in session.helpers):
            time.sleep(0.01)
        os._exit(0)
    print(*session.helpers, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    processes = run_program(program, status=-signal.SIGKILL)
    await_that(lambda: not any(map(alive, processes)))


@needs_helpers
def test_a_forked_child_is_refused_and_does_no_harm():
    program = """
    with minidat.Session(Probe()) as session:
        first = session(x)
        child = os.fork()
        if child == 0:
            try:
                session(x)
            except minidat.MinidatError as error:
                print(str(error).replace(str(os.getppid()), "N"), flush=True)
            session.close()
            with minidat.Session(Probe()) as own:
                assert (own(x) == first).all()
            del session
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert (session(x) == first).all()
        print(len(session.helpers))
    """
    expected = "session: it belongs to process N; open another one in a forked process 2"
    assert run_program(program) == expected.split()


@needs_helpers
def test_classes_of_the_main_program_are_refused():
    program = """
    class Mine:
        pass
    try:
        minidat.Session(Mine())
    except minidat.MinidatError as error:
        print(error)
    """
    assert " ".join(run_program(program)).startswith("session: a helper process cannot load the Mine: AttributeError")


def test_one_thread_means_one_process():
    program = "session = minidat.Session(Probe()); print(session.helpers, (session(x) == 2 * x).all())"
    assert run_program(program, threads=1) == ["()", "True"]
