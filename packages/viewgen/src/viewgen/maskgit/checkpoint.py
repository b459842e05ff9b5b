"""Networks from weights files: sizes are inferred from the shapes of the tensors, all of which must match."""

import os
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from viewgen.maskgit.key_mapping import tokenizer_from_flax, tokenizer_from_taming, transformer_from_flax
from viewgen.maskgit.tokenizer import Tokenizer, TokenizerSizes
from viewgen.maskgit.transformers import HEADS, MageSizes, MageTransformer, Transformer, TransformerSizes
from viewgen.maskgit.weights_file import State, read_weights, write_weights

PathLike = str | os.PathLike[str]
Model = TypeVar("Model", Tokenizer, Transformer, MageTransformer)
CODES = 1024  # of every published tokenizer; a transformer's file does not say where its codes end
# Parts of a MAGE checkpoint that only its training uses.
MAGE_IDLE = r"vqgan\.|patch_embed\.|cls_token|pos_embed|mask_token|decoder_pos_embed$|decoder_pred\.|.*position_ids$"


def load_tokenizer(path: PathLike) -> Tokenizer:
    """Load the tokenizer from the official flax file, MAGE's (``vqgan_jax_strongaug.ckpt`` or full), or ``save``.

    Raises:
        ValueError: if the file is missing, broken, or of something else.
    """
    path = Path(path)
    state, _ = read_weights(path)
    if any(name.startswith("vqgan.") for name in state):
        state = {name.removeprefix("vqgan."): array for name, array in state.items() if name.startswith("vqgan.")}
    if "quantize.embedding.weight" in state:
        state = tokenizer_from_taming(state)
    elif any("/" in name for name in state):
        state = tokenizer_from_flax(state)
    return _filled(Tokenizer, lambda: _tokenizer_sizes(state), state, path)


def load_transformer(path: PathLike, *, codes: int = CODES) -> Transformer:
    """Load the transformer from the official flax file or one written by ``save``.

    Args:
        path: the file.
        codes: number of codes of its tokenizer.

    Raises:
        ValueError: if the file is missing, broken, or of something else.
    """
    return _transformer(Path(path), *read_weights(Path(path)), codes)


def load_mage(path: PathLike, *, codes: int = CODES, heads: tuple[int, int] | None = None) -> MageTransformer:
    """Load MAGE's transformer from its official PyTorch checkpoint or a file written by ``save``.

    Args:
        path: the file.
        codes: number of codes of its tokenizer.
        heads: heads of encoder and decoder, required if the width is not that of the official ViT-B or ViT-L.

    Raises:
        ValueError: if the file is missing, broken, or of something else.
    """
    return _mage(Path(path), *read_weights(Path(path)), codes, heads)


def load_predictor(path: PathLike, *, codes: int = CODES) -> Transformer | MageTransformer:
    """Load MaskGIT's transformer or MAGE's, depending on the file; errors as theirs."""
    path = Path(path)
    state, about = read_weights(path)
    if any(name.startswith("mlm_layer.") for name in state):
        return _mage(path, state, about, codes, None)
    return _transformer(path, state, about, codes)


def save(model: Tokenizer | Transformer | MageTransformer, path: PathLike) -> None:
    """Write a network as safetensors, which ``load_tokenizer``, ``load_transformer`` and ``load_mage`` read.

    Raises:
        ValueError: if the name does not end in .safetensors.
    """
    write_weights(Path(path), model.state_dict(), asdict(model.sizes))


def _transformer(path: Path, state: State, about: dict, codes: int) -> Transformer:
    heads = about.get("heads", 0)
    if any("/" in name for name in state):
        state, heads = transformer_from_flax(state)
    return _filled(Transformer, lambda: _transformer_sizes(state, codes, heads), state, path)


def _mage(path: Path, state: State, about: dict, codes: int, heads: tuple[int, int] | None) -> MageTransformer:
    state = {name: array for name, array in state.items() if not re.match(MAGE_IDLE, name)}
    if heads is None and "heads" in about:
        heads = (about["heads"][0], about["heads"][1])
    return _filled(MageTransformer, lambda: _mage_sizes(state, codes, heads), state, path)


def _filled(kind: type[Model], sizes: Callable, state: State, path: Path) -> Model:
    """Build a network of the given sizes and load the tensors, all of which must match."""
    try:
        deduced = sizes()
    except (KeyError, IndexError, ZeroDivisionError) as error:
        found = ", ".join(sorted(state)[:3])
        raise ValueError(
            f"expected the weights of a {kind.__name__}, got {path}, which lacks {error} and has {len(state)} others "
            f"({found} ...); give the file made for it"
        ) from error
    with torch.device("meta"):
        model = kind(deduced)
    _compare(state, model.state_dict(), path)
    model.load_state_dict({name: array.float() for name, array in state.items()}, assign=True)
    return model.eval().requires_grad_(False)


def _compare(found: State, wanted: State, path: Path) -> None:
    differing = {
        "missing": wanted.keys() - found.keys(),
        "unknown": found.keys() - wanted.keys(),
        "mismatched": {name for name in wanted.keys() & found.keys() if found[name].shape != wanted[name].shape},
    }
    problems = [f"{len(names)} {kind} ({', '.join(sorted(names)[:3])})" for kind, names in differing.items() if names]
    if problems:
        raise ValueError(f"the tensors of {path} do not match the network: {'; '.join(problems)}")


def _count(state: State, pattern: str) -> int:
    return len({found[1] for name in state if (found := re.match(pattern, name))})


def _tokenizer_sizes(state: State) -> TokenizerSizes:
    levels = _count(state, r"decoder\.upsample\.(\d+)\.") + 1
    blocks = _count(state, r"encoder\.blocks\.(\d+)\.") // (levels + 1)
    codes, dim = state["codebook"].shape
    return TokenizerSizes(
        stem=len(state["encoder.conv_in.weight"]),
        widths=tuple(len(state[f"encoder.blocks.{level * blocks}.conv1.weight"]) for level in range(levels)),
        blocks=blocks,
        codes=codes,
        dim=dim,
    )


def _transformer_sizes(state: State, codes: int, heads: int) -> TransformerSizes:
    words = state["words.weight"]
    if heads == 0:
        raise KeyError("layers.0.query.weight")
    return TransformerSizes(
        codes=codes,
        classes=_classes(words, codes),
        cells=len(state["positions.weight"]) - 1,
        layers=_count(state, r"layers\.(\d+)\."),
        width=words.shape[1],
        hidden=len(state["layers.0.up.weight"]),
        heads=heads,
    )


def _mage_sizes(state: State, codes: int, heads: tuple[int, int] | None) -> MageSizes:
    words = state["token_emb.word_embeddings.weight"]
    if heads is None and words.shape[1] not in HEADS:
        raise ValueError(f"unknown MAGE width {words.shape[1]}; give heads=(encoder's, decoder's)")
    return MageSizes(
        codes=codes,
        classes=_classes(words, codes),
        cells=len(state["token_emb.position_embeddings.weight"]) - 1,
        width=words.shape[1],
        decoder_width=len(state["decoder_embed.weight"]),
        depth=_count(state, r"blocks\.(\d+)\."),
        decoder_depth=_count(state, r"decoder_blocks\.(\d+)\."),
        heads=heads or HEADS[words.shape[1]],
    )


def _classes(words: Tensor, codes: int) -> int:
    """Return the number of classes of a vocabulary: the words that are neither codes nor the mask."""
    if len(words) <= codes:
        raise ValueError(
            f"expected more than {codes} tokens (codes and a mask), got {len(words)}; give codes= of the tokenizer"
        )
    return len(words) - codes - 1
