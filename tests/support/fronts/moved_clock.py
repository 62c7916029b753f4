# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The clock of a process as it can be moved while it runs: what the process asks the C library for
is off by so many seconds. Needs a C compiler, and a program that asks the library (Go does not)."""

from __future__ import annotations

import mmap
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *moved;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("MOVED_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    void *page = mmap(0, sizeof *moved, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) moved = page;
    close(file);
}

int clock_gettime(clockid_t id, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, out);
    if (!failed && moved && id == CLOCK_REALTIME) out->tv_sec += *moved;
    return failed;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


@dataclass(frozen=True, slots=True)
class MovedClock:
    """One process' clock."""

    library: Path
    place: Path

    @property
    def environment(self) -> dict[str, str]:
        """What the process is started with."""
        return {"LD_PRELOAD": str(self.library), "MOVED_CLOCK": str(self.place)}

    def move(self, seconds: int) -> None:
        """So many seconds fast from now on; 0: it is right again."""
        with self.place.open("r+b") as file, mmap.mmap(file.fileno(), 8) as page:
            page[:] = struct.pack("q", seconds)


def make(folder: Path, names: Iterable[str]) -> dict[str, MovedClock]:
    """A clock for each name."""
    source, library = folder / "moved_clock.c", folder / "moved_clock.so"
    source.write_text(_SOURCE)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"],
        check=True,
        capture_output=True,
    )
    clocks = {name: MovedClock(library, folder / f"{name}.clock") for name in names}
    for clock in clocks.values():
        clock.place.write_bytes(bytes(8))
    return clocks
