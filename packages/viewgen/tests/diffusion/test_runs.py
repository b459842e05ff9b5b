"""Whole runs of the generators on pretrained models: processes, shards and Ray write the same files and manifest."""

import os
from pathlib import Path

import pytest
from PIL import Image
from tiny_diffusion import random_images

from viewgen import GeneratorSpec, RandomStrength, generate_views, measure_statistics, merge_journals, verify_views
from viewgen.cli import run


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    for index, image in enumerate(random_images(5, 26, 31)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / f"{index}.png")
    (root / "broken.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def specs(bases, adapters, kandinsky, images, tmp_path_factory) -> dict[str, tuple[GeneratorSpec, RandomStrength]]:
    """Each generator with its law of strength."""
    files = {"model": str(bases["sd"]), "adapter": str(adapters / "models" / "ip-adapter_sd15.safetensors")}
    measured = tmp_path_factory.mktemp("measured") / "statistics.safetensors"
    measure_statistics(images, measured, GeneratorSpec("ip-adapter", files).load("cpu"))
    return {
        "ip-adapter": (
            GeneratorSpec("ip-adapter", {**files, "statistics": str(measured), "steps": 2}),
            RandomStrength(),
        ),
        "image-to-image": (
            GeneratorSpec("image-to-image", {"model": str(bases["sdxl"]), "steps": 2}),
            RandomStrength(levels=(0.5, 0.8)),
        ),
        "kandinsky": (
            GeneratorSpec(
                "kandinsky",
                {
                    "model": str(kandinsky / "decoder"),
                    "prior": str(kandinsky / "prior"),
                    "steps": 2,
                    "render_size": 16,
                },
            ),
            RandomStrength(),
        ),
    }


GENERATORS = ["ip-adapter", "image-to-image", "kandinsky"]


@pytest.fixture(scope="module")
def make(images, specs):
    def generate(which: str, views: Path, **options):
        spec, strength = specs[which]
        return generate_views(images, views, spec, views_per_image=2, batch_size=3, strength=strength, **options)

    return generate


@pytest.fixture(scope="module")
def alone(make, tmp_path_factory) -> dict[str, Path]:
    made = {which: tmp_path_factory.mktemp("alone") / which for which in GENERATORS}
    for which, views in made.items():
        summary = make(which, views)
        assert (summary.written, summary.failed) == (10, 2)
        merge_journals(views)
    return made


def assert_the_same(views: Path, alone: Path) -> None:
    content = [{path.name: path.read_bytes() for path in folder.glob("*.png")} for folder in (views, alone)]
    assert content[0] == content[1]
    assert len(set(content[0].values())) == len(content[0])
    assert merge_journals(views).read_bytes() == (alone / "manifest.parquet").read_bytes()
    assert verify_views(views, check_bytes=True).clean


@pytest.mark.parametrize("which", GENERATORS)
def test_shards_write_the_same_files(make, alone, tmp_path, which):
    for shard in range(3):
        make(which, tmp_path, shard=(shard, 3))
    assert_the_same(tmp_path, alone[which])


@pytest.mark.slow
@pytest.mark.parametrize("which", GENERATORS)
def test_processes_write_the_same_files(make, alone, tmp_path, which):
    make(which, tmp_path, devices=["cpu", "cpu"], workers=2)
    assert_the_same(tmp_path, alone[which])


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'ray[data]'")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("which", GENERATORS)
def test_ray_writes_the_same_files(make, alone, tmp_path, which, cluster):
    make(which, tmp_path, engine="ray", actors=2)
    assert_the_same(tmp_path, alone[which])


def test_the_command_measures_statistics(bases, adapters, images, tmp_path, capsys):
    out = tmp_path / "new" / "statistics.safetensors"
    files = ["--model", str(bases["sd"]), "--adapter", str(adapters / "models" / "ip-adapter_sd15.safetensors")]
    measure = ["statistics", str(images), "--out", str(out), "--count", "4", "--device", "cpu"]
    assert run([*measure, "--generator", "ip-adapter", *files]) == 0
    assert str(out) in capsys.readouterr().out and out.stat().st_size > 100
