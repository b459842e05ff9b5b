"""LoRA files merged into a UNet, against the definition; files of another base."""

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from tiny_diffusion import difference, make_lora, make_unet, random_images

from viewgen.diffusion.lora import merge_lora
from viewgen.ip_adapter import IPAdapterGenerator


@pytest.fixture
def unet(bases) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(bases["sd"] / "unet", low_cpu_mem_usage=False)


@pytest.mark.parametrize(("naming", "alpha"), [("kohya", 2.0), ("peft", 4.0)])
def test_merging_adds_the_product_of_both_factors(unet, tmp_path, naming, alpha):
    lora = make_lora(unet, naming, rank=4, alpha=alpha)
    save_file(lora, tmp_path / "lora.safetensors")
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    merge_lora(unet, tmp_path / "lora.safetensors", scale=0.7)
    changed = set()
    for name, value in unet.state_dict().items():
        key = name.removesuffix(".weight")
        flat = f"lora_unet_{key.replace('.', '_')}" if naming == "kohya" else f"unet.{key}"
        down, up = (".lora_down", ".lora_up") if naming == "kohya" else (".lora_A", ".lora_B")
        expected = before[name]
        if f"{flat}{down}.weight" in lora:
            changed.add(name)
            one, other = lora[f"{flat}{up}.weight"], lora[f"{flat}{down}.weight"]
            expected = expected + 0.7 * alpha / 4 * torch.einsum("or...,ri...->oi...", one, other)
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)
    assert len(changed) == len(lora) // (3 if naming == "kohya" else 2) > 16


@pytest.mark.parametrize("naming", ["kohya", "peft"])
def test_equals_the_pipeline_s_own_lora(unet, bases, adapters, tmp_path, naming):
    pytest.importorskip("peft", reason="diffusers loads LoRA only with peft installed")
    save_file(make_lora(unet, naming), tmp_path / "lora.safetensors")
    adapter = "ip-adapter_sd15.safetensors"
    generator = IPAdapterGenerator(
        model=bases["sd"],
        adapter=adapters / "models" / adapter,
        lora=tmp_path / "lora.safetensors",
        lora_scale=0.8,
        distilled="lcm",
    )
    condition = generator.condition(random_images(1, 24, 24))
    pipe = StableDiffusionPipeline.from_pretrained(bases["sd"], low_cpu_mem_usage=False)
    pipe.load_ip_adapter(adapters, subfolder="models", weight_name=adapter, low_cpu_mem_usage=False)
    pipe.load_lora_weights(tmp_path, weight_name="lora.safetensors", adapter_name="distilled")
    pipe.set_adapters(["distilled"], adapter_weights=[0.8])
    pipe.scheduler = generator.base.scheduler
    theirs = pipe(
        prompt="",
        ip_adapter_image_embeds=[condition.unsqueeze(1)],
        generator=torch.Generator().manual_seed(3),
        num_inference_steps=4,
        guidance_scale=0,
        output_type="pt",
    ).images
    assert difference(generator.pixels(condition, seeds=[3]), theirs) < 1e-4
    plain = IPAdapterGenerator(model=bases["sd"], adapter=adapters / "models" / adapter, distilled="lcm")
    assert difference(plain.pixels(condition, seeds=[3]), theirs) > 0.01
    assert plain.model_hash != generator.model_hash


@pytest.mark.parametrize("naming", ["kohya", "peft"])
def test_a_lora_of_another_base_is_one_line(unet, tmp_path, naming):
    save_file(make_lora(make_unet("sdxl"), naming), tmp_path / "lora.safetensors")
    with pytest.raises(
        ValueError, match=r"does not fit this UNet: \d+ of 33 layers \(.*give the LoRA of this"
    ) as error:
        merge_lora(unet, tmp_path / "lora.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["half", "no lora", "text encoder", "lone factor"])
def test_a_file_that_is_no_lora_of_a_unet_is_one_line(unet, tmp_path, damage):
    path = tmp_path / "lora.safetensors"
    lora = make_lora(unet, "kohya")
    if damage == "no lora":
        lora = {"unet.conv_in.weight": torch.zeros(2)}
    elif damage == "text encoder":
        lora = {f"text_encoder.layers.0.q.lora_{part}.weight": torch.zeros(2, 2) for part in "AB"}
    elif damage == "lone factor":
        lora = {key: value for key, value in make_lora(unet, "peft").items() if "lora_B" not in key}
    save_file(lora, path)
    if damage == "half":
        path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(ValueError, match=str(path)) as error:
        merge_lora(unet, path)
    assert "\n" not in str(error.value)
