"""Reports: what they say against the results they are made of, and the page in a headless Chromium."""

import csv
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean, stdev

import pytest

pytest.importorskip("jinja2", reason="genviews-ssl-eval[report] is not installed")
pytest.importorskip("matplotlib", reason="genviews-ssl-eval[report] is not installed")

from ssl_eval.cli import main
from ssl_eval.report import write_report
from ssl_eval.report.metadata import format_measured, format_number, read_metadata
from ssl_eval.results import Result, append_result, read_results
from ssl_eval.table import confidence_interval, group_results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH (Debian: apt install chromium)")
ODD = 'one view <i>&"'
VALUES = {
    "no views": {0: 70.0, 1: 71.0, 2: 72.0},
    ODD: {0: 74.5, 1: 75.5, 2: 75.0},
    "four views": {0: 76.25},
}
FACTS = (
    ("recipe", "series", "views", "cost (GPU-hours)"),
    ("no views", "", 0, ""),
    (ODD, "GenView", 1, 2.5),
    ("four views", "GenView", 4, 10),
)


def result(**changes) -> Result:
    base = Result(
        task="linear", metric="top1", value=0.0, protocol="100 epochs", backbone="a" * 32, data="CIFAR-10", seed=0,
        machine="x86 <2 cores>", seconds=12.5, recipe="no views",
    )  # fmt: skip
    return replace(base, **changes)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    for recipe, values in VALUES.items():
        for seed, value in values.items():
            named = {"recipe": recipe, "seed": seed, "backbone": f"{recipe.split()[0]}-{seed}"}
            append_result(folder / "linear.jsonl", result(value=value - 9, **named))
            append_result(folder / "linear.jsonl", result(value=value, **named))
            append_result(folder / "knn.jsonl", result(task="knn", protocol="k=20", value=value - 5, **named))
    for recipe, value in (("no views", 3.5), (ODD, 9.0)):
        fid = result(task="views", metric="fid", protocol="", value=value, data="views", recipe=recipe, backbone=recipe)
        append_result(folder / "knn.jsonl", fid)
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(FACTS)
    return folder


@pytest.fixture(scope="module")
def page(files) -> Path:
    sources = [files / "linear.jsonl", files / "knn.jsonl"]
    return write_report(sources, files / "out", metadata=files / "metadata.csv", title="Views & <more>")[0]


class Page(HTMLParser):
    """Tags with their attributes, and the text of each cell and row head of the tables of results."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.rows, self._inside, self._open = [], [], False, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self._inside = values.get("class") == "results" if tag == "table" else self._inside
        self._open = self._inside and tag in ("td", "th")
        if self._inside and tag == "tr":
            self.rows.append([])
        elif self._open:
            self.rows[-1].append(["", values])

    def handle_endtag(self, tag):
        self._inside = self._inside and tag != "table"

    def handle_data(self, data):
        if self._inside and self.rows and self.rows[-1]:
            self.rows[-1][-1][0] += data


def test_confidence_intervals_use_the_quantiles_of_students_t():
    """NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2."""
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042, 100: 1.984}

    def quantile(freedom, confidence=0.95):
        values = [float(k % 7) for k in range(freedom + 1)]
        return round(confidence_interval(values, confidence) * math.sqrt(len(values)) / stdev(values), 3)

    assert {freedom: quantile(freedom) for freedom in table} == table
    assert quantile(7, 0.99) == 3.499 and quantile(2, 0.9) == 2.920
    assert confidence_interval([70.0]) is None


def test_the_best_mean_is_the_lowest_where_lower_is_better():
    found = [
        result(recipe=str(place), metric=metric, value=float(place))
        for metric in ("top1", "fid", "ssim")
        for place in (1, 2)
    ]
    [section] = group_results(found)
    assert [section.best(column) for column in section.columns] == [{"2"}, {"1"}, set()]
    assert group_results([result()])[0].best(section.columns[0]) == set()


def test_numbers_are_written_to_be_read():
    assert [format_number(value) for value in (4.0, 21.5, -0.25, 116e6)] == ["4", "21.5", "−0.25", "116,000,000"]
    told = [format_measured(value) for value in (70.0, 71.234, 0.4312, -0.5, 116e6, 0.0)]
    assert told == ["70.00", "71.23", "0.431", "−0.500", "116,000,000", "0.00"]


def test_markdown_and_csv_say_what_the_results_say(files, page):
    assert "| no views | CIFAR-10 | 71.00 ± 1.00 (3) | 66.00 ± 1.00 (3) |" in (files / "out/report.md").read_text()
    rows = list(csv.DictReader((files / "out/report.csv").open(newline="")))
    assert len(rows) == 2 * len(VALUES) + 2
    for row in rows:
        if row["task"] != "linear":
            continue
        values = list(VALUES[row["recipe"]].values())
        assert float(row["mean"]) == pytest.approx(mean(values)) and row["seeds"] == " ".join(
            map(str, range(len(values)))
        )
        assert row["backbones"].split() == [f"{row['recipe'].split()[0]}-{seed}" for seed in range(len(values))]
        if len(values) > 1:
            assert float(row["high"]) - float(row["low"]) == pytest.approx(2 * confidence_interval(values))
        else:
            assert row["deviation"] == row["low"] == row["high"] == ""


HOSTILE = (
    "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\uff1d1", 'a;=1";=2', "<img src=x onerror=alert(1)>",
    "a\n\n# b", "![x](http://y)", "[x](javascript:y)", "&lt;b>", "**x** __y__ ~~z~~ `q`", "a|b\\|c", "val_480p",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_untrusted_names_are_escaped(name, tmp_path):
    """No CSV cell starts a formula, with any separator; Markdown lines stay single lines without markup."""
    odd = {"recipe": name, "data": name, "task": name, "metric": name, "protocol": name, "machine": name}
    append_result(tmp_path / "odd.jsonl", result(**odd, backbone=name))
    write_report([tmp_path / "odd.jsonl"], tmp_path / "out", title=name)
    text = (tmp_path / "out/report.csv").read_text()
    for separator in ",;\t":
        cells = [cell for row in csv.reader(text.splitlines(), delimiter=separator) for cell in row]
        assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "@", "-", "\uff1d"))]
    [row] = csv.DictReader((tmp_path / "out/report.csv").open(newline=""))
    assert {row[each].replace("'", "") for each in ("recipe", "data", "task", "backbones", "machines")} == {
        name.replace("'", "")
    }
    shown = (tmp_path / "out/report.md").read_text()
    lines = shown.splitlines()
    assert len(lines) == 11 and lines[0].startswith("# ") and len([each for each in lines if each[:1] == "|"]) == 3
    cells = re.split(r"(?<!\\)\|", lines[4].replace("\\\\", ""))
    assert len(cells) == 5 and not re.search(r"<|(?<!\\)[\[\]`*~]|&lt;b", shown)
    if name == "val_480p":
        assert lines[0] == "# val_480p"


def test_the_page_says_what_the_results_say(page):
    rows = Page(page.read_text()).rows
    head, *body = rows[: 1 + len(VALUES)]
    assert [" ".join(text.split()) for text, _ in head] == [
        "recipe", "views", "cost (GPU-hours)", "linear top1 100 epochs", "knn top1 k=20",
    ]  # fmt: skip
    for (recipe, values), row in zip(VALUES.items(), body, strict=True):
        assert row[0][0].strip() == recipe
        assert float(row[3][1]["data-value"]) == pytest.approx(mean(values.values()))
        spread = f"± {stdev(values.values()):.2f} " if len(values) > 1 else ""
        assert " ".join(row[3][0].split()) == f"{mean(values.values()):.2f} {spread}{len(values)}"
        assert (row[3][1].get("class") == "best") == (recipe == "four views")
    assert [row[1][1].get("data-value") for row in body] == ["0.0", "1.0", "4.0"] and body[0][2][0].strip() == ""
    assert [row[-1][1].get("class") for row in rows[2 + len(VALUES) :]] == ["best", None]


def test_the_page_tells_what_is_behind_each_number_and_holds_everything(files, page):
    text = page.read_text()
    tags = Page(text).tags
    targets = {values["popovertarget"] for _, values in tags if "popovertarget" in values}
    popovers = {values["id"] for _, values in tags if "popover" in values}
    assert targets == popovers and len(popovers) == 2 * len(VALUES) + 2
    for found in (*read_results(files / "linear.jsonl"), *read_results(files / "knn.jsonl")):
        assert escape(found.backbone, quote=False) in text.replace("&#34;", '"')
    assert "x86 &lt;2 cores&gt;" in text and "x86 <2" not in text and "<i>&" not in text and "<more>" not in text
    links = [values[name] for _, values in tags for name in ("src", "href", "xlink:href") if name in values]
    assert links and all(link.startswith("#") for link in links) and "default-src 'none'" in text
    identities = [values["id"] for _, values in tags if "id" in values]
    assert len(identities) == len(set(identities)), "two elements have one id"
    assert not re.search(r"#0a0b\d\d", text), "a colour of the rng_scope was left in the page"


def test_the_same_results_give_the_same_report(files, page):
    again = write_report(
        [files / "linear.jsonl", files / "knn.jsonl"],
        files / "again",
        metadata=files / "metadata.csv",
        title="Views & <more>",
    )
    assert [path.read_bytes() for path in again] == [(page.parent / path.name).read_bytes() for path in again]


def figures(page: Path) -> dict[str, str]:
    found = re.findall(r"<figcaption>(.*?)(?:<small>.*?)?</figcaption>(<svg.*?</svg>)", page.read_text(), re.DOTALL)
    return dict(found)


def test_plots_show_means_with_their_intervals(page):
    shown = figures(page)
    assert list(shown) == [
        "linear top1 against views", "linear top1 against cost (GPU-hours)", "knn top1 against views",
        "knn top1 against cost (GPU-hours)", "linear top1 by recipe", "knn top1 by recipe", "views fid against views",
        "views fid by recipe",
    ]  # fmt: skip
    svg = shown["linear top1 against views"]
    assert (
        len(re.findall("<title>", svg)) == 3
        and len(re.findall("<title>", shown["linear top1 against cost (GPU-hours)"])) == 2
    )
    assert (
        "no views: 71.00, 95% interval 68.52 to 73.48, 3 seeds, views 0" in svg and "four views: 76.25, one seed" in svg
    )
    bars = [
        [float(part) for part in bar]
        for bar in re.findall(r'LineCollection">\s*<path d="M (\S+) (\S+) \s*L (\S+) (\S+)', svg)
    ]
    marks = [
        (float(x), float(y)) for x, y in re.findall(r'<title>.*?<use [^>]*x="([\d.]+)" y="([\d.]+)"', svg, re.DOTALL)
    ]
    assert len(bars) == 2 and len(marks) == 3
    for (left, low, right, high), (x, y) in zip(bars, marks, strict=False):
        assert left == right == pytest.approx(x, abs=1e-3) and (low + high) / 2 == pytest.approx(y, abs=1e-3)
    reaches = [confidence_interval(list(values.values())) for values in list(VALUES.values())[:2]]
    assert (bars[0][1] - bars[0][3]) / (bars[1][1] - bars[1][3]) == pytest.approx(reaches[0] / reaches[1], rel=1e-3)
    scale = (marks[0][1] - marks[2][1]) / (76.25 - 71.0)
    assert (bars[0][1] - bars[0][3]) / 2 / reaches[0] == pytest.approx(scale, rel=1e-3)


def test_wide_spans_are_logarithmic_and_no_name_is_a_formula(tmp_path):
    names = ("costs $1 and $2", "ten", "a thousand")
    for name, value in zip(names, (0.5, 20.0, 900.0), strict=True):
        append_result(tmp_path / "r.jsonl", result(metric="milliseconds", value=value, recipe=name, backbone=name))
    svg = figures(write_report([tmp_path / "r.jsonl"], tmp_path)[0])["linear milliseconds by recipe"]
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", svg)
    assert set(names) <= set(texts) and {"1", "10", "100"} <= set(texts)
    marks = [float(x) for x in re.findall(r'<title>.*?<use [^>]*x="([\d.]+)"', svg, re.DOTALL)]
    assert (marks[2] - marks[1]) / (marks[1] - marks[0]) == pytest.approx(math.log(45) / math.log(40), rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"results": "no/such.jsonl"}, "expected results at no/such.jsonl, got no file"),
        ({"results": "{files}/empty.jsonl"}, "empty.jsonl, got none"),
        ({"results": "{files}/other.jsonl"}, "line 1 is not a result"),
        ({"--metadata": "no/such.csv"}, "expected a CSV file at no/such.csv"),
        ({"--metadata": "{files}/names.csv"}, "line 2: the recipe 'another' has no result"),
        ({"--metadata": "{files}/twice.csv"}, "line 3: the recipe 'no views' is repeated"),
        ({"--metadata": "{files}/words.csv"}, "line 2, views: expected a number, got 'many'"),
        ({"--metadata": "{files}/alone.csv"}, "expected a column recipe and a numeric column"),
        ({"--out": "/proc/no/report"}, "cannot write"),
    ],
)
def test_a_mistake_gives_one_line(files, changes, says, tmp_path, capsys):
    (files / "empty.jsonl").write_text("")
    (files / "other.jsonl").write_text(json.dumps({"loss": 1.0}) + "\n")
    (files / "names.csv").write_text("recipe,views\nanother,1\n")
    (files / "twice.csv").write_text("recipe,views\nno views,1\nno views,2\n")
    (files / "words.csv").write_text("recipe,views\nno views,many\n")
    (files / "alone.csv").write_text("recipe,series\nno views,a\n")
    options = {"results": "{files}/linear.jsonl", "--out": str(tmp_path / "out")} | changes
    options = {name: value.format(files=files) for name, value in options.items()}
    with pytest.raises(SystemExit) as stop:
        main(["report", options.pop("results"), *(part for pair in options.items() for part in pair)])
    line = str(stop.value)
    assert line.startswith("error: ") and says in line and "\n" not in line


def test_the_command_tells_what_it_wrote_and_of_lines_broken_off(files, tmp_path, capsys):
    whole = (files / "linear.jsonl").read_text()
    (tmp_path / "torn.jsonl").write_text(whole[:30] + "\n" + whole)
    main(["report", str(tmp_path / "torn.jsonl"), "--out", str(tmp_path / "out")])
    told = capsys.readouterr()
    assert told.out.split() == [str(tmp_path / "out" / f"report.{kind}") for kind in ("html", "md", "csv")]
    assert told.err.startswith("warning: ") and "line 1 is broken off" in told.err
    assert "against" not in (tmp_path / "out/report.html").read_text().partition("<footer>")[0].partition("<main")[2]


def test_empty_metadata_cells_are_unknown(files):
    metadata = read_metadata(files / "metadata.csv", list(VALUES))
    assert metadata.values == {
        "views": {"no views": 0, ODD: 1, "four views": 4},
        "cost (GPU-hours)": {ODD: 2.5, "four views": 10},
    }
    assert metadata.series == {ODD: "GenView", "four views": "GenView"}


ASKED = """
const told = {};
const results = document.querySelector(".results");
const names = () => [...results.tBodies[0].rows].map((row) => row.cells[0].textContent);
const press = (place) => results.tHead.rows[0].cells[place].querySelector("button").click();
told.given = names(); press(3); told.falling = names(); press(3); told.rising = names(); press(3); told.again = names();
press(2); told.cost = names(); press(0); told.named = names(); told.sorted = results.tHead.rows[0].cells[0].ariaSort;
document.querySelector("[popovertarget]").click();
told.open = document.querySelector(":popover-open").textContent.replace(/\\s+/g, " ");
document.querySelector(".every").open = true;
const find = document.querySelector("#find");
find.value = "four KNN"; find.dispatchEvent(new Event("input"));
told.lines = document.querySelectorAll(".lines tbody tr:not([hidden])").length;
told.wide = document.documentElement.scrollWidth - innerWidth;
const hues = [...document.querySelectorAll("figure [style*='--hue-0']")].map((mark) => getComputedStyle(mark).stroke);
told.hues = [...new Set(hues)];
document.body.textContent = "told" + JSON.stringify(told);
"""


@needs_chromium
@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_sorts_finds_and_tells_in_a_browser(page, tmp_path, width):
    asking = page.read_text().replace("</body>", f'<script type="module">{ASKED}</script></body>')
    (tmp_path / "page.html").write_text(asking)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--window-size={width},900"]
    command = [
        str(CHROMIUM),
        *flags,
        f"--user-data-dir={tmp_path}/profile",
        "--dump-dom",
        (tmp_path / "page.html").as_uri(),
    ]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    told = json.loads(
        re.search(r"told(\{.*\})", printed)[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )
    given = list(VALUES)
    assert told["given"] == told["again"] == told["rising"] == given and told["falling"] == given[::-1]
    assert told["cost"] == ["four views", ODD, "no views"] and told["named"] == [ODD, "no views", "four views"]
    assert told["sorted"] == "descending" and "95% interval" in told["open"]
    assert told["lines"] == 1 and told["wide"] <= 0
    assert told["hues"] and all(hue.startswith("rgb") or hue == "none" for hue in told["hues"])
