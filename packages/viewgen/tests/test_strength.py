import json
import pickle
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from viewgen import view_seed
from viewgen.ratios import ROWS, ForegroundRatios
from viewgen.strength import AdaptiveStrength, ConstantStrength, RandomStrength, noise_level, parse_strength


def write(path, pairs):
    if path.suffix == ".parquet":
        keys, ratios = zip(*pairs, strict=True)
        pq.write_table(pa.table({"other": [0] * len(keys), "foreground_ratio": ratios, "key": keys}), path)
    elif path.suffix == ".csv":
        path.write_text("foreground_ratio,key\n" + "".join(f"{ratio!r},{key}\n" for key, ratio in pairs))
    else:
        lines = [json.dumps({"key": key, "more": [1], "foreground_ratio": ratio}) + "\n" for key, ratio in pairs]
        path.write_text("".join(lines))
    return path


def read(tmp_path, pairs):
    return ForegroundRatios.read(write(tmp_path / "ratios.parquet", pairs))


def test_noise_level_is_numpys_digitize():
    ratios = np.concatenate([np.linspace(0, 1, 1001), np.arange(257) / 256, [0.2, 0.4, 0.6, 0.8, 0.1 + 0.2, 3 * 0.2]])
    ratios = np.concatenate([ratios, np.nextafter(ratios, 2), np.nextafter(ratios, -1)]).clip(0, 1)
    expected = 100 * (np.digitize(ratios, [0, 0.2, 0.4, 0.6, 0.8, 1], right=True) - 1).clip(0)
    assert [noise_level(float(ratio)) for ratio in ratios] == expected.tolist()
    assert noise_level(torch.from_numpy(ratios)).tolist() == expected.tolist()
    assert type(noise_level(0.5)) is int


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_noise_level_at_the_edges_is_the_same_in_every_precision(dtype):
    ratios = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.25, 0.45, 0.65, 0.85]
    expected = [0, 0, 100, 200, 300, 400, 100, 200, 300, 400]
    assert noise_level(torch.tensor(ratios, dtype=dtype)).tolist() == expected
    assert [noise_level(ratio) for ratio in ratios] == expected


@pytest.mark.parametrize("ratio", [-0.01, 1.01, float("nan"), float("inf")])
def test_what_is_no_ratio_is_refused(ratio, tmp_path):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        noise_level(ratio)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        noise_level(torch.tensor([0.5, ratio]))
    with pytest.raises(ValueError, match=r"\[0, 1\] for 'b\.png'"):
        read(tmp_path, [("a.png", 0.5), ("b.png", ratio)])


def test_random_strength_belongs_to_the_view_and_is_uniform():
    law = RandomStrength(levels=(0.0, 0.5, 0.7))
    drawn = [law.sample("key", view_seed(0, "key", k))[0] for k in range(3000)]
    assert drawn == [law.sample("other", view_seed(0, "key", k))[0] for k in range(3000)]
    counts = Counter(drawn)
    assert set(counts) == {0.0, 0.5, 0.7}
    assert all(900 < count < 1100 for count in counts.values())
    assert law.sample("key", 0)[1] is None


def test_adaptive_strength_follows_the_images_ratio(tmp_path):
    pairs = [("b/ü 1.png", 0.2), ("a.png", 0.61), ("a/b.png", 1.0), ("a b.png", 0.0)]
    ratios = read(tmp_path, pairs)
    plain, scaled = AdaptiveStrength(ratios=ratios), AdaptiveStrength(ratios=ratios, levels=(0.4, 0.5, 0.6, 0.7, 0.8))
    for key, ratio in pairs:
        assert plain.sample(key, 1) == (float(noise_level(ratio)), ratio)
    assert [scaled.sample(key, 1)[0] for key, _ in pairs] == [0.4, 0.7, 0.8, 0.4]
    for missing in ("a", "zzz.png", "a.pn", ""):
        with pytest.raises(ValueError, match="expected a foreground ratio"):
            plain.sample(missing, 1)


def test_ratios_are_the_same_from_every_format_and_order(tmp_path):
    draws = np.random.default_rng(0)
    pairs = [(f"n{row % 7}/{row}.png", float(draws.random())) for row in range(ROWS + 100)]
    expected = dict(pairs)
    hashes = set()
    for suffix in ("parquet", "csv", "jsonl"):
        draws.shuffle(pairs)
        ratios = ForegroundRatios.read(write(tmp_path / f"ratios.{suffix}", pairs))
        assert len(ratios) == len(pairs)
        assert all(ratios[key] == expected[key] for key, _ in pairs[:: len(pairs) // 50])
        hashes.add(ratios.hash)
    assert len(hashes) == 1
    assert pickle.loads(pickle.dumps(ratios))["n0/0.png"] == expected["n0/0.png"]
    changed = [(key, np.nextafter(ratio, 1) if key == "n0/0.png" else ratio) for key, ratio in pairs]
    assert read(tmp_path, changed).hash not in hashes


def test_bad_tables_are_refused(tmp_path):
    for suffix in ("parquet", "csv", "jsonl"):
        with pytest.raises(ValueError, match="cannot read"):
            ForegroundRatios.read(tmp_path / f"missing.{suffix}")
        broken = tmp_path / f"broken.{suffix}"
        broken.write_text("{nothing,")
        with pytest.raises(ValueError, match="cannot read"):
            ForegroundRatios.read(broken)
    with pytest.raises(ValueError, match="got several"):
        read(tmp_path, [("a.png", 0.5), ("b.png", 0.5), ("a.png", 0.5)])
    with pytest.raises(ValueError, match="cannot read"):
        pq.write_table(pa.table({"key": ["a"], "ratio": [0.1]}), tmp_path / "other.parquet")
        ForegroundRatios.read(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="expected a key"):
        read(tmp_path, [("a.png", 0.5), (None, 0.5)])
    with pytest.raises(ValueError, match="file of foreground ratios"):
        ForegroundRatios.read(tmp_path / "ratios.txt")


def test_what_the_command_line_names(tmp_path):
    ratios = read(tmp_path, [("a.png", 0.5)])
    assert parse_strength("200") == parse_strength("constant:200") == ConstantStrength(200.0)
    assert parse_strength("random") == RandomStrength()
    assert parse_strength("random:0.5,0.7") == RandomStrength(levels=(0.5, 0.7))
    assert parse_strength("adaptive", ratios).sample("a.png", 0) == (200.0, 0.5)
    assert parse_strength("adaptive:1,2,3,4,5", ratios).sample("a.png", 0) == (3.0, 0.5)
    for text in ("", "much", "random:", "constant:1,2", "constant", "mixed:1", "nan", "random:1,inf"):
        with pytest.raises(ValueError, match="strength"):
            parse_strength(text)
    for text, given in (("adaptive", None), ("random", ratios), ("adaptive:1,2", ratios)):
        with pytest.raises(ValueError, match="adaptive"):
            parse_strength(text, given)


def test_descriptions_are_json_and_tell_laws_apart(tmp_path):
    ratios, others = read(tmp_path, [("a.png", 0.5)]), read(tmp_path, [("a.png", 0.51)])
    laws = [
        ConstantStrength(200.0),
        ConstantStrength(0.0),
        RandomStrength(),
        RandomStrength(levels=(1.0,)),
        AdaptiveStrength(ratios=ratios),
        AdaptiveStrength(ratios=others),
        AdaptiveStrength(ratios=ratios, levels=(1.0, 2.0, 3.0, 4.0, 5.0)),
    ]
    described = [law.description() for law in laws]
    assert json.loads(json.dumps(described)) == described
    assert len({json.dumps(law) for law in described}) == len(laws)
