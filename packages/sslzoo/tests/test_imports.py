import subprocess
import sys

CODE = """
import sys
import sslzoo
{body}
print(*sorted({{"torch", "torchvision", "timm", "tensorboard"}} & set(sys.modules)))
"""


def imported(body: str) -> str:
    done = subprocess.run([sys.executable, "-c", CODE.format(body=body)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_sslzoo_imports_no_torch_and_its_names_only_torch():
    assert imported("") == ""
    assert imported("[getattr(sslzoo, name) for name in sslzoo.__all__]") == "torch"


def test_help_imports_no_torch():
    body = "import contextlib, io, sslzoo.cli\nsys.argv = ['sslzoo', 'export', '--help']\n"
    assert (
        imported(
            body + "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): sslzoo.cli.main()"
        )
        == ""
    )
