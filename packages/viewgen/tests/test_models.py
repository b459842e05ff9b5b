"""Known weights by name, and what the hub answers when it does not give them."""

from dataclasses import fields

import pytest
from huggingface_hub import errors

from viewgen import load_generator, pretrained
from viewgen.cli import run
from viewgen.cli_options import options_dataclass
from viewgen.models import MODELS, models_table, named_options

EVERY = [(kind, model) for kind, models in MODELS.items() for model in models]


@pytest.mark.parametrize(("kind", "model"), EVERY, ids=[f"{kind}-{model.name}" for kind, model in EVERY])
def test_a_name_stands_for_options_that_its_generator_has(kind, model):
    accepted = {item.name for item in fields(options_dataclass(kind))}
    assert set(model.options) <= accepted
    assert all(place.count("/") == 1 for place in model.hub_ids())
    assert model.licence and model.gigabytes > 0 and model.steps >= 1
    assert [one.name for one in MODELS[kind]].count(model.name) == 1


def test_given_options_are_kept_and_others_come_with_the_name(tmp_path, monkeypatch):
    made = named_options("ip-adapter", {"model": "sdxl-lightning", "steps": None, "prompt": "a cat", "variant": "bf16"})
    assert made["model"] == "stabilityai/stable-diffusion-xl-base-1.0" and made["distilled"] == "lightning"
    assert (made["steps"], made["prompt"], made["variant"]) == (None, "a cat", "bf16")
    assert named_options("eldm", {"folder": "x"}) == {"folder": "x"}
    assert named_options("ip-adapter", {"model": "owner/other"}) == {"model": "owner/other"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sd15").mkdir()
    assert named_options("ip-adapter", {"model": "sd15"}) == {"model": "sd15"}


def test_the_command_lists_them(capsys):
    assert run(["models"]) == 0
    shown = capsys.readouterr().out
    assert all(model.name in shown and model.hub_ids()[0] in shown for _, model in EVERY)
    assert run(["models", "--generator", "unclip"]) == 0
    only = capsys.readouterr().out
    assert "sd21-unclip" in only and "sdxl-turbo" not in only and "noise level" in only
    with pytest.raises(ValueError, match="expected a generator of ip-adapter"):
        models_table("eldm")


def raised(name: str) -> Exception:
    kind = getattr(errors, name)
    return kind("no") if name in ("LocalEntryNotFoundError", "HFValidationError") else kind.__new__(kind)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("GatedRepoError", r"gated; accept its licence at https://huggingface.co/runwayml/.* `hf auth login`"),
        ("RepositoryNotFoundError", r"no such repository, or it is private, it moved to stable-diffusion-v1-5/"),
        ("RevisionNotFoundError", "no such revision"),
        ("LocalEntryNotFoundError", r"cannot be reached .* HF_ENDPOINT to a mirror such as https://hf-mirror.com"),
        ("OfflineModeIsEnabled", r"cannot be reached"),
        ("HFValidationError", r"cannot find the model .*: no; give model="),
        ("IncompleteSnapshotError", r"incomplete; run `hf download runwayml/stable-diffusion-v1-5`"),
    ],
)
def test_a_hub_that_gives_nothing_is_one_line(monkeypatch, error, told):
    if not hasattr(errors, error):
        pytest.skip(f"this huggingface_hub has no {error}")

    def download(*args, **options):
        raise raised(error)

    monkeypatch.setattr(pretrained, "snapshot_download", download)
    with pytest.raises(ValueError, match=told) as caught:
        load_generator("image-to-image", model="runwayml/stable-diffusion-v1-5")
    assert "\n" not in str(caught.value)


def test_a_name_is_looked_for_on_the_hub_with_its_variant_and_revision(monkeypatch):
    asked = []

    def download(model, **options):
        asked.append((model, options))
        raise raised("LocalEntryNotFoundError")

    monkeypatch.setattr(pretrained, "snapshot_download", download)
    monkeypatch.setattr(pretrained, "list_repo_files", lambda model: ["unet/a.safetensors", "unet/a.fp16.safetensors"])
    with pytest.raises(ValueError, match="stabilityai/sd-turbo"):
        load_generator("image-to-image", model="sd-turbo")
    model, options = asked.pop()
    assert model == "stabilityai/sd-turbo" and "unet/a.safetensors" in options["ignore_patterns"]
    with pytest.raises(ValueError, match="cannot be reached"):
        load_generator("image-to-image", model="owner/name@0123abc")
    assert asked[0][0] == "owner/name" and asked[0][1]["revision"] == "0123abc"


def test_a_single_file_is_fetched_by_its_place(monkeypatch, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "lora.safetensors").write_bytes(b"")
    monkeypatch.setattr(pretrained, "snapshot_download", lambda model, **options: str(tmp_path))
    assert pretrained.local_file("owner/name/deep/lora.safetensors") == tmp_path / "deep" / "lora.safetensors"
    with pytest.raises(ValueError, match="which does not exist"):
        pretrained.local_file("missing.safetensors")
