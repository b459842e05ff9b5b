import json
import multiprocessing
from dataclasses import asdict, replace
from io import StringIO

import pytest
import torch
from torch import nn

from ssl_eval import (
    Result,
    Table,
    append_result,
    append_results,
    backbone_hash,
    check_results,
    data_name,
    machine,
    read_results,
    tabulate,
)


def result(**changes) -> Result:
    base = Result(
        task="knn", metric="top1", value=80.0, protocol="k=20", backbone="abc", data="scenes", seed=0,
        machine=machine(), seconds=1.5, recipe="vanilla",
    )  # fmt: skip
    return replace(base, **changes)


def test_results_come_back_and_the_newest_of_each_identity_counts(tmp_path):
    path = tmp_path / "deep" / "results.jsonl"
    assert read_results(path) == []
    for value, seed in ((80.0, 0), (70.0, 1), (81.0, 0)):
        append_result(path, result(value=value, seed=seed))
    assert [(found.value, found.seed) for found in read_results(path)] == [(70.0, 1), (81.0, 0)]
    assert len(path.read_text().splitlines()) == 3
    append_result(path, result(value=82.0, recipe="another name of the same weights"))
    assert [found.value for found in read_results(path)] == [70.0, 81.0, 82.0]


def test_a_file_torn_at_any_byte_loses_only_its_last_line(tmp_path):
    path = tmp_path / "results.jsonl"
    first, second, third = result(seed=0), result(seed=1, data="Bäume"), result(seed=2)
    append_result(path, first)
    whole = path.stat().st_size
    append_result(path, second)
    content = path.read_bytes()
    for cut in range(whole, len(content) - 1):
        path.write_bytes(content[:cut])
        assert read_results(path) in ([first], [first, second])
        append_result(path, third)
        if cut in (whole, len(content) - 1):
            assert read_results(path) == [first, third]
            continue
        with pytest.warns(UserWarning, match="line 2 is broken off"):
            assert read_results(path) == [first, third]


def append_many(path, start: int) -> None:
    for seed in range(start, start + 50):
        append_result(path, result(seed=seed))


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    path = tmp_path / "results.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(path, start)) for start in (0, 50, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(found.seed for found in read_results(path)) == list(range(150))


def test_a_line_that_is_no_result_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    content = asdict(result())
    content.pop("metric")
    path.write_text(json.dumps(content) + "\n")
    with pytest.raises(ValueError, match="line 1 is not a result"):
        read_results(path)
    with pytest.raises(ValueError, match="finite"):
        result(value=float("nan"))


def test_the_hash_follows_the_weights_alone():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = backbone_hash(net)
    assert backbone_hash(net.eval().to(memory_format=torch.channels_last)) == before
    net[0].weight.data[0, 0, 0, 0] += 1e-3
    assert backbone_hash(net) != before


def test_a_table_has_mean_and_spread_over_seeds():
    results = [
        result(seed=0, value=80.0),
        result(seed=1, value=82.0, backbone="def"),
        result(seed=1, value=84.0, backbone="fed"),
        result(recipe="generative", value=85.5),
        result(recipe="generative", value=90.0, task="linear", protocol="100 epochs"),
        result(recipe="", value=10.0, data="a|b"),
    ]
    table = tabulate(results)
    assert table.header == ("recipe", "data", "knn top1 k=20", "linear top1 100 epochs")
    assert table.rows == [
        ("vanilla", "scenes", "82.00 ± 2.83 (2)", ""),
        ("generative", "scenes", "85.50", "90.00"),
        ("abc", "a|b", "10.00", ""),
    ]
    lines = table.markdown().splitlines()
    assert lines[1] == "| --- | --- | ---: | ---: |"
    assert lines[4] == "| abc | a\\|b | 10.00 |  |"


def test_lines_of_other_types_and_unwritable_files_are_told_in_a_line(tmp_path):
    path = tmp_path / "results.jsonl"
    for wrong, told in (({"value": None}, "value is None"), ({"seed": "0"}, "seed is '0'")):
        path.write_text(json.dumps(asdict(result()) | wrong) + "\n")
        with pytest.raises(ValueError, match=f"line 1 is not a result: {told}"):
            read_results(path)
    path.write_text(json.dumps(asdict(result())).replace("80.0", "NaN") + "\n")
    with pytest.raises(ValueError, match=r"line 1: .*expected a finite value"):
        read_results(path)
    with pytest.raises(ValueError, match=r"cannot write .*: a folder exists where a file is needed"):
        check_results(tmp_path)
    check_results(tmp_path / "new/results.jsonl")
    assert read_results(tmp_path / "new/results.jsonl") == []


def test_unwritable_results_are_printed(tmp_path, capsys):
    """Writing to /dev/full fails like a full disk."""
    found, path = [result(seed=seed, recipe="B\udc80ume") for seed in range(3)], tmp_path / "results.jsonl"
    append_results(path, found)
    assert read_results(path) == found and capsys.readouterr().out == ""
    with pytest.raises(
        ValueError, match=r"^cannot write /dev/full: [^\n]*; 3 results are printed as lines to append to it$"
    ):
        append_results("/dev/full", found)
    (tmp_path / "by hand.jsonl").write_text(capsys.readouterr().out)
    assert read_results(tmp_path / "by hand.jsonl") == found


def test_unreadable_results_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read the results in .*: Is a directory; give a file"):
        read_results(tmp_path)


def test_halves_of_a_data_set_have_names_of_their_own(tmp_path, monkeypatch):
    assert {data_name(f"/x/imagenet/{half}") for half in ("val", "v2")} == {"imagenet/val", "imagenet/v2"}
    assert data_name("/x/scenes/test/images") == "scenes/test"
    (tmp_path / "cifar/test").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cifar/test")
    assert data_name(".") == data_name("../test") == "cifar/test"


def test_rich_draws_a_table_and_takes_nothing_in_it_for_markup():
    console = pytest.importorskip("rich.console", reason="rich is not installed")
    table = Table(header=("encoder", "top1"), rows=[("ours [bold]", "81.03")], title="of [red]", caption="below")
    drawn = console.Console(width=60, file=StringIO())
    drawn.print(table)
    lines = drawn.file.getvalue()
    assert all(each in lines for each in ("of [red]", "encoder", "ours [bold]", "81.03", "below"))
    drawn.print(replace(table, title="", caption=""))
    assert len(drawn.file.getvalue().splitlines()) == 2 * len(lines.splitlines()) - 2
