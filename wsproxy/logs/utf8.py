# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Where bytes of a log file may be cut, so that no character is.

Pure. A frame ends inside a UTF-8 character only where the file does (docs/facts/arvados-demand.md
W1, G14): up to three bytes at the end of a run are held back until the rest of the character is
there.
"""

from __future__ import annotations

_LONGEST_TAIL = 3


def incomplete_tail(data: bytes) -> int:
    """How many bytes at the end of `data` begin a UTF-8 character that is not all there: 0 to 3."""
    for back in range(1, min(_LONGEST_TAIL, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        return back if back < _character_length(byte) else 0
    return 0


def _character_length(lead: int) -> int:
    """Bytes of the character that this byte begins; 1 for a byte that can begin none."""
    if 0xC2 <= lead <= 0xDF:
        return 2
    if lead & 0xF0 == 0xE0:
        return 3
    return 4 if 0xF0 <= lead <= 0xF4 else 1
