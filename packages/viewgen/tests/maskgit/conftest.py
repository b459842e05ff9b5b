"""Small networks in the official files' formats, with weights from a closed formula that both sides can follow."""

from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import msgpack
import numpy as np
import pytest
import torch

STEM, WIDTHS, BLOCKS, CODES, DIM = 32, (32, 64, 64), 2, 24, 16
CLASSES, CELLS, LAYERS, WIDTH, HEADS, HIDDEN = 5, 16, 3, 32, 4, 64

Shapes = dict[str, tuple[int, ...]]


def formula(number: int, shape: tuple[int, ...], scale: float, offset: float = 0.0) -> np.ndarray:
    """Even values within ``offset`` ± ``scale``: the digits of a large sine."""
    waves = np.sin(np.arange(np.prod(shape), dtype=np.float64) * 12.9898 + number * 78.233) * 43758.5453
    return ((2 * (waves - np.floor(waves)) - 1) * scale + offset).astype(np.float32).reshape(shape)


def number(name: str) -> int:
    return crc32(name.encode()) % 997


def block_shapes(name: str, before: int, after: int) -> Shapes:
    shapes: Shapes = {
        f"{name}/GroupNorm_0/scale": (before,),
        f"{name}/GroupNorm_0/bias": (before,),
        f"{name}/Conv_0/kernel": (3, 3, before, after),
        f"{name}/GroupNorm_1/scale": (after,),
        f"{name}/GroupNorm_1/bias": (after,),
        f"{name}/Conv_1/kernel": (3, 3, after, after),
    }
    return shapes | ({f"{name}/Conv_2/kernel": (1, 1, after, after)} if before != after else {})


def tokenizer_shapes() -> Shapes:
    """Names and shapes of the official VQVAE's parameters."""
    coarse, top = WIDTHS[-1], len(WIDTHS)
    shapes: Shapes = {
        "encoder/Conv_0/kernel": (3, 3, 3, STEM),
        "encoder/Conv_1/kernel": (1, 1, coarse, DIM),
        "encoder/Conv_1/bias": (DIM,),
        "encoder/GroupNorm_0/scale": (coarse,),
        "encoder/GroupNorm_0/bias": (coarse,),
        "decoder/Conv_0/kernel": (3, 3, DIM, coarse),
        "decoder/Conv_0/bias": (coarse,),
        f"decoder/Conv_{top}/kernel": (3, 3, WIDTHS[0], 3),
        f"decoder/Conv_{top}/bias": (3,),
        "decoder/GroupNorm_0/scale": (WIDTHS[0],),
        "decoder/GroupNorm_0/bias": (WIDTHS[0],),
        "quantizer/codebook": (CODES, DIM),
    }
    down = [width for width in (*WIDTHS, coarse) for _ in range(BLOCKS)]
    up = [width for width in (coarse, *WIDTHS[::-1]) for _ in range(BLOCKS)]
    for part, outs, before in (("encoder", down, STEM), ("decoder", up, coarse)):
        for index, after in enumerate(outs):
            shapes |= block_shapes(f"{part}/ResBlock_{index}", before, after)
            before = after
    for index, width in enumerate(WIDTHS[:0:-1], start=1):
        shapes |= {f"decoder/Conv_{index}/kernel": (3, 3, width, width), f"decoder/Conv_{index}/bias": (width,)}
    return {f"params/{name}": shape for name, shape in shapes.items()}


def transformer_shapes() -> Shapes:
    """Names and shapes of the official Transformer's parameters."""
    vocabulary, head = CODES + CLASSES + 1, WIDTH // HEADS
    shapes: Shapes = {
        "Embed_0/word_embeddings/embedding": (vocabulary, WIDTH),
        "Embed_0/position_embeddings/embedding": (CELLS + 1, WIDTH),
        "MlmLayer_0/mlm_dense/kernel": (WIDTH, WIDTH),
        "MlmLayer_0/mlm_dense/bias": (WIDTH,),
        "MlmLayer_0/mlm_bias/bias": (vocabulary,),
    }
    norms = ["Embed_0/embeddings_ln", "MlmLayer_0/mlm_ln"]
    for index in range(LAYERS):
        attention, mlp = (f"TransformerLayer_{index}/{part}" for part in ("Attention_0", "Mlp_0"))
        norms += [f"{attention}/attention_output_ln", f"{mlp}/layer_output_ln"]
        for part in ("query", "key", "value"):
            shapes[f"{attention}/self_attention/{part}/kernel"] = (WIDTH, HEADS, head)
            shapes[f"{attention}/self_attention/{part}/bias"] = (HEADS, head)
        shapes |= {
            f"{attention}/self_attention/out/kernel": (HEADS, head, WIDTH),
            f"{attention}/self_attention/out/bias": (WIDTH,),
            f"{mlp}/intermediate_output/kernel": (WIDTH, HIDDEN),
            f"{mlp}/intermediate_output/bias": (HIDDEN,),
            f"{mlp}/layer_output/kernel": (HIDDEN, WIDTH),
            f"{mlp}/layer_output/bias": (WIDTH,),
        }
    shapes |= {f"{norm}/{part}": (WIDTH,) for norm in norms for part in ("scale", "bias")}
    return {f"params/{name}": shape for name, shape in shapes.items()}


def flax_weights(shapes: Shapes) -> dict[str, np.ndarray]:
    weights = {}
    for name, shape in shapes.items():
        *_, parent, kind = name.split("/")
        inputs = shape[0] if parent in ("query", "key", "value") else np.prod(shape[:-1])
        scale = {"scale": 0.3, "bias": 0.1, "codebook": 1.0, "embedding": 0.5}.get(kind, float((3 / inputs) ** 0.5))
        weights[name] = formula(number(name), shape, scale, 1.0 if kind == "scale" else 0.0)
    return weights


def write_flax(path: Path, weights: dict[str, np.ndarray]) -> Path:
    """The bytes that flax.serialization.to_bytes writes of the nested dictionaries."""
    tree: dict = {}
    for name in sorted(weights, key=lambda name: name.split("/")):
        *folders, leaf = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        array = weights[name]
        place[leaf] = msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))
    path.write_bytes(msgpack.packb(tree))
    return path


def mage_shapes(width: int = 16, narrow: int = 8, depth: int = 3, decoder_depth: int = 2) -> Shapes:
    """Names and shapes of an official MAGE checkpoint: transformer, what only training uses, and tokenizer."""
    vocabulary, cells = CODES + 1000 + 1, 256
    shapes: Shapes = {
        "token_emb.word_embeddings.weight": (vocabulary, width),
        "token_emb.position_embeddings.weight": (cells + 1, width),
        "cls_token": (1, 1, width),
        "pos_embed": (1, cells + 1, width),
        "mask_token": (1, 1, narrow),
        "decoder_pos_embed": (1, cells + 1, narrow),
        "decoder_pos_embed_learned": (1, cells + 1, narrow),
        "mlm_layer.bias": (1, 1, vocabulary),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
    }
    linears = {"decoder_embed": (narrow, width), "decoder_pred": (768, narrow), "mlm_layer.fc": (width, narrow)}
    norms = {"token_emb.LayerNorm": width, "norm": width, "decoder_norm": narrow, "mlm_layer.ln": width}
    for part, count, size in (("blocks", depth, width), ("decoder_blocks", decoder_depth, narrow)):
        for name in (f"{part}.{index}" for index in range(count)):
            norms |= {f"{name}.norm1": size, f"{name}.norm2": size}
            linears |= {f"{name}.attn.qkv": (3 * size, size), f"{name}.attn.proj": (size, size)}
            linears |= {f"{name}.mlp.fc1": (4 * size, size), f"{name}.mlp.fc2": (size, 4 * size)}
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, size in norms.items():
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    return shapes | {f"vqgan.{name}": shape for name, shape in taming_shapes().items()}


def taming_shapes() -> Shapes:
    """Names and shapes of the tokenizer in MAGE's files."""
    coarse, levels = WIDTHS[-1], len(WIDTHS)
    blocks: dict[str, tuple[int, int]] = {}
    for part in ("encoder", "decoder"):
        blocks |= {f"{part}.mid.block_{index}": (coarse, coarse) for index in (1, 2)}
    before = STEM
    for level, after in enumerate(WIDTHS):
        for index in range(BLOCKS):
            blocks[f"encoder.down.{level}.block.{index}"], before = (before, after), after
    for level in reversed(range(levels)):
        for index in range(BLOCKS):
            blocks[f"decoder.up.{level}.block.{index}"], before = (before, WIDTHS[level]), WIDTHS[level]
    shapes: Shapes = {
        "encoder.conv_in.weight": (STEM, 3, 3, 3),
        "encoder.conv_out.weight": (DIM, coarse, 1, 1),
        "encoder.conv_out.bias": (DIM,),
        "decoder.conv_in.weight": (coarse, DIM, 3, 3),
        "decoder.conv_in.bias": (coarse,),
        "decoder.conv_out.weight": (3, WIDTHS[0], 3, 3),
        "decoder.conv_out.bias": (3,),
        "quantize.embedding.weight": (CODES, DIM),
    }
    norms = {"encoder.norm_out": coarse, "decoder.norm_out": WIDTHS[0]}
    for name, (before, after) in blocks.items():
        norms |= {f"{name}.norm1": before, f"{name}.norm2": after}
        shapes |= {f"{name}.conv1.weight": (after, before, 3, 3), f"{name}.conv2.weight": (after, after, 3, 3)}
        shapes |= {f"{name}.nin_shortcut.weight": (after, after, 1, 1)} if before != after else {}
    for level in range(1, levels):
        name, width = f"decoder.up.{level}.upsample.conv", WIDTHS[level]
        shapes |= {f"{name}.weight": (width, width, 3, 3), f"{name}.bias": (width,)}
    for name, size in norms.items():
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    return shapes


def torch_weights(shapes: Shapes) -> dict[str, torch.Tensor]:
    weights = {}
    for name, shape in shapes.items():
        scale, offset = float((3 / np.prod(shape[1:])) ** 0.5), 0.0
        if name.endswith(".weight") and len(shape) == 1:
            scale, offset = 0.3, 1.0
        elif name.endswith("bias"):
            scale = 0.1
        elif len(shape) == 1 or "emb" in name or "token" in name:
            scale = 0.5
        weights[name] = torch.from_numpy(formula(number(name), shape, scale, offset))
    return weights


@pytest.fixture(scope="session", name="formula")
def formula_fixture():
    return formula


@pytest.fixture(scope="session", name="write_flax")
def write_flax_fixture():
    return write_flax


@pytest.fixture(scope="session")
def official(tmp_path_factory) -> SimpleNamespace:
    """Weights and files of a small MaskGIT, and its sizes."""
    root = tmp_path_factory.mktemp("maskgit")
    tokenizer, transformer = flax_weights(tokenizer_shapes()), flax_weights(transformer_shapes())
    return SimpleNamespace(
        tokenizer_weights=tokenizer,
        transformer_weights=transformer,
        tokenizer=write_flax(root / "tokenizer_imagenet16_checkpoint", tokenizer),
        transformer=write_flax(root / "maskgit_imagenet16_checkpoint", transformer),
        codes=CODES,
        classes=CLASSES,
        cells=CELLS,
    )


@pytest.fixture(scope="session")
def mage(tmp_path_factory) -> SimpleNamespace:
    """Weights and files of a small MAGE."""
    root = tmp_path_factory.mktemp("mage")
    weights = torch_weights(mage_shapes())
    torch.save({"model": weights}, root / "mage.pth")
    return SimpleNamespace(weights=weights, path=root / "mage.pth", codes=CODES, heads=(2, 4), cells=256)
