"""Makes batches in a background thread, some calls ahead of the training loop.

A batch is a pure function of its step. Therefore what is made ahead is what would be made later, nothing has to be
saved, and a run that stops throws away what it has not used.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

T = TypeVar("T")

AHEAD = 2  # calls: one is being made while the other waits for the loop


class Prefetch(Generic[T]):
    """step -> make(step), for the steps of a range in their order; a context that ends with its thread.

    An error of `make` is raised where its step is asked for, as it would be without the thread.
    """

    def __init__(self, make: Callable[[int], T], steps: range, ahead: int = AHEAD):
        """Starts to make the first batches.

        Args:
            make: step -> anything; called in one thread, one step after another.
            steps: the steps that will be asked for.
            ahead: how many are made before they are asked for; 0 to make each when it is asked for, without a thread.
        """
        self._make = make
        self._steps: Iterator[int] = iter(steps)
        self._futures: deque[tuple[int, Future[T]]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches") if ahead else None
        for _ in range(ahead):
            self._submit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __call__(self, step: int) -> T:
        """Returns the batch of a step, and has the next one made.

        Raises:
            ValueError: it is not the next step of the range.
        """
        if self._pool is None:
            return self._make(step)
        found, future = self._futures.popleft() if self._futures else (None, None)
        if future is None or found != step:
            raise ValueError(f"step {step} was requested, but the next step is {found}")
        self._submit()
        return future.result()

    def _submit(self) -> None:
        step = next(self._steps, None)
        if step is not None and self._pool is not None:
            self._futures.append((step, self._pool.submit(self._make, step)))
