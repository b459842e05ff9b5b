"""The contract between the libraries: views of every viewgen generator can be read by pairdata, used for training with
every policy, packed and inspected.

The networks are tiny, with random weights in their official formats, from viewgen's tests.
"""

import dataclasses
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d, normalize

import sslzoo
import viewgen
from genviews.pretraining.views import make_interpolated, make_views
from genviews.recipes import RECIPES
from pairdata import FFCVLoader, FolderLoader, ViewsIndex
from sslzoo.methods import GenDINO, Method, SimCLR
from tests.in_process import run_program
from viewgen import ConditionEncoder, Embeddings, ImageEncoder, Interpolation, eldm, embed_images, generate_views
from viewgen.icgan.features import FeatureExtractor, central_square

ROOT = Path(__file__).resolve().parent.parent
COUNT, SIZE = 6, 32
POLICIES = {"genview": "small-simclr", "gencl": "small-simclr", "gensis": "small-gen-dino"}


def viewgen_test(name: str) -> ModuleType:
    """Import a module of viewgen's tests that builds tiny networks."""
    path = ROOT / "packages" / "viewgen" / "tests" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"contract_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TinyFeatures(FeatureExtractor):
    """Replacement for IC-GAN's ResNet-50: normalized mean colors of 2 x 4 patches."""

    def __init__(self):
        """Load no weights."""

    def prepare(self, image):
        return central_square(image, 32)

    def encode(self, prepared):
        return normalize(adaptive_avg_pool2d(prepared.float(), (2, 4)).flatten(1) + 1)


def open_unclip(root: Path, embeddings: Embeddings) -> viewgen.Generator:
    from diffusers import StableUnCLIPImg2ImgPipeline

    StableUnCLIPImg2ImgPipeline(**viewgen_test("diffusion/test_unclip").make_parts()).save_pretrained(root / "unclip")
    return viewgen.load_generator("unclip", model=root / "unclip", steps=2, output_size=None)


def open_icgan(root: Path, embeddings: Embeddings) -> viewgen.Generator:
    from viewgen.icgan import ICGANConfig
    from viewgen.icgan.checkpoint import checkpoint_shapes

    config = ICGANConfig(channels=(32, 32, 16, 16), attention=(1,), chunk=10, embedded=16, features=24)
    shapes = checkpoint_shapes(config).items()
    torch.save({name: torch.rand(shape) + 0.5 * name.endswith("stored_var") for name, shape in shapes}, root / "g.pth")
    generator = viewgen.load_generator("icgan", weights=root / "g.pth")
    generator.extractor = TinyFeatures()
    return generator


def open_maskgit(root: Path, embeddings: Embeddings) -> viewgen.Generator:
    tiny = viewgen_test("maskgit/conftest")
    files = {
        "tokenizer": tiny.write_flax(root / "tokenizer", tiny.flax_weights(tiny.tokenizer_shapes())),
        "transformer": tiny.write_flax(root / "transformer", tiny.flax_weights(tiny.transformer_shapes())),
    }
    return viewgen.load_generator("maskgit", **files, label="fixed", class_id=2, steps=2)


def open_eldm(root: Path, embeddings: Embeddings) -> viewgen.Generator:
    config = dataclasses.replace(viewgen_test("conftest").TINY, steps=2, batch_size=2)
    eldm.train_eldm(root / "images", embeddings, root / "eldm", config)
    return viewgen.load_generator("eldm", folder=root / "eldm", encoder=colours(), steps=2)


def open_retrieval(root: Path, embeddings: Embeddings) -> viewgen.Generator:
    return viewgen.load_generator("retrieval", pool=embeddings.folder, pool_images=root / "images", output_size=SIZE)


def open_caption(root: Path, embeddings: Embeddings) -> viewgen.Generator:
    tiny = viewgen_test("test_caption")
    tiny.save_blip(root / "blip")
    tiny.save_painter(root / "painter")
    files = {"captioner": root / "blip", "model": root / "painter"}
    return viewgen.load_generator("caption", **files, steps=2, max_tokens=3, input_size=None)


OPEN = {name.removeprefix("open_"): made for name, made in globals().items() if name.startswith("open_")}


def colours() -> torch.nn.Module:
    """A tiny deterministic encoder of 16 px images."""
    return viewgen_test("conftest").make_encoder()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Images of two classes, two of them with unusual names, and their embeddings."""
    root = tmp_path_factory.mktemp("contract")
    viewgen_test("conftest").write_images(root / "images", COUNT, side=40)
    for old, new in (("even/000.png", "even/ü <&>.png"), ("odd/001.png", "odd/a\n'b.png")):
        (root / "images" / old).rename(root / "images" / new)
    embed_images(root / "images", root / "embedded", ImageEncoder(colours(), size=16, name="colours"), batch_size=4)
    return root


@pytest.fixture(scope="module", params=OPEN)
def views(request, root) -> Path:
    """Return a folder with one view of each image by a generator."""
    name, embeddings = request.param, Embeddings.load(root / "embedded")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = OPEN[name](root, embeddings)
    out = root / f"views-{name}"
    assert generate_views(root / "images", out, generator, batch_size=4).written == COUNT
    viewgen.merge_journals(out)
    assert viewgen.verify_views(out, check_bytes=True).clean
    return out


@pytest.fixture(scope="module")
def mixed(root) -> Path:
    """Return a folder of interpolated views by the tiny E-LDM."""
    generator = open_eldm(root, embeddings := Embeddings.load(root / "embedded"))
    generate_views(root / "images", root / "mixed", generator, embeddings=embeddings, interpolate=Interpolation())
    viewgen.merge_journals(root / "mixed")
    return root / "mixed"


def run(program: str, *arguments: object) -> str:
    """Run an app in this process and return what it printed."""
    return run_program(f"apps/{program}", *arguments)


def read(root: Path, **options: object) -> tuple[FolderLoader, object]:
    """Return a loader of the images, and its only batch."""
    loader = FolderLoader(root / "images", batch_size=COUNT, size=SIZE, **options)
    (batch,) = loader
    assert loader.failures == {} and loader.missing_views == 0
    return loader, batch


def test_pairdata_reads_the_views_that_viewgen_wrote(root, views):
    loader, batch = read(root, views=views, shuffle=False)
    assert batch.view_exists.all()
    rows = {row["key"]: row for row in pq.read_table(views / "manifest.parquet").to_pylist()}
    for place, index in enumerate(batch.index.tolist()):
        row = rows[loader.index.key(index)]
        assert batch.sizes[place, 1].tolist() == [row["height"], row["width"]]
        if (row["height"], row["width"]) == (SIZE, SIZE):
            assert torch.equal(batch.views[place, 0], viewgen.read_image(views / row["path"]))
    with pytest.raises(ValueError, match="expected interpolated views"):
        ViewsIndex(views, interpolated=True)


def test_a_retrieved_view_is_its_partner(root):
    """Its manifest row has the retrieved image as partner and no alpha; pairdata treats it as a regular view."""
    out, embeddings = root / "retrieved", Embeddings.load(root / "embedded")
    generate_views(root / "images", out, open_retrieval(root, embeddings))
    for row in pq.read_table(viewgen.merge_journals(out)).to_pylist():
        assert row["alpha"] is None and row["partner_key"] != row["key"]
        shown = viewgen.read_image(root / "images" / row["partner_key"], SIZE)
        assert torch.equal(viewgen.read_image(out / row["path"]), shown)
    assert read(root, views=out)[1].view_exists.all()


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_trains_a_step_on_the_views(root, views, mixed, policy):
    interpolated = {"interpolated": mixed} if policy == "gensis" else {}
    _, batch = read(root, views=views, **interpolated)
    made = RECIPES[POLICIES[policy]]()
    recipe = dataclasses.replace(made, policy=policy, view_probability=1.0)
    generator = torch.Generator().manual_seed(0)
    method = tiny_method(policy)
    extra = {}
    if policy == "gensis":
        assert batch.mixed.exists.all() and bool(((batch.mixed.alpha >= 0.3) & (batch.mixed.alpha <= 0.7)).all())
        extra["interpolated"] = make_interpolated(batch, recipe, generator)
    step(method, make_views(batch, recipe, generator), extra)


def tiny_method(policy: str) -> Method:
    torch.manual_seed(0)
    backbone = sslzoo.create_backbone("resnet10", cifar_stem=True, width=8, image_size=SIZE)
    return GenDINO(backbone, out_dim=64, hidden_dim=32) if policy == "gensis" else SimCLR(backbone)


def step(method: Method, views: list, extra: dict) -> None:
    """One step of gradient descent: the loss is finite, and the backbone moves."""
    before = [parameter.detach().clone() for parameter in method.backbone.parameters()]
    out = method(views, **extra)
    out["loss"].backward()
    torch.optim.SGD(method.parameters(), lr=0.1).step()
    method.after_step(0.5)
    assert out["loss"].isfinite()
    assert any(not torch.equal(old, new) for old, new in zip(before, method.backbone.parameters(), strict=True))


def test_apps_pack_keeps_the_views(root, views, mixed, tmp_path):
    arguments = ["--views", views, "--interpolated", mixed, "--size", SIZE, "--mode", "raw", "--workers", 0, "--verify"]
    printed = run("pack", root / "images", "--out", tmp_path / "records", *arguments)
    assert f"{COUNT} images, {COUNT} views" in printed and "verified" in printed
    _, theirs = read(root, views=views, interpolated=mixed)
    (ours,) = FFCVLoader(tmp_path / "records", batch_size=COUNT)
    for name in ("real", "views", "view_exists", "index", "label", "sizes"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    for name in ("interpolated", "partner", "alpha", "exists", "sizes"):
        assert torch.equal(getattr(ours.mixed, name), getattr(theirs.mixed, name)), name


def test_apps_inspect_and_show_draw_the_views(root, views, tmp_path):
    printed = run("inspect", root / "images", views, "--out", tmp_path / "report.html", "--tile", 24)
    assert f"{COUNT} of {COUNT} pairs" in printed
    assert "could not be read" not in (tmp_path / "report.html").read_text()
    viewgen.contact_sheet(root / "images", views, tmp_path / "sheet.png", tile=32)
    assert json.loads((views / "settings.json").read_text())["generator"] == views.name.removeprefix("views-")


def test_cached_conditions_give_the_same_views_up_to_rounding(root, tmp_path):
    """viewgen embed --generator, then viewgen generate --embeddings."""
    embeddings = Embeddings.load(root / "embedded")
    generator = open_eldm(root, embeddings)
    kept = embed_images(root / "images", tmp_path / "kept", ConditionEncoder(generator), batch_size=4)
    for name, given in (("a", None), ("b", kept)):
        generate_views(root / "images", tmp_path / name, generator, embeddings=given, batch_size=4)
    assert (kept.vectors == embeddings.vectors).all()
    (_, first), (_, second) = (read(root, views=tmp_path / name) for name in "ab")
    assert (first.views.int() - second.views.int()).abs().max() <= 2  # stored in half precision
