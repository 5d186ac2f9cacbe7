"""Files to samples, in worker processes; unreadable files are reported, never scored."""

import atexit
import multiprocessing
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from data.batches import Batch, SampleKey
from data.cache import PixelCache
from data.decode import UnreadableImage, read_image
from data.degradations import NOTHING, Degradation
from data.transforms import Protocol
from util import UserError

# causes of the signals that end a worker
DEATHS: dict[int, str] = {
    signal.SIGKILL: "was killed (usually because memory ran out)",
    signal.SIGBUS: "ended with a bus error (usually because shared memory, /dev/shm, is full)",
    signal.SIGSEGV: "crashed (usually in the decoder of a damaged file)",
}
WORKER_ADVICE = (
    "a lower --num_threads (0: no such processes) or --batch_size, or a larger /dev/shm, may help"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as a worker returns it; `problem` is the reason for missing pixels, else ''."""

    index: int
    variant: int
    label: int
    pixels: Tensor | None  # uint8 [3, H, W]
    problem: str


class LoadedBatch(NamedTuple):
    """One step of a loader: batches by image size, and skipped files; `no_room`: memory is full."""

    groups: list[Batch]
    left_out: list[tuple[int, int, str]]  # (index, variant, reason)
    no_room: bool = False


class ImageDataset(Dataset[list[Sample]]):
    """Files with labels under a protocol, by `SampleKey`.

    Augmentation depends on (seed, epoch, index) only.

    Args:
        paths: the files.
        labels: 0 real, 1 fake.
        protocol: turns an image into pixels.
        seed: of the augmentation.
        variants: degradations before the protocol; every file is decoded once and comes once per
            variant.
        cache: the files' pixels after the protocol's first half, to be taken instead of the files;
            not with `variants`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Sequence[int],
        protocol: Protocol,
        seed: int = 0,
        variants: Sequence[Degradation] = (NOTHING,),
        cache: PixelCache | None = None,
    ) -> None:
        self.paths, self.labels = list(paths), list(labels)
        self.protocol, self.seed, self.variants = protocol, seed, list(variants)
        self.cache = cache
        if cache is not None and self.variants != [NOTHING]:
            raise ValueError("a cache holds images without degradations; leave out variants")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: SampleKey) -> list[Sample]:
        """Return the file's sample in each variant."""
        label = self.labels[key.index]
        try:
            source = self._load(key.index)
        except UnreadableImage as error:
            return [
                Sample(key.index, v, label, None, str(error)) for v in range(len(self.variants))
            ]
        samples = []
        for number, variant in enumerate(self.variants):
            try:
                pixels, problem = self._pixels(key, source, variant), ""
            # smaller than the crop; more pixels than an encoder takes
            except (ValueError, OSError) as error:
                pixels, problem = None, str(error)
            samples.append(Sample(key.index, number, label, pixels, problem))
        return samples

    def _load(self, index: int) -> Image.Image | Tensor:
        """Return the decoded file, or its pixels in the cache."""
        if self.cache is None:
            return read_image(self.paths[index])
        if problem := self.cache.problem(index):
            raise UnreadableImage(problem)
        return self.cache.pixels(index)

    def _pixels(self, key: SampleKey, source: Image.Image | Tensor, variant: Degradation) -> Tensor:
        rng = np.random.default_rng((self.seed, key.epoch, key.index))
        if isinstance(source, Tensor):
            return self.protocol.finish(source, rng)
        return self.protocol.pixels(variant(source, rng), rng)


def collate(files: list[list[Sample]]) -> LoadedBatch:
    """Stack samples of the same size, in order of first appearance; list those without pixels."""
    samples = [sample for file in files for sample in file]
    by_size: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        if sample.pixels is not None:
            by_size.setdefault(tuple(sample.pixels.shape), []).append(sample)
    groups = [
        Batch(
            torch.stack([sample.pixels for sample in group if sample.pixels is not None]),
            torch.tensor([sample.label for sample in group]),
            torch.tensor([sample.index for sample in group]),
            torch.tensor([sample.variant for sample in group]),
        )
        for group in by_size.values()
    ]
    # here: the queue would lose the batch, and its parent wait for ever
    if get_worker_info() is not None:
        try:
            for tensor in chain.from_iterable(groups):
                tensor.share_memory_()
        except RuntimeError:
            return LoadedBatch([], [], no_room=True)
    left_out = [(s.index, s.variant, s.problem) for s in samples if s.pixels is None]
    return LoadedBatch(groups, left_out)


def init_worker(worker: int) -> None:
    """Ignore SIGINT and SIGTERM in a worker: the parent decides what such a signal does.

    A worker ends when its parent closes the loader or is gone, which PyTorch looks for.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # the parent reports a crash; PyTorch's handlers would print one more line
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE):
        signal.signal(number, signal.SIG_DFL)


@atexit.register
def _kill_workers() -> None:
    """Kill the workers before Python ends: it would wait for them to heed a SIGTERM."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


class WatchedLoader:
    """Iterates over a DataLoader; a worker that died is a UserError of one line.

    Args:
        loader: with `init_worker` in its workers.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader
        self.workers: list[BaseProcess] = []

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._start()
        except Exception as error:
            # a worker's connections close before it ends
            ending = wait([worker.sentinel for worker in self.workers], timeout=1)
            for worker in self.workers:
                worker.join(timeout=1 if worker.sentinel in ending else 0)
            statuses = [worker.exitcode for worker in self.workers if worker.exitcode is not None]
            if not statuses:
                raise
            how = DEATHS.get(-statuses[0], f"ended with status {statuses[0]}")
            raise UserError(
                f"--num_threads: a process that loads images {how}; {WORKER_ADVICE}"
            ) from error

    def _start(self) -> Iterator[Any]:
        """Return the loader's iterator, its workers started.

        PyTorch's handler of SIGCHLD is removed again: it would raise wherever this process is. A
        dead worker is noticed when its batch does not come.
        """
        handler, before = signal.getsignal(signal.SIGCHLD), set(multiprocessing.active_children())
        # workers inherit the blocked signals, which could end them before `init_worker`
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            iterator = iter(self.loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGCHLD, handler)
        self.workers += set(multiprocessing.active_children()) - before
        return iterator
