"""Networks on images of any size: called directly if supported, otherwise with positions resampled as in DINO."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_eval.feature_maps import OutputAndFeatureMap, VariableSizeViT, patch_of, prefix_of, resample_positions
from ssl_eval.retrieval.revisited import MultiScale

sys.path.insert(0, str(Path(__file__).parent))
from drawn_layouts import PATCH, WIDTH, SmallTransformer

# interpolate_pos_encoding of facebookresearch/dino@7c446df, vision_transformer.py, on `positions()`: the first patch's
# first feature, the middle one's second, the last one's last, and the mean magnitude. 9 x 4 is a square number.
OFFICIAL = {
    (9, 4): (0.27134, -0.901476, 0.319463, 0.596385),
    (4, 9): (0.433459, -1.114362, 0.13805, 0.493944),
    (5, 3): (0.16102, 0.744986, 0.230453, 0.345531),
    (2, 8): (0.86929, -0.987162, -0.688572, 0.44741),
    (6, 6): (0.355334, -0.901701, 0.309076, 0.484439),
}


def positions() -> torch.Tensor:
    """Position embeddings of a class token and 4 x 4 patches, with 4 features each."""
    return (0.7 * torch.arange(17 * 4).float()).sin().reshape(1, 17, 4)


class Resampling(SmallTransformer):
    """A network that supports any size by its own rule, like DINO's, or timm's with `dynamic_img_size`."""

    def __init__(self):
        super().__init__()
        self.patch_embed.strict_img_size = False
        self.sizes = []

    def forward(self, images):
        self.sizes.append(tuple(images.shape[-2:]))
        tokens = self.patch_embed(images)
        grid = [side // PATCH for side in images.shape[-2:]]
        map_ = self.pos_embed[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
        own = nn.functional.interpolate(map_, size=grid, mode="bilinear").flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token + self.pos_embed[:, :1], tokens + own], dim=1)
        return self.norm(self.blocks(tokens))[:, 0]


@pytest.mark.parametrize("grid", OFFICIAL)
def test_positions_are_resampled_as_dino_does(grid):
    found, patches = resample_positions(positions(), (4, 4), grid), grid[0] * grid[1]
    assert found.shape == (1, 1 + patches, 4) and torch.equal(found[:, 0], positions()[:, 0])
    seen = [float(each) for each in (found[0, 1, 0], found[0, patches // 2, 1], found[0, -1, 3], found.abs().mean())]
    assert seen == pytest.approx(OFFICIAL[grid], abs=1e-5)


@pytest.mark.parametrize("size", [(72, 32), (32, 72), (16, 24), (32, 32)])
def test_network_of_any_size_is_called_directly(size):
    network, images = Resampling().eval(), torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        direct = network(images)
        assert torch.equal(VariableSizeViT(network)(images), direct)
        output, found = OutputAndFeatureMap(network)(images)
    assert torch.equal(output, direct) and found.shape == (1, WIDTH, size[0] // PATCH, size[1] // PATCH)
    assert set(network.sizes) == {size}


def test_fixed_size_network_is_adapted():
    network, generator = SmallTransformer().eval(), torch.Generator().manual_seed(0)
    native, other = (torch.randn(2, 3, *size, generator=generator) for size in ((32, 32), (50, 71)))
    with torch.no_grad():
        assert torch.equal(VariableSizeViT(network)(native), network(native))
        assert torch.equal(VariableSizeViT(network)(other), VariableSizeViT(network)(other[..., :48, :64]))
        assert torch.equal(network(native), VariableSizeViT(network)(native))  # the original positions are restored
        three = MultiScale(VariableSizeViT(network))(other)
    torch.testing.assert_close(three.norm(dim=1), torch.ones(2))
    with pytest.raises(ValueError, match="one patch, 8 x 8 pixels, got 50 x 7"):
        VariableSizeViT(network)(other[..., :7])
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert VariableSizeViT(pooled)(other).shape == (2, 4)


@pytest.mark.parametrize("fault", [AssertionError, RuntimeError])
def test_unsupported_size_is_reported(fault):
    class Strict(nn.Module):
        def forward(self, images):
            if images.shape[-1] != 32:
                raise fault("Input width doesn't match\nmodel (32)")
            return images

    network = Strict()
    with pytest.raises(
        ValueError, match=r"^expected .* any size, got .* does not accept 32 x 40 pixels \(Input .* \(32\)\); choose"
    ):
        VariableSizeViT(network)(torch.zeros(1, 3, 32, 40))
    network.patch_embed = nn.Identity()
    network.patch_embed.patch_size = (4, 4)
    with pytest.raises(ValueError, match="does not accept 32 x 40 pixels"):
        VariableSizeViT(network)(torch.zeros(1, 3, 33, 42))


def test_overlapping_patches_are_not_cropped():
    """PVT v2's first stage has 7 px patches with stride 4; images are not cropped to multiples of 7."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.patch_embed = nn.Module()
    network.patch_embed.patch_size, network.patch_embed.proj = (7, 7), nn.Conv2d(3, 4, 7, 4)
    assert patch_of(network) is None
    network.patch_embed.proj = nn.Conv2d(3, 4, 7, 7)
    assert patch_of(network) == (7, 7)


def test_prefix_token_count():
    network = SmallTransformer()
    assert prefix_of(network) == 1
    network.num_prefix_tokens = 5
    assert prefix_of(network) == 5
    dinov2 = nn.Identity()
    dinov2.num_register_tokens = 4
    assert prefix_of(dinov2) == 5
