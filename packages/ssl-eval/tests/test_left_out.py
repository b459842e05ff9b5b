"""Unreadable test images: the others are evaluated as if these did not exist, or an error is raised."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("PIL", reason="genviews-ssl-eval[images] is not installed")
pytest.importorskip("scipy", reason="genviews-ssl-eval[images] is not installed")

from ssl_eval import Result, append_result, read_results
from ssl_eval.image_files import ReaderConfig, SkippedFiles
from ssl_eval.retrieval.copydays import evaluate_copydays, read_copydays
from ssl_eval.retrieval.ranking import RelevanceLabels
from ssl_eval.retrieval.revisited import evaluate_revisited, read_revisited
from ssl_eval.video.davis import evaluate_davis, read_davis
from ssl_eval.video.mask_propagation import Frames, PropagationConfig

sys.path.insert(0, str(Path(__file__).parent))
from drawn_layouts import SmallTransformer, draw_copydays, draw_davis, draw_revisited

KINDS = ("easy", "hard", "junk")


def broken(*paths: Path) -> None:
    for path in paths:
        path.write_bytes(b"no image")


def test_retrieval(tmp_path):
    folder = draw_revisited(tmp_path / "roxford5k")
    data = read_revisited(folder)
    lost = [
        int(data.relevance[0].easy[0]),
        int(data.relevance[1].hard[1]),
        int(data.relevance[2].junk[0]),
        len(data.images) - 1,
    ]
    kept = [row for row in range(len(data.images)) if row not in lost]
    relevance = []
    for each in data.relevance[:4]:
        rows = {kind: [kept.index(row) for row in getattr(each, kind).tolist() if row in kept] for kind in KINDS}
        relevance.append(RelevanceLabels(**{kind: torch.tensor(row, dtype=torch.long) for kind, row in rows.items()}))
    less = replace(
        data,
        queries=data.queries[:4],
        boxes=data.boxes[:4],
        images=[data.images[row] for row in kept],
        relevance=relevance,
    )
    expected = evaluate_revisited(SmallTransformer(), less, ReaderConfig(), size=64)
    broken(data.queries[4], *(data.images[row] for row in lost))
    left_out = SkippedFiles()
    found = evaluate_revisited(SmallTransformer(), data, ReaderConfig(on_unreadable=left_out), size=64)
    assert found == expected and len(left_out.lines) == 5 and all("cannot read" in line for line in left_out.lines)
    with pytest.raises(ValueError, match=r"cannot read the image .*query_4"):
        evaluate_revisited(SmallTransformer(), data, ReaderConfig(), size=64)
    broken(*data.queries)
    with pytest.raises(ValueError, match=r"none of 5 images can be read, such as .*query_0"):
        evaluate_revisited(SmallTransformer(), data, ReaderConfig(on_unreadable=left_out), size=64)


def test_copies_of_an_unreadable_original_are_skipped(tmp_path):
    whole, less = (draw_copydays(tmp_path / name, originals=4) for name in ("whole", "less"))
    for name in ("original/200100.jpg", "jpegqual/3/200100.jpg", "strong/200101.jpg", "strong/200102.jpg"):
        (less / name).unlink()
    (less / "strong/200201.jpg").unlink()
    broken(whole / "original/200100.jpg", whole / "strong/200201.jpg", whole / "distractors/003.png")
    (less / "distractors/003.png").unlink()
    left_out = SkippedFiles()
    options = {"size": 32, "distractors": sorted((whole / "distractors").iterdir())}
    preparing = ReaderConfig(on_unreadable=left_out)
    found = evaluate_copydays(SmallTransformer(), read_copydays(whole), preparing, **options)
    options["distractors"] = sorted((less / "distractors").iterdir())
    expected = evaluate_copydays(SmallTransformer(), read_copydays(less), ReaderConfig(), **options)
    assert found == pytest.approx(expected, abs=1e-9) and len(left_out.lines) == 3


def test_videos(tmp_path):
    videos, left_out = read_davis(draw_davis(tmp_path / "DAVIS", frames=4)), SkippedFiles()
    frames = Frames(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), short_side=64)
    arguments = (frames, PropagationConfig(frames=2, radius=3))
    whole = evaluate_davis(SmallTransformer(), videos[1:], *arguments)
    broken(videos[0].frames[2])
    found = evaluate_davis(SmallTransformer(), videos, *arguments, on_unreadable=left_out)
    assert [each.regions.tolist() for each in found] == [each.regions.tolist() for each in whole]
    (line,) = left_out.lines
    assert line.startswith("the video slide: cannot read the image") and "00002.jpg" in line
    with pytest.raises(ValueError, match=r"cannot read the image .*00002\.jpg"):
        evaluate_davis(SmallTransformer(), videos, *arguments)
    with pytest.raises(ValueError, match="none of 1 videos can be read"):
        evaluate_davis(SmallTransformer(), videos[:1], *arguments, on_unreadable=left_out)


def test_skipped_count_is_in_the_result(tmp_path):
    whole = Result(
        task="knn", metric="top1", value=80.0, protocol="k=20", backbone="a", data="b", seed=0, machine="c", seconds=1.0
    )
    lacking = replace(whole, left_out=2)
    append_result(tmp_path / "results.jsonl", lacking)
    assert read_results(tmp_path / "results.jsonl") == [lacking] and '"left_out": 2' in lacking.line()
    append_result(tmp_path / "results.jsonl", whole)  # the files were repaired
    assert read_results(tmp_path / "results.jsonl") == [whole] and "left_out" not in whole.line()
