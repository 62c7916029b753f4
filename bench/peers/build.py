# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.peers.build [name …]`: have the programs of peers, or say clearly why not.

One line for each: where it is, or `skipped` and the reason. Exit code 0 unless a peer that was
named cannot be had.
"""

from __future__ import annotations

import sys

from bench.peers import binaries


def main(arguments: list[str]) -> int:
    """Build what is asked for, or all; the exit code."""
    missing = 0
    for name in arguments or list(binaries.PEERS):
        if name not in binaries.PEERS:
            print(f"no such peer: {name}; there are {', '.join(binaries.PEERS)}")
            return 2
        try:
            print(f"{name}: {binaries.find(name)}")
        except binaries.NotToBeHad as error:
            missing += 1
            print(f"{name}: skipped: {error}")
    return 1 if arguments and missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
