"""Batches made in the background: those that would be made in turn, at the same steps."""

import threading

import pytest

from gm_jax.data.prefetch import AHEAD, Prefetch


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("ahead", [0, 1, AHEAD, 5])
@pytest.mark.parametrize("steps", [range(0, 10), range(6, 20, 2), range(5, 5), range(3, 4)])
def test_every_step_is_made_once_and_in_its_turn(steps, ahead):
    made = []
    with Prefetch(lambda step: made.append(step) or -step, steps, ahead) as prefetch:
        assert [prefetch(step) for step in steps] == [-step for step in steps]
        assert bool(threads()) == (ahead > 0 and len(steps) > 0)
    assert made == list(steps)
    assert not threads()


@pytest.mark.parametrize("ahead", [1, AHEAD])
def test_no_more_than_the_next_calls_are_made_ahead(ahead):
    made, go = [], threading.Semaphore(0)

    def make(step):
        made.append(step)
        go.release()
        return step

    with Prefetch(make, range(100), ahead) as prefetch:
        for step in range(10):
            prefetch(step)
        for _ in range(10 + ahead):
            assert go.acquire(timeout=60)
        assert made == list(range(10 + ahead))


@pytest.mark.parametrize("ahead", [0, AHEAD])
def test_an_error_is_raised_at_its_own_step(ahead):
    def make(step):
        if step == 3:
            raise OSError(5, "Input/output error", "file")
        return step

    with Prefetch(make, range(10), ahead) as prefetch:
        assert [prefetch(step) for step in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="Input/output error: 'file'"):
            prefetch(3)
    assert not threads()


def test_the_thread_ends_with_the_block_also_by_an_error_and_makes_no_more():
    made, started, go = [], threading.Event(), threading.Event()

    def make(step):
        made.append(step)
        started.set()
        assert go.wait(60)

    def stopped():
        with Prefetch(make, range(10), 3):
            started.wait(60)
            threading.Timer(0.05, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not threads()
    assert made == [0]


def test_only_the_next_step_may_be_asked_for():
    with Prefetch(lambda step: step, range(10)) as prefetch:
        prefetch(0)
        with pytest.raises(ValueError, match="step 2 was requested, but the next step is 1"):
            prefetch(2)
    with Prefetch(lambda step: step, range(1)) as prefetch:
        prefetch(0)
        with pytest.raises(ValueError, match="step 1 was requested, but the next step is None"):
            prefetch(1)
