"""Guidance at some steps only, against a slow reference; and folders of another kind."""

import json
import shutil

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from tiny_diffusion import difference, random_images
from torch.nn.functional import cosine_similarity

from viewgen.diffusion.sampling import Guidance, GuidedNetwork
from viewgen.image_to_image import ImageToImageGenerator

SCALE = torch.tensor([3.0, 1.0, 7.0, 2.0])


def network(latents, timestep, conditions):
    """Nonlinear, and different for each condition and time."""
    time = timestep.view(-1, *[1] * (latents.ndim - 1)) / 1000 if timestep.ndim else timestep / 1000
    return (latents * conditions["wave"]).sin() + time * conditions["wave"]


def make(guidance: Guidance, **options) -> GuidedNetwork:
    draws = torch.Generator().manual_seed(0)
    given, none = (torch.randn(4, 2, 3, 3, generator=draws) for _ in range(2))
    return GuidedNetwork(network, {"wave": given}, {"wave": none}, SCALE, guidance, 1000)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize(
    "guidance",
    [Guidance(), Guidance(interval=(0.2, 0.7)), Guidance(reuse=3), Guidance(stop=0.2), Guidance(reuse=2, stop=0.4)],
)
def test_guidance_is_the_definition_for_each_image(guidance, per_image):
    guided = make(guidance)
    latents = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    stopped, direction = [False] * 4, [torch.zeros(2, 3, 3)] * 4
    fresh = saved = 0
    for step, timestep in enumerate([900.0, 650.0, 500.0, 300.0, 100.0]):
        times = (
            torch.tensor([timestep, timestep - 50, timestep - 99, timestep]) if per_image else torch.tensor(timestep)
        )
        predicted = guided(latents, times)
        for row in range(4):
            time = times[row] if per_image else times
            given, none = (
                network(latents[row], time, {"wave": held["wave"][row]}) for held in (guided.given, guided.none)
            )
            inside = guidance.interval[0] <= (float(time) + 1) / 1000 <= guidance.interval[1]
            expected = given
            if inside and not stopped[row] and SCALE[row] != 1:
                if step % guidance.reuse == 0:
                    direction[row] = given - none
                    if cosine_similarity(none.flatten(), given.flatten(), dim=0) >= guidance.stop:
                        stopped[row] = True
                    fresh += 1
                else:
                    saved += 1
                expected = given + (SCALE[row] - 1) * direction[row]
            torch.testing.assert_close(predicted[row], expected, atol=1e-4, rtol=1e-4)
    assert fresh > 0 and (saved > 0) == (guidance.reuse > 1)


@pytest.mark.parametrize(
    "wrong", [{"interval": (0.5, 0.5)}, {"interval": (-0.1, 1.0)}, {"reuse": 0}, {"stop": 0.0}, {"stop": 1.5}]
)
def test_wrong_guidance_is_one_line(wrong):
    with pytest.raises(ValueError, match="expected guidance_"):
        Guidance(**wrong)


@pytest.fixture
def copy(bases, tmp_path):
    return shutil.copytree(bases["sd"], tmp_path / "copy")


def load(folder, **options):
    return ImageToImageGenerator(model=folder, steps=2, **options)


def test_a_tiny_autoencoder_replaces_the_models_own(bases, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        ).save_pretrained(tmp_path / "tiny")
    generator = load(bases["sdxl"], vae=tmp_path / "tiny", guidance_interval=(0.0, 0.5))
    assert generator.model_hash != load(bases["sdxl"]).model_hash
    assert generator.settings["guidance_interval"] == [0.0, 0.5] and "guidance_reuse" not in generator.settings
    views = generator.generate(generator.condition(random_images(2, 16, 16)), seeds=[1, 2])
    assert views.shape == (2, 3, 16, 16)


def test_an_autoencoder_of_other_channels_is_one_line(bases, tmp_path):
    AutoencoderTiny(
        latent_channels=16,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(tmp_path / "tiny")
    with pytest.raises(ValueError, match="expected an autoencoder of 4 latent channels, as the UNet's, got 16"):
        load(bases["sd"], vae=tmp_path / "tiny")


def test_unet_weights_replace_the_models_own(bases, copy, tmp_path):
    weights = load_file(copy / "unet" / "diffusion_pytorch_model.safetensors")
    weights = {name: value * 1.05 for name, value in weights.items()}
    save_file(weights, tmp_path / "lightning.safetensors")
    other, own = load(copy, unet_weights=tmp_path / "lightning.safetensors"), load(copy)
    condition = own.condition(random_images(1, 16, 16))
    assert difference(own.pixels(condition, seeds=[1]), other.pixels(condition, seeds=[1])) > 1e-3
    assert own.model_hash != other.model_hash
    weights.pop("conv_in.bias")
    save_file(weights, tmp_path / "lightning.safetensors")
    with pytest.raises(ValueError, match=r"do not fit the base: 1 of \d+ are missing"):
        load(copy, unet_weights=tmp_path / "lightning.safetensors")


def wrong_folder(copy, damage):
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    if damage == "another pipeline":
        shutil.rmtree(copy / "text_encoder")
        (copy / "transformer").mkdir()
        (copy / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    elif damage == "no pipeline":
        shutil.rmtree(copy)
        copy.mkdir()
    elif damage == "missing key":
        weights = load_file(file)
        weights.pop("conv_in.bias")
        save_file(weights, file, metadata={"format": "pt"})
    elif damage == "variant alone":
        file.rename(file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    elif damage == "half":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "pickle":
        file.rename(file.with_name("diffusion_pytorch_model.bin"))


MESSAGES = {
    "another pipeline": r"got .* \(a FluxPipeline\), which lacks text_encoder",
    "no pipeline": r"got .* \(no pipeline\), which lacks scheduler, text_encoder",
    "missing key": r"unet do not match its config.json: 1 missing \(conv_in.bias\)",
    "variant alone": r"got the variant fp16 alone; give variant='fp16'",
    "half": r"cannot read the weights in .*unet",
    "pickle": r"expected .safetensors weights in .*unet, got none",
}


@pytest.mark.parametrize("damage", MESSAGES)
def test_a_folder_that_does_not_fit_is_one_line(copy, damage):
    wrong_folder(copy, damage)
    with pytest.raises(ValueError, match=MESSAGES[damage]) as error:
        load(copy)
    assert "\n" not in str(error.value)
    if damage == "variant alone":
        load(copy, variant="fp16")
