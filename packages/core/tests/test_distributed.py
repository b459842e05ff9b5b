import gc
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from genviews_core.distributed import all_reduce_sum, default_group, destroy_process_group


def gloo_threads() -> list[str]:
    names = (path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    return [name for name in names if "gloo" in name]


@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed in /proc")
def test_no_thread_of_gloo_remains_although_a_cycle_refers_to_the_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    gc.disable()
    try:
        cycle: list = [default_group()]
        cycle.append(cycle)
        all_reduce_sum(torch.ones(2), cycle[0])
        assert gloo_threads()
        del cycle
        destroy_process_group()
        assert not gloo_threads() and default_group() is None
    finally:
        gc.enable()
    destroy_process_group()  # without a group
