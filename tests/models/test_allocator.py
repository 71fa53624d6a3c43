"""Freed memory stays in the process and is reused by the next tensor."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from repro.models.allocator import keep_freed_memory
{call}
def touch():
    torch.ones(16 << 20)  # 64 MiB
for _ in range(10):
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_tensor_of_the_same_size_needs_no_new_pages() -> None:
    def faults(call: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", PROGRAM.format(call=call)]))

    pages = 5 * (64 << 20) // 4096
    assert faults("") > 0.9 * pages
    assert faults("keep_freed_memory()") < 0.01 * pages
