"""Tiny notebooks, written by the tests and run in real kernels."""

from pathlib import Path

import pytest
from tiny_notebooks import PARAMETERS, code, md, write_notebook


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three notebooks; the third reads what the second wrote."""
    here = tmp_path / "project" / "notebooks"
    for data in ("data/x", "d"):
        (here.parent / data).mkdir(parents=True)
    write_notebook(here / "01_first.ipynb", md("# First"), code(PARAMETERS, "parameters"))
    write_notebook(
        here / "02_second.ipynb",
        md("# Second"),
        code(PARAMETERS + "\nscale: float = 1.0", "parameters"),
        code("from pathlib import Path\nPath(run_dir, 'made.txt').write_text(str(seed * scale))"),
    )
    write_notebook(
        here / "03_third.ipynb",
        md("# Third"),
        code('run_dir: str = ""\ndata_dir: str = "nowhere"', "parameters"),
        code("from pathlib import Path\nprint(Path(run_dir, 'made.txt').read_text(), data_dir)"),
        code("import os\nprint(os.getcwd())"),
    )
    return here
