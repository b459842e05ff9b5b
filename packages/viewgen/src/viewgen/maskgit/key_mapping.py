"""Map the parameter names of official checkpoints to those of this package."""

import re

import torch
from torch import Tensor

State = dict[str, Tensor]

TOKENIZER_NAMES = (
    (r"ResBlock_(\d+)/", r"blocks.\1."),
    (r"(blocks\.\d+\.)GroupNorm_0", r"\1norm1"),
    (r"(blocks\.\d+\.)GroupNorm_1", r"\1norm2"),
    (r"(blocks\.\d+\.)Conv_0", r"\1conv1"),
    (r"(blocks\.\d+\.)Conv_1", r"\1conv2"),
    (r"(blocks\.\d+\.)Conv_2", r"\1shortcut"),
    (r"^(encoder|decoder)/GroupNorm_0", r"\1/norm_out"),
    (r"^(encoder|decoder)/Conv_0", r"\1/conv_in"),
    (r"^encoder/Conv_1/", "encoder/conv_out/"),
    (r"^quantizer/codebook", "codebook"),
    (r"(scale|kernel)$", "weight"),
)
TRANSFORMER_NAMES = (
    (r"^Embed_0/word_embeddings/embedding", "words/weight"),
    (r"^Embed_0/position_embeddings/embedding", "positions/weight"),
    (r"^Embed_0/embeddings_ln", "embedding_norm"),
    (r"^TransformerLayer_(\d+)/", r"layers.\1."),
    (r"Attention_0/attention_output_ln", "attention_norm"),
    (r"Attention_0/self_attention/", ""),
    (r"Mlp_0/intermediate_output", "up"),
    (r"Mlp_0/layer_output_ln", "output_norm"),
    (r"Mlp_0/layer_output", "down"),
    (r"^MlmLayer_0/mlm_dense", "head"),
    (r"^MlmLayer_0/mlm_ln", "head_norm"),
    (r"^MlmLayer_0/mlm_bias/bias", "bias"),
    (r"(scale|kernel)$", "weight"),
)


def tokenizer_from_flax(arrays: State) -> State:
    """Rename the official VQGAN's arrays; unknown ones keep their names and are rejected on loading."""
    last = max(
        (int(found[1]) for name in arrays if (found := re.match(r"params/decoder/Conv_(\d+)/", name))), default=0
    )
    state = {}
    for path, array in arrays.items():
        name = _renamed(path.removeprefix("params/"), TOKENIZER_NAMES)
        if found := re.match(r"decoder/Conv_(\d+)/(.*)", name):
            index = int(found[1])
            name = f"decoder.conv_out.{found[2]}" if index == last else f"decoder.upsample.{index - 1}.{found[2]}"
        # flax: height, width, in, out
        state[name.replace("/", ".")] = array.permute(3, 2, 0, 1).contiguous() if array.ndim == 4 else array
    return state


def transformer_from_flax(arrays: State) -> tuple[State, int]:
    """Rename the official transformer's arrays and return its number of heads (0 if there is no attention)."""
    state, heads = {}, 0
    for path, array in arrays.items():
        name = _renamed(path.removeprefix("params/"), TRANSFORMER_NAMES).replace("/", ".")
        if re.search(r"\.(query|key|value)\.weight$", name) and array.ndim == 3:  # width, heads, length of a head
            heads, array = array.shape[1], array.flatten(1).T
        elif name.endswith(".out.weight"):  # heads, length of a head, width
            array = array.flatten(0, -2).T
        elif name.endswith(".weight") and array.ndim == 2 and not name.startswith(("words", "positions")):
            array = array.T
        state[name] = array.flatten() if name.endswith(".bias") else array.contiguous()
    return _fused(state), heads


def _fused(state: State) -> State:
    """Fuse query, key and value of every layer into one matrix; incomplete triples are left for loading to reject."""
    for first in [name for name in state if ".query." in name]:
        parts = [first.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in state for part in parts):
            state[first.replace(".query.", ".qkv.")] = torch.cat([state.pop(part) for part in parts])
    return state


def _renamed(path: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        path = re.sub(pattern, replacement, path)
    return path


State = dict[str, Tensor]


def tokenizer_from_taming(arrays: State) -> State:
    """Rename a VQGAN's tensors; unknown ones keep their names and are rejected on loading."""
    places = [re.match(r"encoder\.down\.(\d+)\.block\.(\d+)\.", name) for name in arrays]
    levels = max((int(place[1]) for place in places if place), default=0) + 1
    blocks = max((int(place[2]) for place in places if place), default=0) + 1
    state = {}
    for name, array in arrays.items():
        side, _, rest = name.partition(".")
        if found := re.match(r"mid\.block_(\d+)\.(.*)", rest):
            first = levels * blocks if side == "encoder" else 0
            rest = f"blocks.{first + int(found[1]) - 1}.{found[2]}"
        elif found := re.match(r"down\.(\d+)\.block\.(\d+)\.(.*)", rest):
            rest = f"blocks.{int(found[1]) * blocks + int(found[2])}.{found[3]}"
        elif found := re.match(r"up\.(\d+)\.block\.(\d+)\.(.*)", rest):
            rest = f"blocks.{(levels - int(found[1])) * blocks + int(found[2])}.{found[3]}"
        elif found := re.match(r"up\.(\d+)\.upsample\.conv\.(.*)", rest):
            rest = f"upsample.{levels - 1 - int(found[1])}.{found[2]}"
        rest = rest.replace(".nin_shortcut.", ".shortcut.")
        state["codebook" if name == "quantize.embedding.weight" else f"{side}.{rest}"] = array
    return state
