import pytest
import torch

from ssl_eval import balanced_subset, listed_subset

KEYS = ["n01/n01_1.JPEG", "n01/n01_2.JPEG", "n02/n02_1.JPEG", "n02/n02_7.JPEG", "n03/twin.JPEG", "n04/twin.JPEG"]


def test_a_list_of_file_names_or_of_keys(tmp_path):
    path = tmp_path / "1percent.txt"
    path.write_text("n02_7.JPEG\nn01_1.JPEG\n\n")
    assert listed_subset(path, KEYS).tolist() == [0, 3]
    path.write_text("n04/twin.JPEG\nn02/n02_1.JPEG\n")
    assert listed_subset(path, KEYS).tolist() == [2, 5]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("n01_1.JPEG\nn09_1.JPEG\nn09_2.JPEG\n", r"2 of 3 images listed in .* are missing, first n09_1.JPEG"),
        ("n01_1.JPEG\nn01_1.JPEG\n", "each image once in .*, got n01_1.JPEG 2 times"),
        ("twin.JPEG\n", "several folders have one"),
        ("\n", "expected names of images"),
    ],
)
def test_a_list_that_does_not_fit_is_named(tmp_path, content, says):
    path = tmp_path / "list.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=says):
        listed_subset(path, KEYS)
    with pytest.raises(ValueError, match="expected a list of images at"):
        listed_subset(tmp_path / "nowhere.txt", KEYS)


def test_a_balanced_subset_has_as_many_images_of_every_class():
    labels = torch.arange(1000) % 10
    one, other = balanced_subset(labels, 10, seed=0), balanced_subset(labels, 10, seed=1)
    assert labels[one].bincount().tolist() == [10] * 10 and one.tolist() == sorted(set(one.tolist()))
    assert torch.equal(one, balanced_subset(labels, 10, seed=0)) and not torch.equal(one, other)
    assert labels[balanced_subset(labels, 0.01, seed=0)].bincount().tolist() == [1] * 10
    assert len(balanced_subset(labels, 100, seed=0)) == 1000


def test_classes_that_cannot_give_their_share_are_named():
    with pytest.raises(ValueError, match="got 0 of class 2"):
        balanced_subset(torch.tensor([0, 1, 3]), 10, seed=0)
    with pytest.raises(ValueError, match="got 0 of class 4"):
        balanced_subset(torch.arange(8) % 4, 10, seed=0, num_classes=5)
    with pytest.raises(ValueError, match="expected 5 or more images of every class, got 1 of class 1"):
        balanced_subset(torch.tensor([0] * 19 + [1]), 50, seed=0)
    with pytest.raises(ValueError, match="expected percent above 0"):
        balanced_subset(torch.arange(8) % 4, 0, seed=0)
