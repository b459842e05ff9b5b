"""How like an image its positives are, and what they cost, for any views and any encoder."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import sslzoo
import viewgen
from benchmarks.cost_benefit import manifest_reader, similarity
from pairdata import write_scenes
from ssl_eval import Result, append_result, read_results
from tests.in_process import run_program
from viewgen import ImageEncoder, embed_images, generate_views, merge_journals
from viewgen.manifest import open_manifest

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
        merge_journals(root)
        return root

    return make


def run(*arguments: object, expect: int = 0) -> str:
    """Run the program in this process and return what it printed."""
    return run_program("benchmarks/cost_benefit", *arguments, expect=expect)


def cost(*arguments: object) -> dict[str, dict[str, str]]:
    """The table of costs by row name and column."""
    lines = [line.strip("┃│ ") for line in run("cost", *arguments).splitlines() if "┃" in line or "│" in line]
    head, *rows = [[part.strip() for part in line.replace("┃", "│").split("│")] for line in lines]
    return {row[0]: dict(zip(head[1:], row[1:], strict=False)) for row in rows}


def test_the_mean_is_the_one_that_a_loop_finds(images, views, tmp_path, monkeypatch):
    torch.manual_seed(0)
    encoder = ImageEncoder(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 8)), size=32)
    root = views(0.5)
    kept = [embed_images(folder, tmp_path / f"embedded-{folder.name}", encoder) for folder in (images, root)]
    cosines = []
    for row, path in enumerate(kept[1].keys):
        image = kept[0].vectors[kept[0].keys.row(path.rsplit(".", 2)[0])].astype(float)
        view = kept[1].vectors[row].astype(float)
        cosines.append(image @ view / math.sqrt(image @ image) / math.sqrt(view @ view))
    for at_once in (manifest_reader.ROWS, 7):
        monkeypatch.setattr(manifest_reader, "ROWS", at_once)
        found = similarity.measure_similarity(*kept, open_manifest(root))
        assert (found.views, found.lost) == (48, 0)
        assert found.mean == pytest.approx(np.mean(cosines), abs=1e-12)
        assert found.deviation == pytest.approx(np.std(cosines), abs=1e-12)
        assert found.other < found.mean


def test_views_by_clip_from_a_file_of_weights(images, views, tmp_path, monkeypatch):
    import open_clip

    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny-clip.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(tmp_path / "configs")
    torch.save(open_clip.create_model("tiny-clip").state_dict(), tmp_path / "clip.pt")
    near, far = views(0.1), views(0.9)
    printed = run(images, near, far, "--encoder", f"open_clip/tiny-clip:{tmp_path / 'clip.pt'}", "--device", "cpu")
    rows = [line.split("│") for line in printed.splitlines() if "│" in line]
    assert [int(row[2]) for row in rows] == [48, 48]
    assert float(rows[0][3]) > float(rows[1][3])
    unknown = run(images, near, "--encoder", "open_clip/no-such-model:tag", "--device", "cpu", expect=1)
    assert unknown.strip().splitlines()[-1].startswith("error: expected open_clip/MODEL:TAG")


def test_the_table_of_costs_has_ours_beside_the_published(images, views, backbone, tmp_path):
    near, far, out = views(0.1), views(0.6), tmp_path / "results" / "views.jsonl"
    linear = {"metric": "top1", "protocol": "p", "backbone": "b", "data": "d", "machine": "m", "seconds": 1.0}
    for seed, value in enumerate((60.0, 62.0)):
        append_result(
            tmp_path / "linear.jsonl", Result(task="linear", value=value, seed=seed, recipe=near.name, **linear)
        )
    options = ["--features", backbone, "--encoder", backbone, "--timed", 4, "--device", "cpu"]
    table = cost(images, near, far, *options, "--results", tmp_path / "linear.jsonl", "--out", out)
    assert list(table) == [near.name, far.name, "crop", "jitter", "blur", "ICGAN, noise-based", "MaskGIT, mask-based"]
    assert table[near.name]["linear top-1"] == "61.00 ± 1.41 (2)" and table["crop"]["linear top-1"] == "(35.0)"
    assert table["ICGAN, noise-based"] == {
        "pairs": "", "linear top-1": "(54.4)", "FID": "(21.13)", "SSIM": "(0.21)", "cosine": "", "ms": "(19.82)",
        "parameters": "(116M)",
    }  # fmt: skip
    assert [table[name]["pairs"] for name in (near.name, far.name, "blur")] == ["48", "48", "24"]
    found = {(result.recipe, result.metric): result.value for result in read_results(out)}
    for measure, smaller, larger in (("fid", near, far), ("ssim", far, near), ("cosine", far, near)):
        assert found[smaller.name, measure] < found[larger.name, measure]
    for name in ("crop", "jitter", "blur"):
        ours, published = table[name]["ms"].split()
        assert float(ours) == pytest.approx(found[name, "milliseconds"], abs=0.006) and published[0] == "("
        assert table[name]["FID"].split()[0] == f"{found[name, 'fid']:.2f}"
    assert found["jitter", "ssim"] > found["crop", "ssim"]
    markdown = out.with_suffix(".md").read_text()
    assert f"FID by {backbone}" in markdown and "| (21.13) |" in markdown


def test_views_are_compared_with_the_image_of_their_row(images, views, tmp_path):
    """SSIM 1 for views that are their images, whatever the order of the manifest; broken files are counted."""
    root = views(0.0)
    table = cost(images, root, "--device", "cpu", "--count", 11, "--timed", 1)
    assert table[root.name]["SSIM"] == "1.000" and table[root.name]["pairs"] == table["blur"]["pairs"] == "11"
    assert table[root.name]["FID"] == "" and table["crop"]["FID"] == "(2.48)"
    sorted(root.rglob("*.png"))[5].write_bytes(b"broken")
    table = cost(images, root, "--device", "cpu", "--timed", 1)
    assert (table[root.name]["pairs"], table[root.name]["lost"]) == ("47", "1")


def test_an_augmentation_alone_is_what_its_name_says(images):
    from benchmarks.cost_benefit.augmentations import Augmenter, augmentations

    squares = torch.stack([viewgen.read_image(images / key, 64) for key in viewgen.list_images(images)])
    made = {name: Augmenter(name, augment, 0)(squares) for name, augment in augmentations(64).items()}
    again = Augmenter("jitter", augmentations(64)["jitter"], 0)(squares)
    assert torch.equal(made["jitter"], again)
    assert all(view.dtype == torch.uint8 and view.shape == squares.shape for view in made.values())
    assert all(not torch.equal(view, squares) for view in made.values())
    means = {name: view.float().mean((2, 3)) for name, view in made.items()}
    assert (means["blur"] - squares.float().mean((2, 3))).abs().max() < 3
    contrast = {name: view.float().std() for name, view in made.items()}
    assert contrast["blur"] < squares.float().std()


def test_generators_are_timed_by_the_words_of_viewgen_generate(images, tmp_path):
    embedded = embed_images(
        images, tmp_path / "pool", ImageEncoder(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), size=32)
    )
    words = f"--pool {embedded.folder} --pool-images {images} --output-size 32"
    root = tmp_path / "retrieved"
    generator = viewgen.load_generator("retrieval", pool=embedded.folder, pool_images=images, output_size=32)
    generate_views(images, root, generator)
    merge_journals(root)
    table = cost(images, root, "--generators", f"retrieved=retrieval {words}", "--timed", 5, "--device", "cpu")
    assert 0 < float(table["retrieved"]["ms"]) < 1000


def test_mistakes_in_the_table_of_costs_give_one_line(images, views, backbone, tmp_path):
    root = views(0.1)
    (tmp_path / "bare").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "bare" / "a.png")
    (tmp_path / "none.jsonl").touch()
    mistakes = {
        (images, tmp_path / "bare"): "run `viewgen index",
        (images, root, root): "got the same name twice",
        (images, root, "--inception", "a.pth", "--features", backbone): "give one of them",
        (images, root, "--inception", "no/such.pth"): "download it from https://github.com/mseitzer/pytorch-fid",
        (images, root, "--lpips", "no/such.pth"): "download torchvision's AlexNet",
        (images, root, "--features", "nothing"): "nothing",
        (images, root, "--results", tmp_path / "none.jsonl"): "expected linear top-1 results",
        (images, root, "--generators", "other=eldm"): "ROW is one of views-0.1",
        (images, root, "--generators", "views-0.1=nothing"): "got 'nothing'; give one of them",
        (images, root, "--generators", "views-0.1=retrieval --pol x"): "see viewgen generate --generator retrieval",
        (tmp_path / "nowhere", root): "nowhere",
        (images, root, "--size", 4): "at least 6 x 6 pixels",
    }
    for arguments, says in mistakes.items():
        line = run("cost", *arguments, "--device", "cpu", expect=1).splitlines()[-1]
        assert line.startswith("error: ") and says in line, line


def test_class_agreement_lies_between_other_images_and_the_images_themselves(images, views, tmp_path, backbone):
    """With a brightness classifier, views equal to their images keep the class, and black ones lose it."""
    root = tmp_path / "bright"
    for name, level in (("dark", 40), ("light", 200)):
        (root / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (32, 32), (level + number,) * 3).save(root / name / f"{number}.png")
    same, inverted = tmp_path / "same", tmp_path / "inverted"
    for place, change in ((same, lambda images: images), (inverted, lambda images: 255 - images)):
        generator = Faded(0.0)
        generator.condition = lambda images, change=change: change(images).float()
        generate_views(root, place, generator)
        merge_journals(place)
    file = tmp_path / "classifier.pt"
    write_classifier(file)
    printed = run("agreement", root, same, inverted, "--classifier", file, "--device", "cpu", "--out", tmp_path / "o")
    found = {result.recipe: result.value for result in read_results(tmp_path / "o")}
    assert found["the images"] == found["same"] == 100 and found["inverted"] == 0 and "100.0" in printed
    assert 0 < found["views of other images"] < 100
    by_votes = ("--classifier", backbone, "--labelled", root)
    run("agreement", root, same, *by_votes, "--device", "cpu", "--out", tmp_path / "votes")
    assert {result.recipe: result.value for result in read_results(tmp_path / "votes")}["the images"] == 100


def write_classifier(path: Path) -> None:
    """Write a ResNet-20 that classifies dark and light images."""
    network = sslzoo.create_backbone("resnet20").eval()
    with torch.no_grad():
        levels = (torch.tensor([40, 60, 180, 205]) / 255 - 0.45) / 0.225
        features = network(levels[:, None, None, None].expand(-1, 3, 32, 32))
        direction = features[2:].mean(0) - features[:2].mean(0)
        weight = torch.stack([-direction, direction])
        offset = -(features.mean(0) @ direction)
    tensors = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    head = {"module.linear.weight": weight, "module.linear.bias": torch.stack([-offset, offset])}
    torch.save({"state_dict": tensors | head}, path)


def test_agreement_table_errors_are_one_line(images, views, tmp_path, backbone):
    root, file = views(0.1), tmp_path / "classifier.pt"
    write_classifier(file)
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("RGB", (8, 8)).save(flat / "a.png")
    torch.save({"state_dict": sslzoo.create_backbone("resnet18").state_dict()}, tmp_path / "headless.pt")
    mistakes = {
        (flat, root, "--classifier", file): "two class folders",
        (images, root, "--classifier", file): "got one of 2",
        (images, root, "--classifier", tmp_path / "headless.pt"): "without a linear layer",
        (images, root, "--classifier", backbone): "with --labelled",
        (tmp_path / "no", root, "--classifier", file): "expected a folder of images",
    }
    for arguments, says in mistakes.items():
        line = run("agreement", *arguments, "--device", "cpu", expect=1).splitlines()[-1]
        assert line.startswith("error: expected ") and says in line, line
