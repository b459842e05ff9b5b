from hypothesis import given, settings
from hypothesis import strategies as st

from viewgen import view_seed
from viewgen.seeding import generator_for


def test_seed_is_the_same_for_ever():
    """Seeds decide the bytes of views that people keep: this number may never change."""
    assert view_seed(0, "cat/0001.jpg", 0) == 2972365703969453653


@settings(deadline=None)
@given(st.integers(), st.text(max_size=20), st.integers(0, 10**6))
def test_seed_fits_a_signed_64_bit_column(seed, key, k):
    assert 0 <= view_seed(seed, key, k) < 2**63
    generator_for(seed, key, k)


def test_neighbours_and_confusable_names_differ():
    names = [(s, key, k) for s in range(5) for key in ("a", "b", "1", "11", "a1") for k in range(20)]
    assert len({view_seed(*name) for name in names}) == len(names)
    assert view_seed(1, "1", 1) != view_seed(11, "", 1)
