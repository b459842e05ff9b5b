"""apps/inspect as a user runs it, and its page in a headless Chromium driven over its debugging pipe."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import pairquality
import viewgen
from tests.in_process import run_program

APP = Path(__file__).resolve().parent.parent / "apps" / "inspect"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH (Debian: apt install chromium)")
ODD = "b/<i>\"&'ü 1.png"
COUNT, VIEWS = 12, 2


class Shifted:
    """The source, its colours moved by the seed, the more the stronger."""

    name, model_id, supervision, licence, model_hash = "unclip", "a <b>model</b>", "captions", "CC0", "abc"

    def condition(self, images):
        return images.float()

    def generate(self, condition, *, seeds, strength=None):
        assert strength is not None
        moves = [torch.randn(3, 1, 1, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (condition + torch.stack(moves) * strength.view(-1, 1, 1, 1) / 4).clamp(0, 255).byte()


def run(*arguments: object, expect: int = 0) -> str:
    """Run the app in this process and return what it printed."""
    return run_program(APP, *arguments, expect=expect)


@pytest.fixture(scope="module")
def made(tmp_path_factory, save_untrained) -> Path:
    """Images of a bright square on a dark ground, their views, an encoder of random weights and its PCA."""
    root = tmp_path_factory.mktemp("inspect")
    keys = [ODD, *(f"a/{place:02d}.png" for place in range(COUNT - 1))]
    rng = np.random.default_rng(0)
    for key in keys:
        pixels = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
        pixels[16:32, 24:40] = rng.integers(160, 255, 3)
        (root / "images" / key).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / "images" / key)
    levels = viewgen.parse_strength("random:0,100,200,300,400", None)
    viewgen.generate_views(root / "images", root / "views", Shifted(), views_per_image=VIEWS, strength=levels)
    viewgen.merge_journals(root / "views")
    save_untrained(root / "backbone", 48)
    encoder = pairquality.load_encoder(str(root / "backbone"))
    pixels = torch.stack([viewgen.read_image(root / "images" / key, 48) for key in keys])
    pairquality.fit_pca([encoder(pixels)], encoder=encoder, data="squares").save(root / "pca.safetensors")
    return root


@pytest.fixture(scope="module")
def page(made) -> Path:
    options = ["--pca", made / "pca.safetensors", "--out", made / "report.html", "--count", 8, "--scored", 24]
    printed = run(made / "images", made / "views", *options, "--extremes", 3, "--gamma", 5, "--device", "cpu")
    assert "of 24 pairs" in printed
    return made / "report.html"


class Cards(HTMLParser):
    """The data of each card of a page, its pictures and the tags of the whole page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cards, self.pictures, self.tags = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        if "data-order" in values:
            self.cards.append(values)
            self.pictures[values["id"]] = []
        elif tag == "img" and self.cards:
            self.pictures[self.cards[-1]["id"]].append(values["src"])


def rows_of(made: Path) -> dict[tuple[str, str], dict]:
    return {(row["key"], row["path"]): row for row in pq.read_table(made / "views/manifest.parquet").to_pylist()}


def picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_page_says_what_pairquality_says(made, page):
    """Scores, maps and weights of the page against the library, pair by pair."""
    encoder = pairquality.load_encoder(str(made / "backbone"))
    pca = pairquality.ForegroundPCA.load(made / "pca.safetensors", encoder)
    text = page.read_text()
    parsed = Cards(text)
    facts = [dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", part)) for part in text.split('class="facts"')[1:]]
    weights = re.findall(r'class="weight"[^>]*>× <span>([\d.]+)<', text)
    rows = {row["path"]: row for row in rows_of(made).values()}
    qualities = {}
    for row in rows.values():
        paths = made / "images" / row["key"], made / "views" / row["path"]
        features = encoder(torch.stack([viewgen.read_image(path, encoder.size) for path in paths]))
        maps = pairquality.foreground_maps(pca, features)
        scores = pairquality.pair_scores(features[:1], features[1:], maps[:1], maps[1:])
        qualities[row["path"]] = (float(scores.quality), maps, float(scores.foreground))
    every = pairquality.pair_weights(torch.tensor([quality for quality, *_ in qualities.values()]), 5.0)
    expected = dict(zip(qualities, every.tolist(), strict=True))
    assert len(facts) == len(parsed.cards) == len(weights)
    for card, fact, weight in zip(parsed.cards, facts, weights, strict=True):
        path = fact["File"].replace("&lt;", "<").replace("&gt;", ">").replace("&#34;", '"').replace("&#39;", "'")
        row = rows[path.replace("&amp;", "&")]
        quality, maps, foreground = qualities[row["path"]]
        assert card["data-key"] == row["key"] and fact["Seed"] == str(row["seed"])
        assert float(card["data-strength"]) == row["strength"] and fact["Noise level"] == f"{row['strength']:g}"
        assert fact["Licence"] == "CC0" and fact["Supervision"] == "captions"
        assert float(card["data-quality"]) == pytest.approx(quality, abs=2e-5)
        assert float(card["data-foreground"]) == pytest.approx(foreground, abs=2e-5)
        assert float(weight) == pytest.approx(expected[row["path"]], abs=2e-3)
        _, source_map, _, view_map = map(picture, parsed.pictures[card["id"]])
        for shown, true in zip((source_map, view_map), maps, strict=True):
            assert np.abs(shown / 255 - true.numpy().reshape(shown.shape)).max() < 0.01


def test_a_random_sample_and_the_best_and_worst_are_shown(made, page):
    cards = Cards(page.read_text()).cards
    found = {why: [card for card in cards if why in card["data-set"].split()] for why in ("sample", "best", "worst")}
    assert sorted(int(card["data-order"]) for card in found["sample"]) == list(range(8))
    qualities = json.loads(re.search(r'id="qualities">(.*?)<', page.read_text())[1])
    assert len(qualities) == COUNT * VIEWS
    shown = {why: sorted(float(card["data-quality"]) for card in cards) for why, cards in found.items()}
    assert shown["worst"] == pytest.approx(sorted(qualities)[:3])
    assert shown["best"] == pytest.approx(sorted(qualities)[-3:])


def test_the_histograms_count_every_view_and_every_scored_pair(made, page):
    text = page.read_text()
    figures = dict(re.findall(r"<figcaption>([^<\n]*).*?(<svg.*?</svg>)", text, re.DOTALL))
    bars = {title.strip(): re.findall(r"<title>(.*?): ([\d,]+)</title>", svg) for title, svg in figures.items()}
    levels = [f"{row['strength']:g}" for row in rows_of(made).values()]
    assert dict(bars["Noise level of all views"]) == {level: str(levels.count(level)) for level in set(levels)}
    qualities = json.loads(re.search(r'id="qualities">(.*?)<', text)[1])
    for span, count in bars["Quality q of the scored pairs"]:
        low, high = map(float, span.split(" to "))
        assert int(count) == sum(low <= quality < high or quality == high == max(qualities) for quality in qualities)
    assert sum(int(count) for _, count in bars["Quality q of the scored pairs"]) == len(qualities)
    ratios = bars["Foreground ratio, scored pairs"]
    for name in ("source", "view"):
        assert sum(int(count) for says, count in ratios if says.startswith(name)) == len(qualities)


def test_the_page_holds_everything_and_no_markup_of_keys(page):
    text = page.read_text()
    links = [values[name] for _, values in Cards(text).tags for name in ("src", "href") if name in values]
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert "default-src 'none'" in text
    assert "b/<i>" not in text and "<b>model" not in text


def test_the_same_run_gives_the_same_page_and_another_seed_another(made, page, tmp_path):
    plain = [made / "images", made / "views", "--count", 6]
    pages = [tmp_path / f"{place}.html" for place in range(3)]
    for path, seed in zip(pages, (0, 0, 1), strict=True):
        run(*plain, "--out", path, "--seed", seed)
    same, again, other = ([card["data-key"] for card in Cards(path.read_text()).cards] for path in pages)
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert len(same) == 6 and same == again != other
    assert "Pairs are not scored" in pages[0].read_text() and 'name="qmin"' not in pages[0].read_text()


@pytest.mark.slow
def test_a_million_views_are_counted_and_drawn_in_bounded_memory(made, tmp_path):
    table = pq.read_table(made / "views/manifest.parquet")
    views = tmp_path / "views"
    shutil.copytree(made / "views", views)
    total, part = 1_000_000, 100_000
    with pq.ParquetWriter(views / "manifest.parquet", table.schema, compression="zstd") as writer:
        for start in range(0, total, part):
            rows = table.take(pa.array(np.arange(start, start + part) * len(table) // total))
            seeds = pa.array(np.arange(start, start + part))
            writer.write_table(rows.set_column(rows.schema.get_field_index("seed"), rows.schema.field("seed"), seeds))
    watched = (
        "import resource, runpy, sys; sys.argv = sys.argv[1:]; import torch, viewgen, pairquality, sslzoo, jinja2;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; runpy.run_path(sys.argv[0], run_name='__main__');"
        "print('grew', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    arguments = [APP, made / "images", views, "--out", tmp_path / "report.html", "--count", 200]
    done = subprocess.run([sys.executable, "-c", watched, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grew = int(re.search(r"grew (\d+)", done.stdout)[1]) / 1024
    assert grew < 400, f"{grew:.0f} MB more for a million rows"
    text = (tmp_path / "report.html").read_text()
    assert "1,000,000" in text and re.search(r"<dt>images</dt><dd>12</dd>", text)
    seeds = np.array([int(seed) for seed in re.findall(r"<dt>Seed</dt><dd>(\d+)</dd>", text)])
    assert len(np.unique(seeds)) == 200
    assert abs(seeds.mean() / total - 0.5) < 0.1 and seeds.min() < 0.05 * total and seeds.max() > 0.95 * total


def test_pictures_that_cannot_be_read_are_listed(made, tmp_path):
    views = tmp_path / "views"
    shutil.copytree(made / "views", views)
    (views / "a/03.png.0.png").write_bytes(b"broken")
    (views / "a/04.png.1.png").unlink()
    for scored in ([], ["--pca", made / "pca.safetensors", "--device", "cpu"]):
        run(made / "images", views, "--out", tmp_path / "report.html", *scored)
        text = (tmp_path / "report.html").read_text()
        assert len(Cards(text).cards) == COUNT * VIEWS - 2
        assert "2 of the sampled pairs could not be read" in text and "<dt>a/03.png.0.png</dt>" in text


def test_partners_are_shown_beside_interpolated_views(made, tmp_path):
    views = tmp_path / "views"
    shutil.copytree(made / "views", views)
    rows = pq.read_table(views / "manifest.parquet").to_pylist()
    rows = [row | {"partner_key": "a/00.png", "alpha": 0.25} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(views / "manifest.parquet")), views / "manifest.parquet")
    run(made / "images", views, "--out", tmp_path / "report.html", "--count", 3)
    parsed = Cards((tmp_path / "report.html").read_text())
    for pictures in parsed.pictures.values():
        expected = viewgen.read_image(made / "images/a/00.png", 48).permute(1, 2, 0).numpy()
        assert np.abs(picture(pictures[2]).astype(int) - expected).mean() < 12
    assert "alpha 0.25 · with a/00.png" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"views": "{made}/images"}, "viewgen index"),
        ({"views": "/no/such/views"}, "/no/such/views"),
        ({"images": "/no/such/images"}, "got none among 24"),
        ({"--pca": "/no/such/pca"}, "/no/such/pca"),
        ({"--encoder": "{made}/backbone"}, "--pca"),
        ({"--pca": "{made}/pca.safetensors", "--encoder": "nothing"}, "nothing"),
        ({"--count": "0"}, "1 or more"),
        ({"--out": "/proc/no/report.html"}, "cannot write"),
    ],
)
def test_a_mistake_gives_one_line(made, changes, says, tmp_path):
    options = {"images": "{made}/images", "views": "{made}/views", "--out": f"{tmp_path}/x.html"} | changes
    options = {name: value.format(made=made) for name, value in options.items()}
    images, views = options.pop("images"), options.pop("views")
    printed = run(images, views, *(part for pair in options.items() for part in pair), expect=1)
    line = printed.strip().splitlines()[-1]
    assert "Traceback" not in printed
    assert line.startswith("error: ") and says in line


class Browser:
    """A headless Chromium, spoken to in its DevTools protocol over two pipes."""

    def __init__(self, profile: str) -> None:
        (theirs, self._write), (self._read, ours) = os.pipe(), os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
        command = [str(CHROMIUM), *flags, f"--user-data-dir={profile}", "about:blank"]
        plumbing = f'exec 3<&{theirs} 4>&{ours} "$@"'  # Chromium listens on file 3 and answers on 4
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(["bash", "-c", plumbing, "-", *command], pass_fds=(theirs, ours), **quiet)
        os.close(theirs), os.close(ours)
        self._rest, self._count, self._session, self.events = b"", 0, {}, []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: object) -> dict:
        self._count += 1
        call = {"id": self._count, "method": method, "params": params, **self._session}
        os.write(self._write, json.dumps(call).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium went away"
            self._rest += data
        answer, _, self._rest = self._rest.partition(b"\0")
        return json.loads(answer)

    def open(self, path: Path, state: str = "", *, width: int = 1440, dark: bool = False) -> None:
        self("Page.navigate", url="about:blank")
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self("Page.navigate", url=path.as_uri() + state)
        ready = "document.readyState === 'complete' && location.protocol === 'file:'"
        while not self.js(ready):
            pass

    def js(self, code: str):
        """The value of an expression, once a promise is kept."""
        told = self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def press(self, *keys: str) -> None:
        for key in keys:
            text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
            codes = {"Enter": 13, "Escape": 27, "Tab": 9}
            code = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
            self("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **code)
            self("Input.dispatchKeyEvent", type="keyUp", key=key, **code)
        self.js("new Promise(done => setTimeout(done, 50))")

    def close(self) -> None:
        os.close(self._write)
        self._process.wait(30)
        os.close(self._read)


@pytest.fixture(scope="module")
def browser():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        chromium = Browser(profile)
        yield chromium
        chromium.close()


SHOWN = "[...document.querySelectorAll('#pairs > li:not([hidden])')].map(card => ({...card.dataset}))"


def shown(browser: Browser) -> list[dict]:
    cards = browser.js(SHOWN)
    told = browser.js("document.querySelector('#count').textContent")
    assert int(told.split()[0]) == len(cards)
    return cards


@needs_chromium
def test_the_page_filters_and_sorts_as_its_address_says(browser, page):
    every = Cards(page.read_text()).cards
    browser.open(page)
    cards = shown(browser)
    assert [float(card["quality"]) for card in cards] == sorted((float(c["data-quality"]) for c in every), reverse=True)
    middle = sorted(float(card["data-quality"]) for card in every)[len(every) // 2]
    browser.open(page, f"#sort=quality&qmax={middle:f}&smin=100&smax=300")
    found = [float(card["quality"]) for card in shown(browser)]
    expected = [c for c in every if float(c["data-quality"]) <= middle and 100 <= float(c["data-strength"]) <= 300]
    assert 0 < len(found) < len(every) and found == sorted(float(card["data-quality"]) for card in expected)
    browser.open(page, "#text=A%2F0&sort=key")
    keys = [card["key"] for card in shown(browser)]
    assert keys == sorted(card["data-key"] for card in every if "a/0" in card["data-key"])
    browser.open(page, "#set=worst")
    assert len(shown(browser)) == 3
    browser.open(page, "#generator=none&sort=none")
    assert len(shown(browser)) == len(every)
    browser.open(page, "#text=nowhere")
    assert shown(browser) == [] and not browser.js("document.querySelector('#none').hidden")


@needs_chromium
def test_gamma_is_weighed_in_the_page_as_in_the_library(browser, page):
    qualities = json.loads(re.search(r'id="qualities">(.*?)<', page.read_text())[1])
    read = "card => [Number(card.dataset.quality), Number(card.querySelector('.weight span').textContent)]"
    for gamma in (0.0, 5.0, 20.0):
        browser.open(page, f"#gamma={gamma}")
        weights = pairquality.pair_weights(torch.tensor(qualities), gamma)
        expected = dict(zip(qualities, weights.tolist(), strict=True))
        for quality, weight in browser.js(f"[...document.querySelectorAll('#pairs > li')].map({read})"):
            assert weight == pytest.approx(expected[quality], abs=2e-3)
        effective = 100 * float(weights.sum() ** 2 / weights.square().sum()) / len(weights)
        told = browser.js("document.querySelector('#effective').textContent")
        assert float(told.rstrip("%")) == pytest.approx(effective, abs=0.06)


@needs_chromium
def test_the_page_works_from_the_keyboard(browser, page):
    browser.open(page)
    active = "document.activeElement.closest('li')?.id ?? document.activeElement.name ?? ''"
    order = [f"pair-{card['order']}" for card in shown(browser)]
    columns = browser.js("getComputedStyle(document.querySelector('#pairs')).gridTemplateColumns.split(' ').length")
    browser.js("document.querySelector('#pairs .pair').focus()")
    browser.press("ArrowRight", "ArrowDown")
    assert columns > 1 and browser.js(active) == order[1 + columns]
    browser.press("Enter")
    assert browser.js("document.querySelector('dialog').open") and f"pair={order[1 + columns]}" in browser.js(
        "location.hash"
    )
    browser.press("ArrowLeft")
    key = browser.js(f"document.getElementById('{order[columns]}').dataset.key")
    assert browser.js("document.querySelector('#enlarged-key').textContent") == key
    assert key in browser.js("document.querySelector('dialog .facts').innerText")
    browser.press("Escape")
    assert not browser.js("document.querySelector('dialog').open")
    assert browser.js(active) == order[columns] and browser.js("location.hash") == ""
    browser.press("m")
    assert browser.js("document.documentElement.dataset.map") == "heat"
    browser.press("/")
    assert browser.js(active) == "text"
    browser.press("ü")
    assert {card["key"] for card in shown(browser)} <= {ODD} and browser.js("location.hash") == "#text=%C3%BC&map=heat"


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])
def test_the_page_fits_any_screen_asks_for_nothing_and_names_its_controls(browser, page, width, dark):
    browser.open(page, "#map=heat", width=width, dark=dark)
    browser.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert browser.js("document.documentElement.scrollWidth") <= width
    asked = {e["params"]["request"]["url"].split(":")[0] for e in browser.events if e["method"].endswith("WillBeSent")}
    assert asked == {"file", "data"}
    assert not [e for e in browser.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
    assert all(browser.js("[...document.images].map(image => image.complete && image.naturalWidth > 0)"))
    paper = browser.js("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == dark
    browser("Accessibility.enable")
    nodes = browser("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "searchbox", "combobox", "spinbutton", "slider", "image", "dialog"}
    unnamed = [
        node
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in roles and not node.get("name", {}).get("value")
    ]
    assert len(nodes) > 100 and not unnamed
    image = browser("Page.captureScreenshot", format="png")["data"]
    pixels = np.asarray(Image.open(BytesIO(base64.b64decode(image))).convert("RGB"))
    assert pixels.shape[:2] == (900, width) and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
