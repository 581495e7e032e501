"""On a GPU: how often a step waits for it. Skipped where there is none."""

import pytest
import torch
from worded import settings, trainer

from equigen.training import loop
from equigen.training.gradients import to_cpu

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def on_the_gpu(monkeypatch):
    from accelerate.state import AcceleratorState, PartialState

    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    for state in (AcceleratorState, PartialState):  # made for the CPU by the tests before
        state._reset_state()
    yield
    for state in (AcceleratorState, PartialState):
        state._reset_state()


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2, "min_snr": 5.0}, {"precision": "fp16", "noise_offset": 0.1}])
@pytest.mark.parametrize("own", [{}, {"predicts": "flow", "part": "pairs"}, {"stored": True}])
def test_a_step_waits_once(tmp_path, monkeypatch, changes, own):
    """Everything up to the fetch of losses and gradient norm, and everything after it, is only handed over."""
    run = trainer(tmp_path / "c.safetensors", {"mechanism": "perturbation"}, settings(64, **changes), **own)
    assert run.accelerator.device.type == "cuda"
    for seen in (0, 8, 16):
        batch, run.images_seen = run.stream.batch(seen), seen
        mode = "error" if seen else "default"

        def waiting(*values, mode=mode):
            torch.cuda.set_sync_debug_mode("default")
            values = to_cpu(*values)
            torch.cuda.set_sync_debug_mode(mode)
            return values

        monkeypatch.setattr(loop, "to_cpu", waiting)
        torch.cuda.set_sync_debug_mode(mode)  # the first step moves tables over
        try:
            losses = run.train_step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert losses.device.type == "cpu"
    run.mechanism.close()
