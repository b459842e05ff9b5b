"""Revisited Oxford and Paris, from folders that the tests draw in their layout."""

import pickle
import sys
from pathlib import Path

import pytest
from torch import nn

pytest.importorskip("PIL", reason="genviews-ssl-eval[images] is not installed")
from PIL import Image

from ssl_eval.image_files import ReaderConfig
from ssl_eval.retrieval.revisited import SCALES, evaluate_revisited, read_distractors, read_revisited

sys.path.insert(0, str(Path(__file__).parent))
from drawn_layouts import SmallTransformer, draw_revisited

# eval_image_retrieval.py of facebookresearch/dino@7c446df on `draw_revisited`, with the weights of SmallTransformer in
# its VisionTransformer: mAP, mP@1, mP@5, mP@10 at one scale of 64 px, and at three of 48 px.
OFFICIAL = {
    (64, (1.0,)): {
        "medium": (57.446393883893876, 60, 44, 49.33333333333333),
        "hard": (38.9520757020757, 40, 27.333333333333332, 34),
    },
    (48, SCALES): {
        "medium": (53.738493628796824, 60, 40, 37.42857142857142),
        "hard": (36.25046685340803, 40, 25.33333333333333, 31),
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return draw_revisited(tmp_path_factory.mktemp("data") / "roxford5k")


def test_it_measures_what_dino_measures(folder):
    data = read_revisited(folder)
    assert (len(data.queries), len(data.images), len(data.relevance)) == (5, 37, 5)
    for (size, scales), official in OFFICIAL.items():
        found = evaluate_revisited(SmallTransformer(), data, ReaderConfig(), size=size, scales=scales)
        for difficulty, numbers in official.items():
            score = found[difficulty]
            assert [score.mean_average_precision, *score.precision.values()] == pytest.approx(numbers, abs=1e-6)


def test_distractors_and_boxes_change_what_is_found(folder, tmp_path):
    data = read_revisited(folder)
    plain, cropped = (
        evaluate_revisited(SmallTransformer(), data, ReaderConfig(), crop_queries=crop) for crop in (False, True)
    )
    assert plain["medium"].mean_average_precision != cropped["medium"].mean_average_precision
    same = [data.images[int(each.hard[0])] for each in data.relevance]  # right images, but not as distractors
    worse = evaluate_revisited(SmallTransformer(), data, ReaderConfig(), distractors=same)
    assert worse["hard"].mean_average_precision < plain["hard"].mean_average_precision
    for number, path in enumerate(same):
        target = tmp_path / f"jpg/{number % 2}/{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    names = [f"{number % 2}/{number}.jpg" for number in range(len(same))]
    (tmp_path / "revisitop1m.txt").write_text("\n".join(names))
    assert read_distractors(tmp_path) == [tmp_path / "jpg" / name for name in names]
    assert len(read_distractors(tmp_path / "jpg/0")) == 3


def test_mistakes_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"expected one gnd_\*\.pkl in .*, got 0"):
        read_revisited(folder / "jpg")
    truth = pickle.loads((folder / "gnd_roxford5k.pkl").read_bytes())

    def written(**changes) -> Path:
        (tmp_path / "gnd_x.pkl").write_bytes(pickle.dumps(truth | changes))
        return tmp_path

    with pytest.raises(ValueError, match=r"37 of 37 images are missing, first .*image_000\.jpg"):
        read_revisited(written())
    (tmp_path / "jpg").symlink_to(folder / "jpg")
    with pytest.raises(ValueError, match=r"1 of 38 images are missing, first .*nowhere\.jpg"):
        read_revisited(written(imlist=[*truth["imlist"], "nowhere"]))
    with pytest.raises(ValueError, match="got 5 for 1"):
        read_revisited(written(qimlist=truth["qimlist"][:1]))
    with pytest.raises(ValueError, match=r"gnd_x\.pkl is not a ground truth file .IndexError: image 36 of 30"):
        read_revisited(written(imlist=truth["imlist"][:30], gnd=[{**truth["gnd"][0], "junk": [36]}]))
    nothing = [{**each, "easy": [], "hard": []} for each in truth["gnd"]]
    with pytest.raises(ValueError, match=r"easy or hard images .*gnd_x\.pkl, got none"):
        read_revisited(written(gnd=nothing))
    assert len(read_revisited(written(gnd=[*nothing[:4], truth["gnd"][4]])).relevance) == 5  # such queries are kept
    with pytest.raises(ValueError, match=r"not a ground truth file .KeyError: 'gnd'"):
        (tmp_path / "gnd_x.pkl").write_bytes(pickle.dumps({"imlist": [], "qimlist": []}))
        read_revisited(tmp_path)
    data = read_revisited(folder)
    with pytest.raises(ValueError, match=r"\[batch, width\]"):
        evaluate_revisited(nn.Conv2d(3, 4, 3), data, ReaderConfig())
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cannot read the image .*broken\.jpg'"):
        evaluate_revisited(SmallTransformer(), data, ReaderConfig(), distractors=[tmp_path / "broken.jpg"])
    with pytest.raises(ValueError, match=r"c\.jpg, listed in .*revisitop1m\.txt, is missing"):
        (tmp_path / "revisitop1m.txt").write_text("c.jpg\n")
        read_distractors(tmp_path)
    Image.new("RGB", (64, 2)).save(tmp_path / "strip.png")
    with pytest.raises(ValueError, match="at least one patch"):
        evaluate_revisited(SmallTransformer(), data, ReaderConfig(), distractors=[tmp_path / "strip.png"])
