"""One stage of a contender: python -m peers.stage CONTENDER PLACE CHAIN"""

from __future__ import annotations

import importlib
import os
import sys

from peers.chain import Chain


def main() -> None:
    contender, place, chain = sys.argv[1], int(sys.argv[2]), Chain.read(sys.argv[3])
    os.sched_setaffinity(0, {chain.cpus[place]})  # before any library starts threads
    importlib.import_module(f"peers.with_{contender}").serve(chain, place)


if __name__ == "__main__":
    main()
