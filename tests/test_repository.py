"""What the whole repository promises: the lock file names no address, libraries and apps keep to themselves."""

import ast
import importlib.util
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(p for part in ("packages", "apps", "benchmarks") for p in (ROOT / part).rglob("*.py"))
IMAGES = {"Image", "PIL.Image", "PIL", "cv2"}
FORBIDDEN_NAMES = {"utils", "common", "misc", "helpers"}


def _neutral_lock():
    spec = importlib.util.spec_from_file_location("neutral_lock", ROOT / ".ci" / "neutral_lock.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_neutral_form_keeps_pins_and_drops_addresses():
    lock = (
        '[[package]]\nname = "a"\nversion = "1.2"\nsource = { registry = "https://index.example/simple" }\n'
        'dependencies = [\n    { name = "b", source = { registry = "https://index.example/simple" } },\n]\n'
        'sdist = { url = "https://files.example/a.tar.gz", hash = "sha256:0" }\n'
        'wheels = [\n    { url = "https://files.example/a.whl", hash = "sha256:0" },\n]\n\n'
        '[package.metadata]\nrequires-dist = [{ name = "b" }]\n\n[package.metadata.requires-dev]\ndev = []\n\n'
        '[[package]]\nname = "b"\nversion = "3"\nsource = { editable = "packages/b" }\n'
    )
    assert _neutral_lock().neutral(lock) == (
        '[[package]]\nname = "a"\nversion = "1.2"\nsource = { registry = "." }\n'
        'dependencies = [\n    { name = "b", source = { registry = "." } },\n]\n\n'
        '[[package]]\nname = "b"\nversion = "3"\nsource = { editable = "packages/b" }\n'
    )


def test_the_committed_lock_has_no_address():
    """The working copy gains addresses on first use; what git holds must not."""
    import subprocess

    shown = subprocess.run(["git", "show", "HEAD:uv.lock"], cwd=ROOT, capture_output=True, text=True)
    if shown.returncode:
        pytest.skip("not a git checkout with a committed uv.lock")
    assert "://" not in shown.stdout
    assert shown.stdout == _neutral_lock().neutral(shown.stdout)


def test_no_module_has_a_name_that_says_nothing():
    assert not [p for p in SOURCES if p.stem in FORBIDDEN_NAMES]


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def test_apps_and_benchmarks_never_import_each_other():
    programs = [d for part in ("apps", "benchmarks") for d in (ROOT / part).iterdir() if any(d.glob("*.py"))]
    for program in programs:
        for path in program.glob("*.py"):
            for name in _imports(path):
                own = name.startswith(f"{program.parent.name}.{program.name}")
                assert own or name.partition(".")[0] not in ("apps", "benchmarks"), f"{path} imports {name}"


def test_no_module_of_a_program_shadows_another():
    """A folder that is run is on sys.path, so a module in it would hide a library of the same name."""
    installed = {*packages_distributions(), *sys.stdlib_module_names}
    for program in (d for part in ("apps", "benchmarks") for d in (ROOT / part).iterdir() if d.is_dir()):
        own = {path.stem for path in program.glob("*.py")} - {"__main__"}
        assert not own & installed, f"{program} hides {own & installed}"
        for path in program.glob("*.py"):
            bare = {name for name in _imports(path) if name.partition(".")[0] in own}
            assert not bare, f"{path} imports {bare} without its package"


def test_image_files_are_opened_in_one_place():
    """Image.open accepts formats that start programs; all code must use genviews_core.images."""
    opening = ROOT / "packages/core/src/genviews_core/images.py"
    for path in SOURCES:
        if "tests" in path.parts or path == opening:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "open":
                assert ast.unparse(node.value) not in IMAGES, f"{path} opens an image by itself"
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith(("torchvision.io", "imageio")), f"{path} decodes by itself"


def test_every_library_gives_the_same_weights_the_same_hash():
    """backbone.json, manifests and results name an encoder by it."""
    import torch

    import ssl_eval
    import sslzoo
    from genviews_core.backbones import backbone_hash
    from viewgen import ImageEncoder

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )
    hashes = {sslzoo.backbone_hash(network), ssl_eval.backbone_hash(network), ImageEncoder(network, size=8).hash}
    assert hashes == {backbone_hash(network)}


def test_no_message_suggests_installing_our_packages_from_an_index():
    """Our packages are on no index; a stranger could register their names."""
    ours = {"viewgen", "pairdata", "pairquality", "sslzoo", "ssl-eval", "genviews"}
    for path in [*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("*/*/*.py"), *ROOT.glob("packages/*/README.md")]:
        for found in re.findall(r"\bpip install ([^`;,\n]*)", path.read_text()):
            named = {re.split(r"[\[<>=]", word.strip("'\"()"))[0] for word in found.split()}
            assert not any(name in ours or name.startswith("genviews-") for name in named), (
                f"{path}: pip install {found}"
            )


@pytest.mark.parametrize("package", sorted(p.parent.name for p in ROOT.glob("packages/*/pyproject.toml")))
def test_packages_share_version_license_and_python(package):
    """One version, that of the workspace; a wheel carries the license, its types, and the Python versions tested."""
    import tomllib

    folder = ROOT / "packages" / package
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["project"]["dynamic"] == ["version"]
    source = project["tool"]["hatch"]["version"]
    found = re.search(source["pattern"], (folder / source["path"]).read_text(), flags=re.MULTILINE)
    assert found and found["version"] == workspace["version"]
    assert project["project"]["requires-python"] == workspace["requires-python"]
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert [*folder.glob("src/*/py.typed")]
