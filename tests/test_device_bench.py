"""The bench of devices: what is timed is what is compared."""

from __future__ import annotations

import pytest
import torch

from scenarios.device_bench import TOLERANCE, WORK, measure

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_every_piece_of_work_is_timed_for_every_number_of_tasks() -> None:
    found = measure(("cpu",), counts=(1, 3))
    assert {at.what for at in found} == {what for what, *_ in WORK}
    assert [at.tasks for at in found if at.what == "adapt"] == [1, 3]
    assert all(at.seconds > 0 for at in found)
    assert all(at.apart is None for at in found)


@pytest.mark.cuda
@needs_cuda
def test_the_device_gives_the_numbers_of_the_cpu() -> None:
    found = [at for at in measure(("cpu", "cuda"), counts=(1, 50)) if at.device == "cuda"]
    assert len(found) == 8
    assert all(at.apart is not None and at.apart <= TOLERANCE for at in found)
