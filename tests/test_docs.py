"""The pages of docs/: options and public names that they name exist, and their Python examples and notebooks run."""

import re
from pathlib import Path
from unittest import mock

import pytest

import viewgen

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("**/*.md"))
PACKAGES = sorted(ROOT.glob("packages/*/src"))
NOTEBOOKS = sorted(DOCS.glob("notebooks/*.ipynb"))
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


def options_in(page: Path) -> set[str]:
    """Return the command-line options in the text of a page, without those of other projects."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    if page.stem == "coming-from":  # the first column is another project's
        text = re.sub(r"(?m)^\|[^|]*\|", "|", text)
    return {name for code in re.findall(r"`([^`]+)`", text) for name in re.findall(r"(?<!\S)--([a-z][a-z0-9-]*)", code)}


def test_options_in_the_text_of_pages_exist():
    sources = [path.read_text() for top in ("packages", "benchmarks", "apps") for path in ROOT.glob(f"{top}/**/*.py")]
    text = "\n".join(sources)
    assert sum(len(options_in(page)) for page in PAGES) > 50
    unknown = []
    for page in PAGES:
        for option in options_in(page) - {"help", "extra", "group"}:  # the last two are uv's
            field = option.removeprefix("no-").replace("-", "_")
            if not re.search(rf'(?m)^\s+{field}: |"--{option}"', text):
                unknown.append(f"{page.name}: --{option}")
    assert not unknown


@pytest.mark.parametrize("code", EXAMPLES)
def test_python_examples_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("generate_views", "verify_views"):  # need weights and a GPU
        monkeypatch.setattr(viewgen, name, mock.create_autospec(getattr(viewgen, name)))
    exec(code, {})


@pytest.mark.parametrize("source", PACKAGES, ids=lambda path: path.parent.name)
def test_reference_has_every_public_name(source):
    griffe = pytest.importorskip("griffe")
    (package,) = [path.name for path in source.iterdir() if (path / "__init__.py").exists()]
    page = (DOCS / "reference" / f"{package.removeprefix('genviews_')}.md").read_text()
    modules = re.findall(r"(?m)^::: (\S+)", page)
    assert modules
    if package == "genviews_core":  # has no names of its own
        paths = [path for path in (source / package).glob("[a-z]*") if path.suffix == ".py" or path.is_dir()]
        assert {f"{package}.{path.stem}" for path in paths} == set(modules)
    loader = griffe.GriffeLoader(search_paths=PACKAGES)
    loader.load("genviews_core")
    loaded = loader.load(package)
    loader.resolve_aliases()
    for module in modules:
        found = loaded[module.removeprefix(f"{package}.")] if module != package else loaded
        names = found.exports if found.exports is not None else [n for n, m in found.members.items() if m.is_public]
        assert names, module
        for name in names:
            member = found.members[str(name)]
            assert member.docstring or member.is_attribute, f"{module}.{name} has no docstring"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, 4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit notebooks without outputs"
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
