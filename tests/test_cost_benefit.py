"""How like an image its positives are, for any views and any encoder."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pairdata import write_scenes
from viewgen import ImageEncoder, embed_images, fold_journals, generate_views

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "benchmarks" / "cost_benefit"
TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 1, "layers": 1},
}


class Faded:
    """Views that are their images, mixed with noise; none for images that it is told to leave out."""

    name = model_id = model_hash = "faded"
    supervision, licence = "none", "CC0"

    def __init__(self, share: float) -> None:
        self.share, self.model_hash = share, f"faded {share}"

    def condition(self, images):
        return images.float()

    def generate(self, condition, *, seeds, strength=None):
        noise = [torch.rand(condition.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (condition * (1 - self.share) + 255 * self.share * torch.stack(noise)).byte()


@pytest.fixture
def images(tmp_path) -> Path:
    write_scenes(tmp_path / "scenes", count=24, seed=0)
    return tmp_path / "scenes" / "images"


@pytest.fixture
def views(images, tmp_path):
    def make(share: float) -> Path:
        root = tmp_path / f"views-{share}"
        generate_views(images, root, Faded(share), views_per_image=2)
        fold_journals(root)
        return root

    return make


@pytest.fixture
def similarity(monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAM))
    import similarity

    return similarity


def test_the_mean_is_the_one_that_a_loop_finds(images, views, tmp_path, similarity):
    torch.manual_seed(0)
    encoder = ImageEncoder(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 8)), size=32)
    root = views(0.5)
    kept = [embed_images(folder, tmp_path / f"embedded-{folder.name}", encoder) for folder in (images, root)]
    cosines = []
    for row, path in enumerate(kept[1].keys):
        image = kept[0].vectors[kept[0].keys.row(path.rsplit(".", 2)[0])].astype(float)
        view = kept[1].vectors[row].astype(float)
        cosines.append(image @ view / math.sqrt(image @ image) / math.sqrt(view @ view))
    for rows in (similarity.ROWS, 7):
        similarity.ROWS = rows
        found = similarity.measure_similarity(*kept, root / "manifest.parquet")
        assert (found.views, found.lost) == (48, 0)
        assert found.mean == pytest.approx(np.mean(cosines), abs=1e-12)
        assert found.deviation == pytest.approx(np.std(cosines), abs=1e-12)
        assert found.other < found.mean


def test_views_by_clip_from_a_file_of_weights(images, views, tmp_path):
    import open_clip

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny-clip.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(tmp_path / "configs")
    torch.save(open_clip.create_model("tiny-clip").state_dict(), tmp_path / "clip.pt")
    start = f"import open_clip, runpy, sys; open_clip.add_model_config({str(tmp_path / 'configs')!r}); "
    program = start + f"sys.path.insert(0, {str(PROGRAM)!r}); runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"

    def run(*arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)

    near, far = views(0.1), views(0.9)
    done = run(images, near, far, "--encoder", f"open_clip/tiny-clip:{tmp_path / 'clip.pt'}", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if "│" in line]
    assert [int(row[2]) for row in rows] == [48, 48]
    assert float(rows[0][3]) > float(rows[1][3])
    unknown = run(images, near, "--encoder", "open_clip/no-such-model:tag", "--device", "cpu")
    assert unknown.returncode == 1
    assert unknown.stderr.strip().splitlines()[-1].startswith("error: unknown encoder open_clip/no-such-model")
