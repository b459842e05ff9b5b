"""Views by pretrained generators, with what they need measured on the way."""

import pyarrow.parquet as pq
import pytest
from diffusers import UNet2DConditionModel
from PIL import Image
from tiny_diffusion import random_images, save_adapters, save_base

from genviews.generation import GenerateOptions, run


def test_an_ip_adapter_is_given_the_statistics_of_the_images(tmp_path):
    for index, image in enumerate(random_images(3, 26, 31)):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / f"{index}.png")
    base = save_base(tmp_path / "sd")
    unets = [
        UNet2DConditionModel.from_pretrained(save_base(tmp_path / kind, kind) / "unet", low_cpu_mem_usage=False)
        for kind in ("sd", "sdxl")
    ]
    adapter = save_adapters(tmp_path / "IP-Adapter", *unets) / "models" / "ip-adapter_sd15.safetensors"
    options = {"images": tmp_path / "images", "out": tmp_path / "views", "model": base, "device": "cpu", "steps": 1}
    made = GenerateOptions(**options, generator="ip-adapter", adapter=adapter, strength="random", precision="float32")
    assert run(made).written == 3
    assert (tmp_path / "views" / "statistics.safetensors").is_file()
    rows = pq.read_table(tmp_path / "views" / "manifest.parquet").to_pylist()
    assert {row["generator"] for row in rows} == {"ip-adapter"}
    assert {row["strength"] for row in rows} <= {0.0, 100.0, 200.0, 300.0, 400.0}
    assert run(made).already == 3
    with pytest.raises(ValueError, match="expected --adapter with --generator ip-adapter, got unclip"):
        run(GenerateOptions(**{**options, "out": tmp_path / "others"}, generator="unclip", adapter=adapter))
