"""Lists and sets of keys that stay on the disk, or nearly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viewgen.keys import HashedPathSet, KeyFile
from viewgen.run.plan import Plan

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(deadline=None)
@given(st.sets(TEXT, max_size=30), TEXT)
def test_a_key_file_is_the_sorted_list(tmp_path_factory, keys, other):
    listed = sorted(keys)
    file = KeyFile.write(tmp_path_factory.mktemp("keys") / "keys.jsonl", listed)
    assert file == listed
    assert list(file) == listed
    assert file[1:4] == listed[1:4]
    assert [file.row(key) for key in listed] == list(range(len(listed)))
    assert file.row(other) == (listed.index(other) if other in keys else None)


def test_a_key_file_refuses_disorder_and_places_beyond_its_end(tmp_path):
    with pytest.raises(AssertionError):
        KeyFile.write(tmp_path / "keys.jsonl", ["b", "a"])
    file = KeyFile.write(tmp_path / "keys.jsonl", ["a", "b"])
    assert file[-1] == "b"
    with pytest.raises(IndexError):
        file[2]


@settings(deadline=None)
@given(st.lists(TEXT), st.lists(TEXT), st.lists(TEXT))
def test_path_sets_are_sets(first, second, asked):
    one, other = HashedPathSet(first), HashedPathSet(second)
    asked = [*asked, *first[:2], *second[:2]]
    assert one.contains(asked).tolist() == [path in first for path in asked]
    assert (one & other).contains(asked).tolist() == [path in first and path in second for path in asked]


@settings(deadline=None)
@given(st.integers(1, 17), st.integers(1, 4), st.integers(1, 9), st.integers(1, 4), st.randoms(use_true_random=False))
def test_shards_of_a_plan_part_what_is_missing(tmp_path_factory, images, views, batch, shards, random):
    keys = [f"{index:03d}.png" for index in range(images)]
    wanted = [f"{key}.{k}.png" for key in keys for k in range(views)]
    there = set(random.sample(wanted, random.randint(0, len(wanted))))
    made, counted = [], np.zeros(2, dtype=int)
    for shard in range(shards):
        plan = Plan.make(
            tmp_path_factory.mktemp("plan"),
            iter(keys),
            HashedPathSet(there),
            views_per_image=views,
            batch_size=batch,
            seed=0,
            image_format="png",
            shard=(shard, shards),
        )
        counted += plan.wanted, plan.missing
        for number in plan.chunks.tolist():
            chunk = plan.chunk(number)
            assert [view.path for view in chunk.views] == wanted[number * batch : (number + 1) * batch]
            assert chunk.missing
            made += [chunk.views[place].path for place in chunk.missing]
    assert sorted(made) == sorted(set(wanted) - there)
    assert counted.tolist() == [len(wanted), len(made)]
