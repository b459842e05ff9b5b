"""Weights files: official, converted, and broken."""

import argparse
import os
import pickle
from hashlib import blake2b

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genviews_core.backbones import backbone_hash
from viewgen.maskgit import load_mage, load_predictor, load_tokenizer, load_transformer, save
from viewgen.maskgit.weights_file import read_flax

ONE = msgpack.ExtType(1, msgpack.packb(((1,), "float32", b"1234")))


def test_the_small_files_are_what_flax_writes(official):
    """Hashes of flax.serialization.to_bytes (flax 0.12.8) of the same weights."""
    hashes = [
        blake2b(file.read_bytes(), digest_size=16).hexdigest() for file in (official.tokenizer, official.transformer)
    ]
    assert hashes == ["112e399d37f0983008feef02e8bf9997", "c96a0bc00af497bc8a07c7cb9a04e66d"]


def test_converted_copies_are_the_same_networks(official, mage, tmp_path):
    networks = {
        "tokenizer": (load_tokenizer(official.tokenizer), load_tokenizer),
        "transformer": (load_transformer(official.transformer, codes=24), lambda path: load_predictor(path, codes=24)),
        "mage": (load_mage(mage.path, codes=24, heads=(2, 4)), lambda path: load_predictor(path, codes=24)),
    }
    for name, (network, load) in networks.items():
        save(network, tmp_path / f"{name}.safetensors")
        copy = load(tmp_path / f"{name}.safetensors")
        assert type(copy) is type(network)
        assert copy.sizes == network.sizes
        assert backbone_hash(copy) == backbone_hash(network)
    with pytest.raises(ValueError, match=r"expected a \.safetensors file name"):
        save(networks["mage"][0], tmp_path / "mage.bin")


def test_chunked_and_narrow_arrays_are_read(tmp_path):
    def array(values):
        return msgpack.ExtType(1, msgpack.packb((values.shape, values.dtype.name, values.tobytes())))

    flat = np.arange(6, dtype=np.float32)
    chunks = {"0": array(flat[:4]), "1": array(flat[4:])}
    tree = {
        "large": {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3}, "chunks": chunks},
        "half": array(flat.astype(np.float16)),
        "brain": msgpack.ExtType(1, msgpack.packb(((2,), "bfloat16", b"\x80\x3f\x00\x40"))),
        "none": array(flat[:0]),
    }
    (tmp_path / "file").write_bytes(msgpack.packb(tree))
    found = read_flax(tmp_path / "file")
    assert found["large"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["half"].tolist() == flat.tolist()
    assert found["brain"].tolist() == [1.0, 2.0]
    assert found["none"].shape == (0,)


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_files_cut_short_are_refused(official, tmp_path, kept):
    broken = tmp_path / "broken"
    broken.write_bytes(official.transformer.read_bytes()[:kept])
    with pytest.raises(ValueError, match="as a flax checkpoint"):
        load_transformer(broken, codes=24)


@pytest.mark.parametrize(
    "tree",
    [
        {"params": msgpack.ExtType(1, msgpack.packb(((3,), "float32", b"1234")))},
        {"params": msgpack.ExtType(1, msgpack.packb(((-1, -1), "float32", b"1234")))},
        {"params": msgpack.ExtType(1, msgpack.packb(((1,), "object", b"12345678")))},
        {"params": msgpack.ExtType(1, b"\xc1")},
        {"params": msgpack.ExtType(1, msgpack.packb(7))},
        {"params": msgpack.ExtType(2, msgpack.packb((1.0, 2.0)))},
        {"params": {"__msgpack_chunked_array__": True, "shape": {"0": 2}, "chunks": {}}},
        {"params": {"__msgpack_chunked_array__": True}},
        {"params": {"__msgpack_chunked_array__": True, "shape": {"0": 5}, "chunks": {"0": ONE}}},
        {"params": {"__msgpack_chunked_array__": True, "shape": 1, "chunks": 2}},
        {"params": "__import__('os')"},
        [1, 2],
    ],
)
def test_tampered_files_are_refused(tmp_path, tree):
    (tmp_path / "tampered").write_bytes(msgpack.packb(tree))
    with pytest.raises(ValueError, match="as a flax checkpoint"):
        load_tokenizer(tmp_path / "tampered")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=6))
def test_random_damage_is_told_or_harmless(official, tmp_path, damage):
    """Damaged names, shapes and lengths give the one error; damaged values cannot be seen."""
    data = bytearray(official.transformer.read_bytes())
    for place, value in damage:
        data[place] = value
    (tmp_path / "damaged").write_bytes(data)
    try:
        network = load_transformer(tmp_path / "damaged", codes=24)
    except ValueError as error:
        assert "damaged" in str(error)
    else:
        assert network.sizes.width == 32


def test_arrays_that_do_not_fit_are_named(official, write_flax, tmp_path):
    weights = dict(official.transformer_weights)
    del weights["params/MlmLayer_0/mlm_bias/bias"]
    weights["params/Embed_0/embeddings_ln/scale"] = np.ones(7, np.float32)
    weights["params/Extra_0/kernel"] = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError) as caught:
        load_transformer(write_flax(tmp_path / "odd", weights), codes=24)
    assert "1 missing (bias); 1 unknown (Extra_0.weight); 1 mismatched (embedding_norm.weight)" in str(caught.value)


def test_the_wrong_file_is_told(official, mage, tmp_path):
    with pytest.raises(ValueError, match="expected the weights of a Tokenizer"):
        load_tokenizer(official.transformer)
    with pytest.raises(ValueError, match="expected the weights of a Transformer"):
        load_transformer(official.tokenizer)
    with pytest.raises(ValueError, match="expected the weights of a MageTransformer"):
        load_mage(official.tokenizer)
    with pytest.raises(ValueError, match=r"more than 1024 tokens .*, got 30"):
        load_transformer(official.transformer)
    with pytest.raises(ValueError, match=r"unknown MAGE width 16; give heads="):
        load_mage(mage.path, codes=24)
    with pytest.raises(ValueError, match=r"expected a weights file, got .*; download one"):
        load_tokenizer(tmp_path / "none")
    (tmp_path / "cut.safetensors").write_bytes(b"\x09\x00\x00")
    with pytest.raises(ValueError, match="as safetensors"):
        load_tokenizer(tmp_path / "cut.safetensors")


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_code_in_a_checkpoint_is_not_run(mage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": mage.weights, "args": Payload()}, tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": Payload()}, protocol=2))
    for name in ("evil.pth", "evil.pkl"):
        with pytest.raises(ValueError, match="expected a file of tensors only"):
            load_predictor(tmp_path / name, codes=24)
    assert not (tmp_path / "executed").exists()


def test_files_of_mages_own_training_are_read(mage, tmp_path):
    """They also hold the command line, the optimizer and the epoch."""
    torch.save(
        {"model": mage.weights, "optimizer": {"state": {}}, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        tmp_path / "checkpoint-last.pth",
    )
    network = load_mage(tmp_path / "checkpoint-last.pth", codes=24, heads=(2, 4))
    assert backbone_hash(network) == backbone_hash(load_mage(mage.path, codes=24, heads=(2, 4)))
