# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""How text looks: what SGR sequences (`ESC [ … m`) say, and nothing else of a terminal's language.

Pure. `web/src/terminal/style.ts` says the same in TypeScript, and one table of cases tests both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

Colour = int | str
"""A number of the palette of 256, or `#rrggbb`."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a stretch of text looks."""

    fg: Colour | None = None
    bg: Colour | None = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    inverse: bool = False
    strike: bool = False


PLAIN = Style()

_FLAGS: dict[int, dict[str, Any]] = {
    1: {"bold": True},
    2: {"dim": True},
    3: {"italic": True},
    7: {"inverse": True},
    9: {"strike": True},
    21: {"underline": True},
    22: {"bold": False, "dim": False},
    23: {"italic": False},
    24: {"underline": False},
    27: {"inverse": False},
    29: {"strike": False},
    39: {"fg": None},
    49: {"bg": None},
}
_EXTENDED = {38: "fg", 48: "bg", 58: ""}
"""Followed by a colour; that of an underline is not shown."""
_CODES = (("bold", "1"), ("dim", "2"), ("italic", "3"), ("underline", "4"), ("inverse", "7"))


def _simple(code: int, sub: Sequence[int]) -> dict[str, Any]:
    """What a parameter that stands alone changes."""
    if code == 4:
        return {"underline": sub[1:2] != [0]}
    for first, name, shift in ((30, "fg", 0), (40, "bg", 0), (90, "fg", 8), (100, "bg", 8)):
        if first <= code <= first + 7:
            return {name: code - first + shift}
    return _FLAGS.get(code, {})


def _colour(mode: int | None, rest: Sequence[int]) -> Colour | None:
    """The colour that `5;n` or `2;r;g;b` names."""
    if mode == 2:
        red, green, blue = (min(255, part) for part in [*rest, 0, 0, 0][:3])
        return f"#{red:02x}{green:02x}{blue:02x}"
    return rest[0] if mode == 5 and rest and rest[0] <= 255 else None


@lru_cache(4096)
def after(style: Style, parameters: str) -> Style:
    """The look after one SGR sequence; `parameters` is what stands between `[` and `m`."""
    parts = [[int(sub or 0) for sub in part.split(":")] for part in parameters.split(";")]
    at = 0
    while at < len(parts):
        sub = parts[at]
        at += 1
        if sub[0] == 0:
            style = PLAIN
        elif sub[0] not in _EXTENDED:
            style = replace(style, **_simple(sub[0], sub))
        elif len(sub) > 1:
            # 38:2::r:g:b has a colour space before the colour, 38:2:r:g:b has none.
            found = _colour(sub[1], sub[3 if sub[1] == 2 and len(sub) > 5 else 2 :])
            style = _with(style, sub[0], found)
        else:
            mode = parts[at][0] if at < len(parts) else None
            length = {2: 3, 5: 1}.get(mode or 0, 0)
            found = _colour(mode, [part[0] for part in parts[at + 1 : at + 1 + length]])
            at += 1 + length
            style = _with(style, sub[0], found)
    return style


def _with(style: Style, code: int, colour: Colour | None) -> Style:
    name = _EXTENDED[code]
    changes: dict[str, Any] = {name: colour}
    return replace(style, **changes) if name and colour is not None else style


@lru_cache(4096)
def sequence(style: Style) -> str:
    """The SGR sequence that a terminal takes for this look, beginning afresh."""
    codes = [code for name, code in _CODES if getattr(style, name)]
    if style.strike:
        codes.append("9")
    codes += [*_codes_of(style.fg, 30), *_codes_of(style.bg, 40)]
    return f"\x1b[{';'.join(codes)}m"


def _codes_of(colour: Colour | None, first: int) -> list[str]:
    if colour is None:
        return []
    if isinstance(colour, str):
        value = int(colour[1:], 16)
        return [str(first + 8), "2", str(value >> 16), str(value >> 8 & 255), str(value & 255)]
    if colour < 8:
        return [str(first + colour)]
    if colour < 16:
        return [str(first + 52 + colour)]
    return [str(first + 8), "5", str(colour)]
