import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from genviews_core.images import UnreadableImage, read_image
from genviews_core.listing import iter_images
from genviews_core.lock import lock_file
from pairquality import FeatureEncoder, ForegroundPCA, foreground_ratio, write_ratios
from pairquality.fit import fit_images
from pairquality.images import choose_keys
from pairquality.visualize import foreground_sheet


def encoder(seed: int = 0) -> FeatureEncoder:
    torch.manual_seed(seed)
    return FeatureEncoder(nn.Conv2d(3, 8, 4, 4), 20, name="patches")


def write_images(root, count: int = 23) -> list[str]:
    """Bright squares in the middle of dark noise, in folders, a few unreadable; their keys in order."""
    rng = np.random.default_rng(0)
    for place in range(count):
        pixels = rng.integers(0, 60, (20, 24, 3), dtype=np.uint8)
        side = int(rng.integers(2, 7))
        pixels[10 - side : 10 + side, 12 - side : 12 + side] += np.uint8(180)
        folder = root / ("" if place % 3 else f"c{place % 2}")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{place:02d}.{'png' if place % 4 else 'jpg'}")
    (root / "c0" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (root / "empty.png").touch()
    (root / "notes.txt").write_text("no image")
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*") if path.suffix != ".txt")


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path / "images")
    return tmp_path / "images"


def fitted(root, **options) -> ForegroundPCA:
    return fit_images(root, encoder(), batch_size=5, workers=2, **options)


def test_ratios_of_every_image_and_a_line_for_each_that_cannot_be_read(images, tmp_path):
    pca, said = fitted(images), []
    done = write_ratios(
        images, tmp_path / "r.parquet", encoder(), pca, batch_size=4, on_progress=lambda *now: said.append(now)
    )
    rows = pq.read_table(tmp_path / "r.parquet").to_pylist()
    keys = list(iter_images(images))
    failures = [json.loads(line) for line in done.failures.read_text().splitlines()]
    assert [row["key"] for row in failures] == ["c0/broken.jpg", "empty.png"]
    assert all("cannot read the image" in row["error"] for row in failures)
    assert (done.written, done.failed) == (len(rows), 2) == (23, 2)
    assert [row["key"] for row in rows] == [key for key in keys if key not in {"c0/broken.jpg", "empty.png"}]
    for row in rows:
        tokens = encoder()(read_image(images / row["key"], 20)[None])
        assert row["foreground_ratio"] == pytest.approx(float(foreground_ratio(pca, tokens)), abs=1e-6)
        assert row["foreground_ratio"] == round(row["foreground_ratio"] * 25) / 25
    assert said[-1] == (25, 25) and len({row["foreground_ratio"] for row in rows}) > 5
    assert pq.read_schema(tmp_path / "r.parquet").names == ["key", "foreground_ratio"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "r.failures.jsonl", "r.parquet"]


@pytest.mark.parametrize("torn", [0, 7])
def test_a_killed_run_goes_on_and_ends_the_same(images, tmp_path, torn):
    pca = fitted(images)
    write_ratios(images, tmp_path / "whole.parquet", encoder(), pca, batch_size=4)
    whole = pq.read_table(tmp_path / "whole.parquet")

    def stop(done: int, total: int) -> None:
        if done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_ratios(images, tmp_path / "r.parquet", encoder(), pca, batch_size=4, on_progress=stop)
    journal = tmp_path / "r.parquet.journal"
    assert not (tmp_path / "r.parquet").exists() and len(journal.read_text().splitlines()) == 13
    if torn:
        journal.write_bytes(journal.read_bytes()[:-torn])
    said = []
    write_ratios(
        images, tmp_path / "r.parquet", encoder(), pca, batch_size=9, on_progress=lambda *now: said.append(now[0])
    )
    assert said[0] == (12 if torn else 16) and said[-1] == 25
    assert pq.read_table(tmp_path / "r.parquet").equals(whole) and not journal.exists()


def test_a_finished_file_is_kept_and_others_are_refused(images, tmp_path):
    out, pca = tmp_path / "r.parquet", fitted(images)
    first = write_ratios(images, out, encoder(), pca)
    written = out.stat().st_mtime_ns
    assert write_ratios(images, out, encoder(), pca) == first and out.stat().st_mtime_ns == written
    other = FeatureEncoder(encoder().network, 40)
    with pytest.raises(ValueError, match="holds ratios of another encoder"):
        write_ratios(images, out, other, pca)
    with pytest.raises(ValueError, match="holds ratios of another PCA"):
        write_ratios(images, out, encoder(), fitted(images, share_foreground=0.2))
    with pytest.raises(ValueError, match=r"fitted on, patches .* got patches"):
        write_ratios(images, tmp_path / "new.parquet", encoder(1), pca)
    (images / "new.png").touch()
    with pytest.raises(ValueError, match="holds ratios of other images"):
        write_ratios(images, out, encoder(), pca)
    out.write_bytes(b"x")
    with pytest.raises(ValueError, match="holds no ratios"):
        write_ratios(images, out, encoder(), pca)


def test_mistakes_with_folders_are_named(images, tmp_path):
    pca = fitted(images)
    (tmp_path / "none").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").touch()
    for folder, out, message in (
        (tmp_path / "missing", "r.parquet", "is not a folder"),
        (tmp_path / "none", "r.parquet", "expected images under"),
        (tmp_path / "bad", "r.parquet", "none of the 1 images can be read"),
        (images, "r.csv", "expected a .parquet file to write"),
    ):
        with pytest.raises(ValueError, match=message):
            write_ratios(folder, tmp_path / out, encoder(), pca)
    for folder, message in (
        (tmp_path / "none", "expected images under"),
        (tmp_path / "bad", "expected features to fit"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted(folder)
    with pytest.raises(ValueError, match="expected images of 1 or more, got 0"):
        fitted(images, images=0)


def test_the_fit_is_written_down_and_chooses_the_same_images_whatever_else_is_there(images, tmp_path):
    pca = fitted(images, images=10, seed=3)
    about = pca.fitted_on
    assert about is not None and (about.encoder, about.encoder_hash, about.size) == ("patches", encoder().hash, 20)
    assert "10 images chosen under" in about.data and 8 <= about.images <= 10
    keys = [f"{place}.jpg" for place in range(1000)]
    chosen = choose_keys(iter(keys), 100, seed=0)
    assert chosen == choose_keys(reversed(keys), 100, seed=0) == sorted(chosen) and len(set(chosen)) == 100
    assert set(choose_keys(iter(keys[:500]), 50, 0)) & set(chosen) and choose_keys(iter(keys), 100, 1) != chosen
    assert choose_keys(iter(keys), 2000, seed=0) == sorted(keys)


def test_keys_are_sorted_paths_and_links_in_a_circle_end(tmp_path):
    keys = ["a.jpg", "a/b.png", "a/c/d.WEBP", "a0.gif", "z.tiff"]
    for key in [*keys, ".hidden/x.jpg", "a/.x.jpg", "a/x.txt"]:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert list(iter_images(tmp_path)) == sorted(keys)


def test_odd_images_are_read_and_broken_ones_named(tmp_path):
    ramp = np.linspace(0, 255, 16).astype(np.uint8)[None].repeat(8, axis=0)
    square = ramp[:, 4:12]
    for name, image in (
        ("gray.png", Image.fromarray(ramp)),
        ("deep.png", Image.fromarray(ramp.astype(np.uint16) * 257)),
        ("float.tiff", Image.fromarray(ramp.astype(np.float32) / 255)),
        ("palette.gif", Image.fromarray(ramp)),
        ("clear.png", Image.fromarray(np.dstack([ramp] * 3 + [np.full_like(ramp, 255)]))),
    ):
        image.save(tmp_path / name)
        found = read_image(tmp_path / name, 8)
        assert found.shape == (3, 8, 8) and int((found[1].int() - torch.from_numpy(square).int()).abs().max()) <= 1
    turned = Image.fromarray(ramp.T.copy())
    turned.save(tmp_path / "turned.png", exif=_orientation(8))
    assert torch.equal(read_image(tmp_path / "turned.png", 8)[0], torch.from_numpy(np.rot90(ramp.T)[:, 4:12].copy()))
    assert read_image(tmp_path / "gray.png", 5).shape == (3, 5, 5)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    for name in ("cut.png", "missing.png", "."):
        with pytest.raises(UnreadableImage, match="cannot read the image"):
            read_image(tmp_path / name, 8)


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def test_the_sheet_shows_image_map_and_foreground(images, tmp_path):
    pca = fitted(images)
    out = foreground_sheet(images, tmp_path / "sheet" / "maps.png", encoder(), pca, count=5, tile=60)
    with Image.open(out) as sheet:
        pixels = np.asarray(sheet)
    keys = [key for key in choose_keys(iter_images(images), 5, 0) if key not in {"c0/broken.jpg", "empty.png"}]
    rows = -(-len(keys) // 2)
    assert pixels.shape == (8 + rows * 88, 2 * (3 * 60 + 32), 3)
    first, heat, cut = (pixels[8:68, 8 + 68 * column : 68 + 68 * column].astype(int) for column in range(3))
    expected = read_image(images / keys[0], 60).permute(1, 2, 0).numpy()
    assert np.abs(first - expected).max() <= 1
    assert heat[30, 30, 0] > heat[30, 30, 2] and heat[1, 1, 2] > heat[1, 1, 0]  # red in the middle, blue at the border
    mask = (pca.project(encoder()(read_image(images / keys[0], 60)[None])) > pca.threshold).view(5, 5)
    assert mask[2, 2] and not mask.all()
    for row, column in np.ndindex(5, 5):
        place = 12 * row + 6, 12 * column + 6
        assert np.array_equal(cut[place], first[place]) if mask[row, column] else cut[place].min() > 170
    with pytest.raises(ValueError, match=r"expected a .png or .jpg file"):
        foreground_sheet(images, tmp_path / "maps.txt", encoder(), pca)


MEMORY = """
import resource, sys, torch
from pairquality import fit_pca
def tokens(images):
    generator = torch.Generator().manual_seed(0)
    for _ in range(images // 5000):
        batch = torch.randn(5000, 9, 8, generator=generator)
        batch[:, 4] += 2
        yield batch
fit_pca(tokens(50_000), sample_bytes=2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pca = fit_pca(tokens(1_000_000), sample_bytes=2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, pca.margin)
"""


@pytest.mark.slow
def test_a_million_images_take_no_more_memory_than_fifty_thousand():
    found = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout.split()
    assert int(found[0]) < 16 * 1024 and float(found[1]) > 0.5  # kilobytes; the tokens alone would be 288,000


def test_one_process_at_a_time_writes_a_file(images, tmp_path):
    out = tmp_path / "r.parquet"
    with lock_file(out), pytest.raises(ValueError, match=r"r\.parquet is being written by"):
        write_ratios(images, out, encoder(), fitted(images))
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    done = write_ratios(images, out, encoder(), fitted(images))
    with lock_file(out):  # what is finished is read without a lock, on a read-only disk too
        assert write_ratios(images, out, encoder(), fitted(images)) == done


def test_a_file_or_journal_with_duplicate_images_is_rejected(images, tmp_path):
    out, pca = tmp_path / "r.parquet", fitted(images)
    write_ratios(images, out, encoder(), pca)
    once = pq.read_table(out)
    pq.write_table(pa.concat_tables([once, once]), out)
    with pytest.raises(ValueError, match="does not hold every image once; delete it"):
        write_ratios(images, out, encoder(), pca)

    def stop(done: int, total: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    out.unlink()
    with pytest.raises(KeyboardInterrupt):
        write_ratios(images, out, encoder(), pca, batch_size=5, on_progress=stop)
    journal = tmp_path / "r.parquet.journal"
    first, *rows = journal.read_text().splitlines(keepends=True)
    for damaged in ([*rows, *rows], rows[:7] + rows[5:], [*rows[:6], "[]\n", *rows[7:]], [*rows[:6], "{\n", *rows[7:]]):
        journal.write_text("".join([first, *damaged]))
        with pytest.raises(ValueError, match=r"r\.parquet\.journal is damaged.*delete it to start again"):
            write_ratios(images, out, encoder(), pca)
    assert not out.exists()
