"""MaskGITGenerator: masks, labels, seeds, composite, and what users get wrong."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from viewgen.encoder import ImageEncoder
from viewgen.generator import Generator
from viewgen.maskgit import MaskGITGenerator, MaskRule, center_mask, composite, load_tokenizer, load_transformer, save

# ImageNet_class_conditional_generator.composite_outputs, google-research/maskgit@1db2359, on the closed formula of
# conftest.py: values [0, 8:80:9, 40, 1] of the result
OFFICIAL_COMPOSITE = [0.63503, 0.6202, 0.67987, 0.60475, 0.72551, 0.68938, 0.77714, 0.59676]


@pytest.fixture
def make(official):
    def build(**options) -> MaskGITGenerator:
        files = {"tokenizer": official.tokenizer, "transformer": official.transformer}
        return MaskGITGenerator(**({"label": "fixed", "class_id": 2} | files | options))

    return build


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_a_view_does_not_depend_on_its_batch(make, images):
    for options in (
        {},
        {"mask": "random"},
        {"mask": "square"},
        {"mask": "reverse_crop"},
        {"composite": True, "group": 2},
    ):
        generator = make(**options)
        assert isinstance(generator, Generator)
        condition = generator.condition(images)
        views = generator.generate(condition, seeds=[5, 6, 7])
        assert views.shape == (3, 3, 16, 16)
        alone = generator.generate(generator.condition(images[2:]), seeds=[7])
        assert torch.equal(views[2:], alone)
        assert not torch.equal(alone, generator.generate(condition[2:], seeds=[8]))


def test_conditions_survive_a_half_precision_cache(make, images):
    for generator in (make(label="random", class_id=None), make(composite=True)):
        condition = generator.condition(images)
        cached = condition.to(torch.float16)
        assert torch.equal(generator.generate(cached, seeds=[1, 2, 3]), generator.generate(condition, seeds=[1, 2, 3]))


def test_nothing_painted_is_the_tokenizers_reconstruction(make, images, official):
    generator = make()
    views = generator.generate(generator.condition(images), seeds=[1, 2, 3], strength=torch.zeros(3))
    tokenizer = load_tokenizer(official.tokenizer)
    with torch.no_grad():
        direct = tokenizer.decode(tokenizer.encode(images / 255))
    assert (views - direct.clamp(0, 1) * 255).abs().max() < 0.51


def test_strength_is_each_views_masked_share(make, images):
    """Shares of three views in one batch give the masks of three separate generators."""
    generator = make()
    assert generator.strength_unit == "fraction masked"
    condition, shares = generator.condition(images), [0.25, 0.5625, 1.0]
    views = generator.generate(condition, seeds=[1, 2, 3], strength=torch.tensor(shares))
    for place, share in enumerate(shares):
        alone = make(masked_fraction=share).generate(condition[place : place + 1], seeds=[place + 1])
        assert torch.equal(views[place : place + 1], alone)


def test_masks_paint_what_they_say():
    ring = center_mask(16).view(16, 16)
    assert ring[1:15, 1:15].all()
    assert int(ring.sum()) == 196
    anywhere = [MaskRule(kind="square", grid=16, fraction=0.25).draw(seed).view(16, 16) for seed in range(40)]
    assert all(int(mask.sum()) == 64 and mask.any(0).sum() == 8 for mask in anywhere)
    assert len({tuple(mask.flatten().tolist()) for mask in anywhere}) > 20
    cells = MaskRule(kind="random", grid=16, fraction=0.3)
    assert all(int(cells.draw(seed).sum()) == 77 for seed in range(5))
    around = MaskRule(kind="reverse_crop", grid=16, fraction=0.75).draw(0).view(16, 16)
    assert int(around.sum()) == 192
    assert not around[4:12, 4:12].any()


def test_reverse_crop_shrinks_the_image_into_the_middle():
    image = torch.zeros(1, 3, 32, 32)
    image[..., :16] = 1
    canvas = MaskRule(kind="reverse_crop", grid=8, fraction=0.75).canvas(image)
    assert canvas.shape == image.shape
    assert (canvas[0, 0, 16, 8:14] > 0.9).all()
    assert (canvas[0, 0, 16, 18:24] < 0.1).all()
    assert torch.equal(canvas[0, 0, 0], canvas[0, 0, 8])  # edges go on outwards


def test_a_picture_is_a_mask(make, images, tmp_path):
    white = np.zeros((40, 40), np.uint8)
    white[:, 20:] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    generator = make(mask="file", mask_file=tmp_path / "mask.png", composite=True)
    assert generator.masks.draw(0).view(4, 4).tolist() == [[False, False, True, True]] * 4
    assert not hasattr(generator, "strength_unit")
    assert json.loads(json.dumps(generator.settings))["masked_cells"] == "3333"
    Image.fromarray(white * 0).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match="expected white cells"):
        make(mask="file", mask_file=tmp_path / "black.png")


def test_composite_is_the_official_one(formula):
    source = torch.from_numpy(formula(3000, (1, 256, 256, 3), 0.5, 0.5)).permute(0, 3, 1, 2)
    painted = torch.from_numpy(formula(3001, (1, 256, 256, 3), 0.6, 0.5)).permute(0, 3, 1, 2)
    mask = center_mask(16).clone().view(16, 16)
    mask[3:6, :9] = False
    result = composite(painted, source, mask.view(1, -1))
    assert np.abs(result[0, 1, 8:80:9, 40].numpy() - OFFICIAL_COMPOSITE).max() < 1e-4


def test_composite_keeps_the_sources_pixels(make, images):
    generator = make(composite=True)
    condition = generator.condition(images)
    assert condition.shape == (3, 1 + 16 + 3 * 16 * 16)
    views = generator.generate(condition, seeds=[1, 2, 3], strength=torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(views[0], images[0])
    assert torch.equal(views[1, :, 0], images[1, :, 0])
    assert not torch.equal(views[1, :, 4:12, 4:12], images[1, :, 4:12, 4:12])
    assert torch.equal(views[2:], make().generate(condition[2:, :17], seeds=[3], strength=torch.ones(1)))


def test_labels_by_key(make, images, tmp_path):
    keys = ["a/1.jpg", "a, b.jpg", "c.jpg"]
    (tmp_path / "labels.json").write_text(json.dumps(dict(zip(keys, [4, 0, 1], strict=True))))
    (tmp_path / "labels.csv").write_text('key,class\na/1.jpg,4\n"a, b.jpg",0\nc.jpg,1\n')
    for name in ("labels.json", "labels.csv"):
        generator = make(label="given", labels_file=tmp_path / name, class_id=None)
        assert generator.condition_for(keys, images)[:, 0].tolist() == [4, 0, 1]
        with pytest.raises(ValueError, match=r"got none for d\.jpg; add 1 rows"):
            generator.condition_for(["a/1.jpg", "d.jpg", "c.jpg"], images)
        with pytest.raises(ValueError, match=r"call condition_for\(keys, images\)"):
            generator.condition(images)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("l.json", '{"a.jpg": 5}', "integer class in 0..4 for 'a.jpg', got 5"),
        ("l.json", '{"a.jpg": true}', "got True"),
        ("l.json", "[1]", "expected a JSON object"),
        ("l.json", "{", "as JSON"),
        ("l.csv", "a.jpg,1\nb.jpg,-1\n", "got '-1'"),
        ("l.csv", "a.jpg,1\nb.jpg,cat\n", "got 'cat'"),
        ("l.csv", "a.jpg,1,2\n", "row 1: expected key,class, got 3 columns"),
    ],
)
def test_wrong_labels_files_are_told(make, tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=told.replace(".", r"\.")):
        make(label="given", labels_file=tmp_path / name, class_id=None)


def test_predicted_labels_are_the_classifiers(make, images, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("resnet10t", num_classes=5)
    timm.models.save_for_hf(network, tmp_path / "classifier")
    generator = make(label="predicted", classifier=str(tmp_path / "classifier"), class_id=None)
    images = (torch.arange(12)[:, None, None, None] * images[0] * 7).to(torch.uint8)
    expected = ImageEncoder(network, size=network.pretrained_cfg["input_size"][-1])(images).argmax(1)
    assert len(set(expected.tolist())) > 1
    assert torch.equal(generator.condition(images)[:, 0].long(), expected)
    assert generator.settings["classifier_hash"]
    timm.models.save_for_hf(timm.create_model("resnet10t", num_classes=7), tmp_path / "other")
    with pytest.raises(ValueError, match=r"of 5 classes, got .* with 7"):
        make(label="predicted", classifier=str(tmp_path / "other"), class_id=None)
    with pytest.raises(ValueError, match="cannot load the classifier 'no_such_network'"):
        make(label="predicted", classifier="no_such_network", class_id=None)


def test_random_labels_are_drawn_from_the_seed(make, images):
    random = make(label="random", class_id=None)
    condition = random.condition(images[:1])
    painted = {tuple(random.generate(condition, seeds=[seed]).flatten().tolist()) for seed in (1, 1, 2)}
    assert len(painted) == 2
    same = [make(class_id=label) for label in range(5)]
    fixed = [generator.generate(generator.condition(images[:1]), seeds=[1]) for generator in same]
    assert sum(torch.equal(random.generate(condition, seeds=[1]), view) for view in fixed) == 1


def test_what_the_manifest_says(make, mage, official, tmp_path):
    generator = make()
    assert (generator.supervision, generator.input_size, generator.name) == ("labels", 16, "maskgit")
    assert "Apache-2.0" in generator.licence
    save(load_tokenizer(official.tokenizer), tmp_path / "tokenizer.safetensors")
    save(load_transformer(official.transformer, codes=24), tmp_path / "transformer.safetensors")
    copy = make(tokenizer=tmp_path / "tokenizer.safetensors", transformer=tmp_path / "transformer.safetensors")
    assert copy.model_hash == generator.model_hash
    assert make(class_id=3).settings != generator.settings


def test_mage_needs_no_labels(mage, tmp_path):
    from viewgen.maskgit import load_mage

    save(load_mage(mage.path, codes=mage.codes, heads=mage.heads), tmp_path / "mage.safetensors")
    files = {"tokenizer": mage.path, "transformer": tmp_path / "mage.safetensors"}
    generator = MaskGITGenerator(**files, label="none", steps=3)
    assert (generator.supervision, generator.input_size) == ("none", 64)
    images = torch.randint(256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    condition = generator.condition(images)
    assert condition[:, 0].tolist() == [76, 76]
    views = generator.generate(condition, seeds=[1, 2])
    assert torch.equal(views[1:], generator.generate(condition[1:], seeds=[2]))
    with pytest.raises(ValueError, match='expected label="none", as MAGE knows no labels'):
        MaskGITGenerator(**files, label="fixed", class_id=1)


def test_half_precision_paints_the_same_mask(make, images):
    exact, half = make(), make(dtype="bfloat16")
    condition = exact.condition(images)
    assert torch.equal(condition, half.condition(images))
    untouched = torch.zeros(3)
    first, second = (g.generate(condition, seeds=[1, 2, 3], strength=untouched).int() for g in (exact, half))
    assert (first - second).abs().float().mean() < 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"label": "fixed", "class_id": None}, 'expected class_id with label="fixed"'),
        ({"label": "random"}, 'expected class_id to be None with label="random"'),
        ({"label": "none", "class_id": None}, 'expected label="given"'),
        ({"label": "given", "class_id": None}, 'expected labels_file with label="given"'),
        ({"class_id": 5}, r"class_id in 0\.\.4, got 5"),
        ({"class_id": -1}, r"class_id in 0\.\.4, got -1"),
        ({"mask": "file"}, "if and only if mask_file is given"),
        ({"masked_fraction": 1.5}, "expected a masked_fraction in"),
        ({"masked_fraction": float("nan")}, "expected a masked_fraction in"),
        ({"group": 0}, "expected group of 1 or more images"),
        ({"start": 12}, "expected start in"),
        ({"steps": 0}, "expected start in"),
    ],
)
def test_wrong_options_are_told(make, options, told):
    with pytest.raises(ValueError, match=told):
        make(**options)


def test_wrong_inputs_are_told(make, images):
    generator = make()
    condition = generator.condition(images)
    with pytest.raises(ValueError, match=r"expected 16 x 16 images, got \(8, 8\)"):
        generator.condition(images[..., :8, :8])
    with pytest.raises(ValueError, match="expected the images"):
        generator.condition_for(["a"], None)
    with pytest.raises(ValueError, match=r"of 2 x 17 .*, got \(3, 17\)"):
        generator.generate(condition, seeds=[1, 2])
    with pytest.raises(ValueError, match=r"of 3 x 785 .*codes and pixels"):
        make(composite=True).generate(condition, seeds=[1, 2, 3])
    for strength in (torch.tensor([0.1, 0.2, 1.1]), torch.tensor([0.1, 0.2, float("nan")])):
        with pytest.raises(ValueError, match="per view, got"):
            generator.generate(condition, seeds=[1, 2, 3], strength=strength)
    with pytest.raises(ValueError, match="expected no strength"):
        make(mask="reverse_crop").generate(condition, seeds=[1, 2, 3], strength=torch.zeros(3))
    for wrong in (condition + 20, condition.float() + 0.5, condition.float() * float("nan")):
        with pytest.raises(ValueError, match="expected classes and codes"):
            generator.generate(wrong, seeds=[1, 2, 3])
