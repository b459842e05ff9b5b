import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "code",
    [
        "import ssl_eval; ssl_eval.PROTOCOLS, ssl_eval.read_results, ssl_eval.EvalGrid, ssl_eval.tabulate",
        "import ssl_eval.cli; ssl_eval.cli._parser().format_help()",
    ],
)
def test_configuration_and_help_cost_no_torch(code):
    subprocess.run([sys.executable, "-c", f"{code}; import sys; assert 'torch' not in sys.modules"], check=True)
