"""The estimate of a run from a few of its batches; times are those of a clock that the test sets."""

import itertools

import pytest
import torch

from viewgen import estimate_run, list_images
from viewgen.cli import run
from viewgen.run import RunEstimate, estimate


class Gray:
    """Views of one gray, drawn from the seeds; records its batches."""

    supervision, licence, model_hash, input_size = "none", "none", "gray", 8

    def __init__(self) -> None:
        self.batches: list[int] = []

    def condition(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(1, 2, 3)).unsqueeze(1)

    def generate(self, condition, *, seeds, strength=None):
        self.batches.append(len(seeds))
        grays = torch.tensor([seed % 256 for seed in seeds], dtype=torch.uint8)
        return grays.view(-1, 1, 1, 1).expand(-1, 3, 8, 8)


def test_the_rate_is_that_of_the_batches_after_the_first(images, monkeypatch):
    clock = itertools.chain([100.0], itertools.count(130.0, 4.0))  # 30 s for the first batch, then 4 s each
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(clock))
    gray = Gray()
    made = estimate_run(images, gray, batches=2, batch_size=8, views_per_image=3)
    assert gray.batches == [8, 8, 8]
    assert (made.images, made.views, made.measured) == (14, 42, 24)
    assert made.views_per_second == pytest.approx(2.0) and made.loading_seconds == pytest.approx(26.0)
    assert 60 < made.bytes_per_view < 200


def test_fewer_images_than_batches_and_broken_ones(images, tmp_path):
    with pytest.raises(ValueError, match="1 or more batches"):
        estimate_run(images, Gray(), batches=0)
    made = estimate_run(images, Gray(), batch_size=64, keys=["no.png", *list_images(images)])
    assert made.measured == made.views - 1 > 0 and made.views_per_second > 0
    with pytest.raises(ValueError, match="none of 1 images drawn from"):
        estimate_run(images, Gray(), keys=["no.png"])


def test_the_report_scales_with_devices_and_prices():
    made = RunEstimate(
        images=500_000, views=1_000_000, measured=256, views_per_second=10.0, loading_seconds=36.0, bytes_per_view=4e5
    )
    lines = made.report([1, 8], price=2.5).splitlines()
    assert "1,000,000 views of 500,000 images" in lines[0] and "10 views/s" in lines[1]
    assert lines[2].startswith("disk: 400 GB")
    assert "1 device: 27.8 hours, 27.8 device hours, cost 69.47" in lines[3]
    assert "8 devices: 3.48 hours, 27.9 device hours, cost 69.64" in lines[4]
    assert "cost" not in made.report([1])


def test_the_command_writes_no_views(images, trained, embeddings, tmp_path, capsys):
    out = tmp_path / "views"
    model = ["--generator", "eldm", "--folder", str(trained), "--steps", "2", "--embeddings", str(embeddings.folder)]
    command = ["generate", str(images), "--out", str(out), *model, "--devices", "cpu", "--batch-size", "4"]
    assert run([*command, "--dry-run", "--price", "2"]) == 0
    shown = capsys.readouterr().out
    assert "14 views of 14 images, estimated from 14 views" in shown and "8 devices" in shown and "cost" in shown
    assert not out.exists()
