"""Views from image and text: captions and guidance from a file, against diffusers' own pipeline."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from tiny_diffusion import difference, random_images

from viewgen import generate_views
from viewgen.diffusion.captions import CaptionTable
from viewgen.ip_adapter import IPAdapterGenerator

LINES = [("a.png", "a cat", 2.0), ("b/c.png", "two dogs", 6.5), ("d.png", "", 1.0)]
SEEDS = [3, 4, 5]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "captions.jsonl"
    rows = [{"key": key, "caption": caption, "guidance": guidance} for key, caption, guidance in LINES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["plain", "plus"])
def test_each_image_has_its_caption_and_its_guidance(bases, adapters, table, kind):
    name = f"ip-adapter{'' if kind == 'plain' else '-plus'}_sd15.safetensors"
    files = {"model": bases["sd"], "adapter": adapters / "models" / name, "steps": 3}
    generator = IPAdapterGenerator(**files, captions=table, prompt="photo of {caption}")
    images = torch.stack([generator.prepare(image) for image in random_images(3, 30, 41)])
    condition = generator.condition_for([key for key, *_ in LINES], images)
    ours = generator.pixels(condition, seeds=SEEDS)
    pipe = StableDiffusionPipeline.from_pretrained(bases["sd"], low_cpu_mem_usage=False)
    pipe.load_ip_adapter(adapters, subfolder="models", weight_name=name, low_cpu_mem_usage=False)
    embedded = generator.encode(images).unsqueeze(1)
    nothing = generator.images.unconditional().unsqueeze(1)
    for row, (_, caption, guidance) in enumerate(LINES):
        one = embedded[row : row + 1]
        theirs = pipe(
            prompt=f"photo of {caption}",
            negative_prompt="",
            ip_adapter_image_embeds=[torch.cat([nothing, one]) if guidance > 1 else one],
            generator=torch.Generator().manual_seed(SEEDS[row]),
            num_inference_steps=3,
            guidance_scale=guidance,
            output_type="pt",
        ).images
        assert difference(ours[row : row + 1], theirs) < 1e-4
    assert generator.settings["captions"] == CaptionTable(table).hash
    with pytest.raises(ValueError, match="cached embeddings go without captions"):
        generator.pixels(embedded[:, 0], seeds=SEEDS)


def test_a_run_reads_captions_by_key_and_names_the_missing_one(bases, adapters, table, tmp_path):
    for (key, *_), image in zip(LINES, random_images(3, 30, 41), strict=True):
        (tmp_path / "images" / key).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / key)
    files = {"model": bases["sd"], "adapter": adapters / "models" / "ip-adapter_sd15.safetensors", "steps": 1}
    generator = IPAdapterGenerator(**files, captions=table)
    assert generate_views(tmp_path / "images", tmp_path / "views", generator, batch_size=2).written == 3
    table.write_text(table.read_text().splitlines()[0] + "\n")
    other = IPAdapterGenerator(**files, captions=table)
    with pytest.raises(ValueError, match=r"expected a caption for every image in .*, got none for 'b/c.png'"):
        generate_views(tmp_path / "images", tmp_path / "others", other, batch_size=2)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("captions.txt", "", r"expected captions in \.csv, \.jsonl, \.parquet"),
        ("captions.jsonl", "{", "cannot read the captions"),
        ("captions.csv", "key,text\na.png,cat\n", "got none named caption"),
        ("captions.csv", "key,caption,guidance\na.png,cat,0.5\n", "expected guidance of 1 or more"),
    ],
)
def test_a_file_of_captions_that_does_not_fit_is_one_line(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=told) as error:
        CaptionTable(tmp_path / name)
    assert "\n" not in str(error.value)
