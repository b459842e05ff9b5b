"""Logs rewind to where a run resumes; files are whole or not there."""

import json

import pytest
import torch

from sslzoo import MetricWriter, init_distributed, log_steps, read_log


def test_a_resumed_log_holds_every_step_once(tmp_path):
    log = MetricWriter(tmp_path)
    for step in range(1, 6):
        log.write(step, loss=float(step))
    log.close()
    with log.path.open("a") as file:
        file.write('{"step": 6, "lo')  # a kill tore the last line
    log = MetricWriter(tmp_path, resume_step=3)
    log.write(4, loss=40.0)
    log.close()
    assert [(row["step"], row["loss"]) for row in read_log(log.path)] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


def test_every_scalar_becomes_a_tensorboard_curve(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricWriter(tmp_path)
    log.write(1, loss=0.5, lr=0.1)
    log.write(2, loss=0.25, lr=0.2)
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("loss")] == [0.5, 0.25]
    assert [event.step for event in events.Scalars("lr")] == [1, 2]


def test_speeds_are_apart_and_rewind_too(tmp_path):
    log = MetricWriter(tmp_path)
    for step in (1, 2, 3):
        log.write(step, loss=1.0)
        log.write_speed(step, images_per_second=10.0 * step)
    log.close()
    log = MetricWriter(tmp_path, resume_step=1)
    log.write_speed(2, images_per_second=5.0)
    log.close()
    assert read_log(log.path) == [{"step": 1, "loss": 1.0}]
    assert [row["images_per_second"] for row in read_log(tmp_path / "speed.jsonl")] == [10.0, 5.0]


def test_other_curves_get_every_scalar(tmp_path):
    points = []

    class Points:
        def write(self, step, scalars):
            points.append((step, dict(scalars)))

        def close(self):
            points.append("closed")

    log = MetricWriter(tmp_path, sinks=[Points()])
    log.write(1, loss=0.5)
    log.write_speed(1, images_per_second=3.0)
    log.close()
    assert points == [(1, {"loss": 0.5}), (1, {"images_per_second": 3.0}), "closed"]


def test_a_step_callback_rewinds_at_its_first_step_and_passes_on(tmp_path):
    (tmp_path / "log.jsonl").write_text("".join(json.dumps({"step": s, "loss": 0.0}) + "\n" for s in (1, 2, 3)))
    seen = []
    log = log_steps(tmp_path, lambda *call: seen.append(call))
    log(2, 10, {"loss": 1.0})
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == [1, 2]
    assert seen == [(2, 10, {"loss": 1.0})]


def test_a_job_of_one_needs_no_process_group():
    worker = init_distributed({}, "cpu")
    assert worker.is_main and worker.world_size == 1
    assert worker.device == torch.device("cpu")
    assert not torch.distributed.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_said_in_one_line():
    with pytest.raises(ValueError, match="torch sees no CUDA GPU; give --device cpu"):
        init_distributed({}, "cuda")
    with pytest.raises(ValueError, match="expected a device auto, cpu, cuda, cuda:N or mps"):
        init_distributed({}, "tpu")
