"""Moves the clock of processes, for all their threads at the same moment. Knows C and files; knows no service.

libfaketime does as much, but each thread sees a jump when it looks at a file again, and looking at it each time makes a
process too slow to be called.
"""

import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

_FILE_VARIABLE = "MOVED_CLOCK_FILE"
# What measures durations, CLOCK_MONOTONIC, goes on: so it does when an operator sets the clock of a machine.
_LIBRARY = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static const int64_t nothing = 0;
static const volatile int64_t *ahead_s = &nothing;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("MOVED_CLOCK_FILE");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead_s, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) ahead_s = found;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += *ahead_s;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *told) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (told) *told = exact.tv_sec;
    return exact.tv_sec;
}
"""


class MovedClock:
    """The clock of some processes."""

    def __init__(self, folder: Path, compiler: str) -> None:
        """Makes the library that they load before all others."""
        source, self._library = folder / "moved_clock.c", folder / "moved_clock.so"
        source.write_text(_LIBRARY)
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", self._library, source, "-ldl"], check=True)
        self._file = folder / "ahead"
        self.move(0)

    def move(self, ahead_s: int) -> None:
        """Sets how far ahead of the machine's the clock is."""
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:
            file.write(struct.pack("=q", ahead_s))

    def variables(self) -> Mapping[str, str]:
        """Returns what makes a process go by this clock."""
        return {"LD_PRELOAD": str(self._library), _FILE_VARIABLE: str(self._file)}
