"""GenView's views in one go: foreground ratios of the images, a noise level for each, Stable unCLIP."""

import pyarrow.parquet as pq
import pytest

from benchmarks.throughput.random_models import save_random
from pairdata import write_scenes
from viewgen import noise_level


@pytest.mark.slow
def test_every_image_gets_the_noise_level_of_its_foreground(backbone, programs, tmp_path):
    write_scenes(tmp_path / "scenes", count=12, seed=0)
    model = save_random("unclip", "tiny", tmp_path)["model"]
    small = ["--generator", "unclip", "--model", model, "--steps", 2, "--precision", "float32", "--device", "cpu"]
    command = ["apps/generate", tmp_path / "scenes/images", "--out", tmp_path / "views", *small]
    command += ["--strength", "adaptive"]
    assert "expected --foreground ENCODER" in programs(*command, expect=1)
    programs(*command, "--foreground", backbone)
    rows = pq.read_table(tmp_path / "views/manifest.parquet").to_pylist()
    assert len(rows) == 12
    assert all(row["strength"] == noise_level(row["foreground_ratio"]) for row in rows)
    ratios = pq.read_table(tmp_path / "views/ratios.parquet").to_pylist()
    assert {row["key"]: row["foreground_ratio"] for row in ratios} == {
        row["key"]: row["foreground_ratio"] for row in rows
    }
    assert len({row["strength"] for row in rows}) > 1
    (tmp_path / "views" / rows[0]["path"]).unlink()
    programs(*command, "--foreground", backbone)
    assert pq.read_table(tmp_path / "views/manifest.parquet").to_pylist() == rows
