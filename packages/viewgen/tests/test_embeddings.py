import errno
import json
import os
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from genviews_core.backbones import backbone_hash
from genviews_core.files import WriteError
from genviews_core.lock import lock_folder
from viewgen import (
    ConditionEncoder,
    Embeddings,
    ImageEncoder,
    embed_images,
    generate_views,
    list_images,
    load_encoder,
    read_image,
)


@pytest.fixture
def encoder(make_encoder):
    return lambda module=None: ImageEncoder(module or make_encoder(), size=16)


class Stopping(nn.Module):
    """Interrupts at its n-th batch, as a kill would."""

    def __init__(self, inner, after):
        super().__init__()
        self.inner, self.left = inner, after

    def forward(self, images):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.inner(images)

    def state_dict(self, *args, **kwargs):
        return self.inner.state_dict(*args, **kwargs)


def test_vectors_are_the_encoders_own(images, embeddings, encoder, tiny_encoder):
    one_by_one = encoder(tiny_encoder)
    assert embeddings.keys == list_images(images)
    for row, key in enumerate(embeddings.keys):
        pixels = read_image(images / key)
        normalised = (pixels.double() / 255 - torch.tensor(one_by_one.mean).view(3, 1, 1)) / torch.tensor(
            one_by_one.std
        ).view(3, 1, 1)
        expected = tiny_encoder(normalised.float()[None])[0].detach().numpy()
        np.testing.assert_allclose(embeddings.vectors[row], expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("workers", [0, 2])
def test_interrupted_embedding_goes_on_to_the_same_bytes(images, tmp_path, encoder, make_encoder, workers):
    embed_images(images, tmp_path / "whole", encoder(), batch_size=3)
    for after in (0, 2, 1):
        with pytest.raises(KeyboardInterrupt):
            embed_images(images, tmp_path / "parts", encoder(Stopping(make_encoder(), after)), batch_size=3)
        with pytest.raises(ValueError, match="expected finished embeddings"):
            Embeddings.load(tmp_path / "parts")
        with (tmp_path / "parts" / "vectors.f16").open("ab") as file:
            file.write(b"torn")
    embed_images(images, tmp_path / "parts", encoder(), batch_size=3, workers=workers)
    for name in ("vectors.f16", "keys.jsonl", "failures.jsonl", "embeddings.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_unreadable_images_are_listed_and_left_out(images, tmp_path, encoder):
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images" / "broken.png").write_bytes(b"nothing")
    made = embed_images(tmp_path / "images", tmp_path / "out", encoder(), batch_size=4)
    assert made.keys.row("broken.png") is None
    assert len(made) == 14
    failures = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in failures] == ["broken.png"]


@pytest.mark.parametrize("name", ["embeddings.json", "keys.jsonl", "vectors.f16"])
@pytest.mark.parametrize("damage", [None, b"", b"[]", b"{}", b'"a"\n"b"\n'])
def test_damaged_embeddings_are_a_one_line_error(embeddings, tmp_path, name, damage):
    folder = shutil.copytree(embeddings.folder, tmp_path / "damaged")
    (folder / name).unlink()
    if damage is not None:
        (folder / name).write_bytes(damage)
    with pytest.raises(ValueError, match=r"damaged|expected finished embeddings") as error:
        Embeddings.load(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_another_encoder_or_other_images_are_refused(images, tmp_path, encoder, make_encoder, write_images):
    embed_images(images, tmp_path / "out", encoder())
    other = make_encoder()
    other[2].bias.data += 1e-3
    with pytest.raises(ValueError, match="another encoder"):
        embed_images(images, tmp_path / "out", encoder(other))
    write_images(tmp_path / "more", 15)
    with pytest.raises(ValueError, match="other images"):
        embed_images(tmp_path / "more", tmp_path / "out", encoder())


def test_hash_sees_buffers_names_and_types():
    norm = nn.BatchNorm1d(3)
    before = backbone_hash(norm)
    norm.running_mean += 1
    assert backbone_hash(norm) != before
    assert backbone_hash(nn.Linear(2, 2).half()) != backbone_hash(nn.Linear(2, 2))


def test_encoder_is_frozen_and_resizes(encoder):
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4), nn.Dropout(0.5))
    wrapped = encoder(module)
    module.train()
    images = torch.randint(0, 256, (2, 3, 40, 24), dtype=torch.uint8)
    assert torch.equal(wrapped(images), wrapped(images))
    assert not wrapped(images).requires_grad


def test_what_is_no_encoder_is_refused(images, tmp_path, encoder):
    with pytest.raises(ValueError, match="one vector per image"):
        embed_images(images, tmp_path, encoder(nn.Conv2d(3, 4, 3)))
    with pytest.raises(ValueError, match=r"a folder with backbone.json, got encoder 'resnet18'"):
        load_encoder("resnet18")
    with pytest.raises(ValueError, match="timm has no weights called no_such_model"):
        load_encoder("timm/no_such_model")


class Colours:
    """A generator whose condition is an image's mean colour, of images cut to eight pixels."""

    name = model_id = "colours"
    supervision, licence, model_hash = "none", "CC0", "abc"

    def prepare(self, image):
        return image[:, :8, :8]

    def encode(self, prepared):
        return prepared.float().mean(dim=(2, 3))

    def condition(self, images):
        return self.encode(torch.stack([self.prepare(image) for image in images]))

    def generate(self, condition, *, seeds, strength=None):
        return condition.round().byte().view(-1, 3, 1, 1).expand(-1, 3, 4, 4)


def test_conditions_of_a_generator_are_kept_and_used_again(images, tmp_path):
    kept = embed_images(images, tmp_path / "kept", ConditionEncoder(Colours()), batch_size=4, workers=2)
    assert (kept.encoder_hash, kept.encoder_size, kept.dim) == ("abc", None, 3)
    generate_views(images, tmp_path / "direct", Colours())
    generate_views(images, tmp_path / "from-kept", Colours(), embeddings=kept)
    for key in list_images(images):
        direct, from_kept = (read_image(tmp_path / views / f"{key}.0.png") for views in ("direct", "from-kept"))
        assert (direct.int() - from_kept.int()).abs().max() <= 1  # kept in float16


def test_conditions_that_are_no_vectors_are_not_kept(images, tmp_path):
    tokens = Colours()
    tokens.encode = lambda prepared: prepared.long().flatten(1)
    with pytest.raises(ValueError, match="expected vectors as conditions"):
        embed_images(images, tmp_path, ConditionEncoder(tokens))


def test_one_process_at_a_time_embeds_and_a_full_disk_is_a_one_line_error(images, tmp_path, encoder, monkeypatch):
    with lock_folder(tmp_path / "out"), pytest.raises(ValueError, match="out is being written by"):
        embed_images(images, tmp_path / "out", encoder())

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match="the disk is full; free some space and run again"):
            embed_images(images, tmp_path / "out", encoder(), batch_size=2)
    assert not list((tmp_path / "out").glob("*.tmp")) and not (tmp_path / "out" / ".lock").exists()
    made = embed_images(images, tmp_path / "out", encoder(), batch_size=2)
    assert np.array_equal(made.vectors, embed_images(images, tmp_path / "other", encoder(), batch_size=2).vectors)
    with pytest.raises(WriteError, match="cannot write /proc/x/y: the folder cannot be created"):
        embed_images(images, "/proc/x/y", encoder())
