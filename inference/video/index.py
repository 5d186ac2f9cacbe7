"""When the frames of a video are shown, and which of them are wanted. Times are whole ticks of the
stream's time base."""

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any


@dataclass
class PacketIndex:
    """What the packets of a video stream say, without decoding any.

    Args:
        times: presentation times in ticks of the packets that have one; keys: of those with a key
            frame. Sorted.
        packets, size: how many there are, and their bytes. end: time at which the last frame ends.
        whole: False if reading met damage, or a frame has no time. repeats: two frames share a
            time, as in files joined by their bytes.
    """

    times: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    packets: int = 0
    size: int = 0
    end: int | None = None
    whole: bool = True
    repeats: bool = False

    def add(self, packet: Any) -> None:
        """Take note of a packet that holds data."""
        self.packets += 1
        self.size += packet.size
        if packet.pts is None:
            self.whole = False
            return
        if packet.is_discard:  # decoded for what follows, but never shown
            return
        self.times.append(packet.pts)
        self.end = max(self.end or packet.pts, packet.pts + (packet.duration or 0))
        if packet.is_keyframe:
            self.keys.append(packet.pts)

    def finish(self) -> None:
        """Call it after the last packet."""
        self.times.sort()
        self.keys.sort()
        self.repeats = len(set(self.times)) < len(self.times)

    def key_before(self, time: Fraction) -> int | None:
        """Presentation time of the last key frame that is shown at `time` or earlier."""
        position = bisect_right(self.keys, time)
        return self.keys[position - 1] if position else None

    @property
    def varies(self) -> bool:
        """Whether frames stay for different times, by more than the two ticks that rounding
        explains."""
        gaps = [after - before for before, after in pairwise(self.times) if after > before]
        return bool(gaps) and max(gaps) - min(gaps) > 2


class NearestFrames:
    """Of frames that come in the order of their times, those nearest to 0, interval, 2 * interval,
    ...; each at most once.

    Of two frames equally near it is the earlier one. Nearest, not "shown at that time": time stamps
    are rounded to ticks, and frames of a steady rate, asked for at that rate, must all come.

    Args:
        interval: in ticks; 0 takes every frame.

    Attributes:
        wanted: the first of these times that has no frame yet.
    """

    def __init__(self, interval: Fraction) -> None:
        self.interval = interval
        self.wanted = Fraction(0)
        self._held: tuple[int, Any] | None = None
        self._gap = 0

    def offer(self, time: int, frame: Any) -> tuple[int, Any] | None:
        """Give the next frame; returns the one before it, with its time, if that is one of the
        nearest."""
        chosen = None
        if self._held is not None:
            self._gap = time - self._held[0]
            chosen = self._take(Fraction(time + self._held[0], 2))
        self._held = time, frame
        return chosen

    def last(self) -> tuple[int, Any] | None:
        """The last frame, if it is one of the nearest; it is taken to stay as long as the one
        before."""
        return None if self._held is None else self._take(self._held[0] + Fraction(self._gap, 2))

    def jump(self) -> None:
        """What was offered so far is not among the nearest to `wanted`."""
        self._held, self._gap = None, 0

    def _take(self, until: Fraction) -> tuple[int, Any] | None:
        if self.interval == 0:
            return self._held
        if self.wanted > until:
            return None
        self.wanted = (
            math.floor(until / self.interval) + 1
        ) * self.interval  # no loop: a time stamp may be years ahead
        return self._held


class Clock:
    """Time stamps of frames -> ticks since the start, always rising: what is missing or goes back
    gets the usual step.

    Args:
        start: time stamp that counts as 0; None: the first that there is. step: ticks between two
            frames, as a rule.

    Attributes:
        guessed: frames that had no time stamp, or none after that of the frame before.
    """

    def __init__(self, start: int | None, step: int) -> None:
        self.guessed = 0
        self._start, self._step = start, max(1, step)
        self._next: int | None = None

    def ticks(self, pts: int | None) -> int:
        """Ticks of the next frame."""
        expected = 0 if self._next is None else self._next
        if self._start is None and pts is not None:
            self._start = pts - expected
        time = None if pts is None or self._start is None else pts - self._start
        if time is None or (self._next is not None and time <= self._next - self._step):
            time = expected
            self.guessed += 1
        self._next = time + self._step
        return time
