"""MAGE's copy of the same tokenizer, in the names of taming-transformers, as ours."""

import re

from torch import Tensor

State = dict[str, Tensor]


def tokenizer_from_taming(arrays: State) -> State:
    """A VQGAN's tensors under our names; unknown ones keep theirs, and are refused later."""
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
