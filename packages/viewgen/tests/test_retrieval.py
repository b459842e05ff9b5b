import importlib.util
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from viewgen import (
    Embeddings,
    ImageEncoder,
    embed_images,
    generate_views,
    merge_journals,
    nearest_neighbors,
    read_image,
    view_seed,
)
from viewgen.nearest_neighbors import ExactSearch, IVFSearch
from viewgen.retrieval import RetrievalGenerator

needs_faiss = pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="faiss is not installed: pip install faiss-cpu"
)
IVF = pytest.param("ivf", marks=needs_faiss)


def vectors(count, dim=8, seed=0, kind=np.float16):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(kind)


def slow_search(pool, queries, own, count):
    """Cosine similarities of all pairs; of equals the lowest row."""
    pool, queries = np.asarray(pool, np.float64), np.asarray(queries, np.float64)
    unit, asked = (each / np.linalg.norm(each, axis=1, keepdims=True).clip(1e-12) for each in (pool, queries))
    similarity = asked @ unit.T
    similarity[np.arange(len(own))[np.array(own) >= 0], [row for row in own if row >= 0]] = -2
    return np.argsort(-similarity.round(12), axis=1, kind="stable")[:, :count].tolist()


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(nearest_neighbors, "CHUNK_VALUES", 56)
    monkeypatch.setattr(nearest_neighbors, "QUERY_BLOCK", 5)


@pytest.mark.parametrize("count", [1, 3, 12])
def test_exact_search_is_exact(small_chunks, count):
    pool, queries = vectors(61), vectors(17, seed=1, kind=np.float32)
    own = [-1] * 8 + list(range(9))
    queries[8:] = pool[:9]
    found = ExactSearch(pool)(torch.from_numpy(queries), torch.tensor(own), count)
    assert found.tolist() == slow_search(pool, queries, own, count)


def test_of_many_equals_the_lowest_rows_come_first(small_chunks):
    pool = vectors(200)
    pool[20:150:2] = pool[20]
    pool[21] = 0
    own = list(range(0, 200, 3))
    found = ExactSearch(pool)(torch.from_numpy(pool[own].astype(np.float32)), torch.tensor(own), 3)
    assert found.tolist() == slow_search(pool, pool[own], own, 3)
    assert found[own.index(30)].tolist() == [20, 22, 24]


def test_equals_within_one_chunk_are_ordered_by_row():
    pool = np.repeat(vectors(3), 400, axis=0)
    found = ExactSearch(pool)(torch.from_numpy(pool[[5, 1199]].astype(np.float32)), torch.tensor([5, 1199]), 6)
    assert found.tolist() == [[0, 1, 2, 3, 4, 6], [800, 801, 802, 803, 804, 805]]


def test_float64_decides_between_near_neighbours():
    pool = np.ones((50, 64), np.float32)
    pool[:, 0] += np.random.default_rng(0).permutation(50).astype(np.float32) * 1e-4
    queries = torch.ones(3, 64)
    assert ExactSearch(pool)(queries, torch.tensor([-1, -1, -1]), 4).tolist() == slow_search(pool, queries, [-1] * 3, 4)


@pytest.mark.parametrize("kind", ["exact", IVF])
def test_what_is_found_does_not_depend_on_the_batch(small_chunks, kind):
    pool = vectors(300, dim=24)
    search = ExactSearch(pool) if kind == "exact" else IVFSearch(pool, cells=6, probes=2)
    queries, own = torch.from_numpy(vectors(40, dim=24, seed=2, kind=np.float32)), torch.full((40,), -1)
    together = search(queries, own, 2)
    alone = torch.cat([search(queries[[place]], own[[place]], 2) for place in range(40)])
    assert torch.equal(together, alone)


@needs_faiss
def test_ivf_is_exact_with_every_cell_and_finds_most_with_few():
    draws = np.random.default_rng(0)
    centres = draws.normal(size=(40, 32))
    pool = (centres[draws.integers(0, 40, 4000)] + 0.3 * draws.normal(size=(4000, 32))).astype(np.float16)
    own = torch.arange(0, 4000, 20)
    queries = torch.from_numpy(pool[own.numpy()].astype(np.float32))
    exact = ExactSearch(pool)(queries, own, 1)
    assert torch.equal(IVFSearch(pool, cells=16, probes=16)(queries, own, 1), exact)
    few = IVFSearch(pool, probes=4)(queries, own, 1)
    assert (few == exact).float().mean() > 0.9
    assert (few != own.unsqueeze(1)).all()


def test_bad_questions_are_refused():
    search, none = ExactSearch(vectors(5)), torch.tensor([-1])
    for queries, count, message in (
        (torch.ones(1, 7), 1, "length 8"),
        (torch.ones(1, 8), 5, "more than 5 images"),
        (torch.full((1, 8), torch.nan), 1, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            search(queries, none, count)


@needs_faiss
def test_too_few_cells_are_refused():
    none = torch.tensor([-1])
    with pytest.raises(ValueError, match="raise probes"):
        IVFSearch(vectors(60), cells=20, probes=1)(torch.ones(1, 8), none, 50)


@pytest.fixture
def made(images, tmp_path, wrapped):
    folder = tmp_path / "pool"
    embed_images(images, folder, wrapped)
    return lambda **options: RetrievalGenerator(pool=folder, pool_images=images, **{"output_size": 12, **options})


@pytest.mark.parametrize("search", ["exact", IVF])
def test_a_view_is_the_nearest_other_image(made, images, embeddings, search):
    generator = made(search=search, cells=2, probes=2)
    keys = embeddings.keys
    rows = generator.condition_for(keys, None)
    own = list(range(len(keys)))
    assert rows.tolist() == slow_search(embeddings.vectors, embeddings.vectors, own, 1)
    views = generator.generate(rows, seeds=own)
    partners = generator.partner_keys(rows, own)
    assert all(partner not in (None, key) for partner, key in zip(partners, keys, strict=True))
    for view, partner in zip(views, partners, strict=True):
        assert torch.equal(view, read_image(images / partner, 12))


def test_images_from_elsewhere_find_themselves_unless_their_key_is_of_the_pool(made, images, embeddings, wrapped):
    generator = made(encoder=wrapped)
    keys = embeddings.keys
    pixels = torch.stack([read_image(images / key, 16) for key in keys])
    itself = torch.arange(len(keys)).unsqueeze(1)
    assert torch.equal(generator.condition(pixels), itself)
    assert torch.equal(generator.condition_for([f"new/{key}" for key in keys], pixels), itself)
    assert torch.equal(generator.condition_for(keys, pixels), made().condition_for(keys, None))
    with pytest.raises(ValueError, match="expected images of the pool"):
        made().condition_for(["new.png"], pixels[:1])
    with pytest.raises(ValueError, match="encoder="):
        made().condition(pixels)


def test_one_of_several_neighbours_is_drawn_by_the_views_seed(made, embeddings):
    generator, key = made(neighbors=3), embeddings.keys[0]
    rows = generator.condition_for([key], None)
    nearest = [embeddings.keys[row] for row in rows[0].tolist()]
    seeds = [view_seed(0, key, k) for k in range(300)]
    drawn = generator.partner_keys(rows.expand(300, 3), seeds)
    assert [generator.partner_keys(rows, [seed])[0] for seed in seeds] == drawn
    assert all(70 < drawn.count(each) < 130 for each in nearest)
    assert [generator.partner_keys(rows, [seed])[0] for seed in seeds[::-1]] == drawn[::-1]


def test_the_pool_names_the_model_and_its_supervision(made, images, tmp_path, make_encoder):
    generator = made()
    assert (generator.supervision, generator.licence) == ("none", "as the pool's images")
    other = ImageEncoder(make_encoder(), size=16, name="tiny", supervision="labels")
    shutil.copytree(images, tmp_path / "copy")
    next((tmp_path / "copy").rglob("*.png")).unlink()
    embed_images(tmp_path / "copy", tmp_path / "fewer", other)
    fewer = RetrievalGenerator(pool=tmp_path / "fewer", pool_images=tmp_path / "copy")
    assert fewer.supervision == "labels"
    assert fewer.model_hash != generator.model_hash == made(neighbors=2).model_hash
    assert made(neighbors=2).settings != generator.settings


def test_mistakes_are_named(made, images, tmp_path, make_encoder):
    with pytest.raises(ValueError, match="expected finished embeddings"):
        RetrievalGenerator(pool=tmp_path, pool_images=images)
    with pytest.raises(ValueError, match="not a folder"):
        RetrievalGenerator(pool=tmp_path / "pool", pool_images=tmp_path / "missing")
    for neighbour in (0, 14):
        with pytest.raises(ValueError, match=r"neighbors in 1\.\.13"):
            made(neighbors=neighbour)
    other = make_encoder()
    other[2].bias.data += 1
    with pytest.raises(ValueError, match="expected the encoder of the pool"):
        made(encoder=ImageEncoder(other, size=16))
    generator = made()
    rows = generator.condition_for(Embeddings.load(tmp_path / "pool").keys[:1], None)
    with pytest.raises(ValueError, match="no strength"):
        generator.generate(rows, seeds=[0], strength=torch.ones(1))
    with pytest.raises(ValueError, match="expected rows of the pool"):
        generator.generate(rows.expand(1, 2), seeds=[0])


def test_a_run_writes_the_neighbours_and_names_them(made, images, embeddings, tmp_path):
    generator = made(neighbors=2)
    for folder, batch in (("one", 3), ("two", 14)):
        generate_views(images, tmp_path / folder, generator, views_per_image=2, batch_size=batch)
    first, second = (pq.read_table(merge_journals(tmp_path / folder)) for folder in ("one", "two"))
    assert first == second
    assert first.column("alpha").null_count == len(first) == 28
    nearest = slow_search(embeddings.vectors, embeddings.vectors, list(range(14)), 2)
    for row in first.to_pylist():
        assert row["partner_key"] in [embeddings.keys[place] for place in nearest[embeddings.keys.row(row["key"])]]
        assert torch.equal(read_image(tmp_path / "one" / row["path"]), read_image(images / row["partner_key"], 12))
