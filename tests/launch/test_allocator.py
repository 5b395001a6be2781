"""The program keeps freed memory: a block that is taken again costs no page faults."""

import os
import platform
import subprocess
import sys

import pytest

from genlab.launch.runtimes import USER_VARIABLES

PROGRAM = """
import ctypes, resource, sys
import genlab.cli
if sys.argv[1:]:
    genlab.cli.main(["--version"])
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
c.free.argtypes, c.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def step():
    blocks = [c.malloc(2**24) for _ in range(4)]
    for block in blocks:
        c.memset(block, 1, 2**24)
    for block in blocks:
        c.free(block)

step()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*arguments: str, **variables: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name not in USER_VARIABLES} | variables
    words = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_the_program_keeps_freed_memory_and_the_library_and_the_user_decide_for_themselves() -> None:
    assert page_faults("program") < 50
    assert page_faults() > 50
    assert page_faults("program", MALLOC_TRIM_THRESHOLD_="131072") > 50
