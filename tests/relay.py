"""A slow, unreliable cable: passes Ethernet frames between two TAP devices, each after a time of its own.

``python relay.py ONE OTHER DELAY_S JITTER_S LOSS`` makes the devices in the network namespace it runs in, says
``ready``, and goes on until it is killed. A frame is due DELAY_S and up to JITTER_S later, so that frames overtake
each other; of all frames the share LOSS is dropped.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import sys
import time

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_FRAME_BYTES = 1 << 16
_AT_ONCE = 64  # frames taken from one side before those that are due are looked at
_MOST_WAITING = 20_000  # 30 MB: beyond it the queue is full, as a router's would be


def tap(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return device


def relay(one: int, other: int, delay_s: float, jitter_s: float, loss: float) -> None:
    across, waiting, number = (
        {one: other, other: one},
        list[tuple[float, int, int, bytes]](),
        itertools.count(),
    )
    rng = random.Random(0)
    while True:
        left_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for device in select.select([one, other], [], [], left_s)[0]:
            for _ in range(_AT_ONCE):
                try:
                    frame = os.read(device, _FRAME_BYTES)
                except BlockingIOError:
                    break
                if len(waiting) < _MOST_WAITING and rng.random() >= loss:
                    due = time.monotonic() + delay_s + rng.uniform(0, jitter_s)
                    heapq.heappush(waiting, (due, next(number), across[device], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, device, frame = heapq.heappop(waiting)
            try:
                os.write(device, frame)
            except OSError:  # the device is down or full: a frame on a cable may be lost
                continue


if __name__ == "__main__":
    ends = [tap(name) for name in sys.argv[1:3]]
    print("ready", flush=True)
    relay(*ends, *map(float, sys.argv[3:]))
