"""Images of other than three channels: embedded, learned, generated and written like RGB."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from genviews_core.channels import read_channels
from genviews_core.multiband import encode_tiff
from viewgen import ImageEncoder, contact_sheet, eldm, embed_images, generate_views, merge_journals, verify_views
from viewgen.eldm import ELDMGenerator, train_autoencoder, train_eldm
from viewgen.eldm.autoencoder import Autoencoder
from viewgen.formats import default_format
from viewgen.keys import read_key
from viewgen.run.worker import encode_view

pytest.importorskip("tifffile")
RANGE = (0.0, 1000.0, 0.0, 2000.0, 0.0, 3000.0, 0.0, 4000.0)
TINY = eldm.ELDMConfig(
    resolution=16, patch=2, network="dit", width=32, depth=1, heads=2, prediction="sample",
    beta_schedule="squaredcos_cap_v2", steps=3, batch_size=4, learning_rate=2e-3, warmup_steps=1,
)  # fmt: skip
VAE = eldm.AutoencoderConfig(
    resolution=16, channels=(8, 8), layers_per_block=1, norm_groups=4, steps=2, batch_size=2, warmup_steps=1,
    adversarial_weight=0.5, discriminator_channels=8, discriminator_layers=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root, draw = tmp_path_factory.mktemp("channels") / "images", np.random.default_rng(0)
    root.mkdir()
    for number in range(6):
        pixels = draw.integers(0, 1000 * (1 + np.arange(4)), (16, 16, 4)).astype(np.uint16)
        (root / f"{number}.tif").write_bytes(encode_tiff(pixels))
    return root


def make_encoder() -> ImageEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64, 12))
    return ImageEncoder(network, size=16, mean=(0.5,) * 4, std=(0.2,) * 4, value_range=RANGE)


@pytest.fixture(scope="module")
def embeddings(images):
    return embed_images(images, images.parent / "embeddings", make_encoder())


@pytest.fixture(scope="module")
def model(images, embeddings):
    return train_eldm(images, embeddings, images.parent / "eldm", TINY)


def test_embeddings_are_those_of_the_scaled_channels(images, embeddings):
    assert (embeddings.channels, embeddings.encoder_value_range) == (4, RANGE)
    pixels = torch.stack([read_key(images, key, 16, channels=4, value_range=RANGE) for key in embeddings.keys])
    np.testing.assert_allclose(embeddings.vectors, make_encoder()(pixels).numpy(), rtol=1e-2, atol=1e-2)
    other = make_encoder()
    other.value_range = (0.0, 65535.0)
    with pytest.raises(ValueError, match="to have encoder_value_range"):
        embed_images(images, images.parent / "embeddings", other)


def test_the_model_generates_the_channels_it_has_learned(model, embeddings):
    generator = ELDMGenerator(model, steps=2)
    assert (generator.channels, generator.value_range, generator.latent_shape) == (4, RANGE, (4, 16, 16))
    views = generator.generate(torch.from_numpy(embeddings.vectors[:2].astype("float32")), seeds=[1, 2])
    assert views.shape == (2, 4, 16, 16) and views.dtype == torch.uint8


def test_views_are_tiffs_of_the_same_bytes_whoever_makes_them(images, model, embeddings, tmp_path):
    generator = ELDMGenerator(model, encoder=make_encoder(), from_image=True, steps=2)
    for name, more in (("first", {}), ("second", {"workers": 2})):
        summary = generate_views(images, tmp_path / name, generator, image_format="tif", batch_size=4, **more)
        assert (summary.written, summary.failed) == (6, 0)
    merge_journals(tmp_path / "first")
    assert verify_views(tmp_path / "first", check_bytes=True).clean
    for path in sorted((tmp_path / "first").glob("*.tif")):
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
        assert read_channels(path, 4).shape == (16, 16, 4)
    assert contact_sheet(images, tmp_path / "first", tmp_path / "sheet.png", count=2).is_file()


def test_formats_that_cannot_hold_the_channels_are_refused(images, model, embeddings, tmp_path):
    generator = ELDMGenerator(model, steps=2)
    with pytest.raises(ValueError, match="expected image_format 'tif' for views of 4 channels, got 'png'"):
        generate_views(images, tmp_path / "views", generator, embeddings=embeddings)
    assert [default_format(channels) for channels in (1, 2, 3, 4)] == ["png", "tif", "png", "tif"]


@pytest.mark.parametrize("image_format", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_gray_and_rgb_views_are_stored_exactly_in_either_format(channels, image_format, tmp_path):
    image = torch.randint(256, (channels, 5, 7), dtype=torch.uint8)
    encoded = encode_view(image, image_format)
    (tmp_path / f"a.{image_format}").write_bytes(encoded.data)
    assert (encoded.height, encoded.width) == (5, 7)
    np.testing.assert_array_equal(read_channels(tmp_path / f"a.{image_format}", channels), image.permute(1, 2, 0))


def test_latents_are_those_of_an_autoencoder_of_the_same_channels(images, embeddings, tmp_path):
    folder = train_autoencoder(images, tmp_path / "vae", VAE, channels=4, value_range=RANGE)
    latent = replace(TINY, latents=True, patch=1)
    model = train_eldm(images, embeddings, tmp_path / "eldm", latent, autoencoder=folder)
    generator = ELDMGenerator(model, steps=2)
    assert generator.channels == 4 and generator.latent_shape == (4, 8, 8)
    assert generator.generate(torch.zeros(1, 12), seeds=[0]).shape == (1, 4, 16, 16)
    with pytest.raises(ValueError, match="expected an autoencoder of images of 3 channels, got a AutoencoderKL of 4"):
        Autoencoder.load(folder)


def test_a_generator_of_other_channels_is_another_configuration(images, embeddings, model):
    record = (model / "training.json").read_text()
    assert '"image_channels": 4' in record
    assert "image_channels" not in str(eldm.preset("32-small"))
