"""Reading ahead in the background, so that loading overlaps computation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from .dataset import Pairs
from .sample import Sample
from .sampler import ShardedSampler

AHEAD = 2  # samples that each thread may read ahead


class Prefetcher:
    """Iterates over the remaining samples of a sampler's epoch, in the sampler's order.

    workers: threads that read ahead; 0 reads on demand. The sampler advances when a sample is
    returned, not when it is read, so its state is that of the consumer. An exception while reading
    is raised in place of its sample. The threads only read files and never use a GPU.
    """

    def __init__(self, dataset: Pairs, sampler: ShardedSampler, workers: int = 1) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.workers = workers

    def __iter__(self) -> Iterator[Sample]:
        """The remaining samples of this epoch."""
        indices = iter(self.sampler.upcoming())
        if not self.workers:
            yield from map(self._handed, map(self.dataset.__getitem__, indices))
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="lganet-data")

        def reading(count: int) -> Iterator[Future[Sample]]:
            return (pool.submit(self.dataset.__getitem__, i) for i in islice(indices, count))

        try:
            waiting = deque(reading(AHEAD * self.workers))
            while waiting:
                sample = waiting.popleft().result()
                waiting.extend(reading(1))
                yield self._handed(sample)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _handed(self, sample: Sample) -> Sample:
        self.sampler.advance()
        return sample
