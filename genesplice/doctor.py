"""What this machine has, for somebody whose run was slow or did not start."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from genesplice.runtime import versions


class Check(NamedTuple):
    """One finding. Fatal: nothing will run before it is mended."""

    name: str
    found: str
    is_fine: bool
    is_fatal: bool = False


def examine() -> list[Check]:
    """Look at packages, processor, memory, disk, browser and data; changes nothing."""
    import psutil
    import torch

    checks = [
        Check(name, version, version != "not installed", version == "not installed")
        for name, version in versions().items()
    ]
    memory = psutil.virtual_memory()
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    kernel = importlib.util.find_spec("ipykernel") is not None
    flash = importlib.util.find_spec("flash_attn") is not None
    cuda = torch.cuda.is_available()
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    recipe = Path("data/ecoli/manifest.json")
    checks += [
        Check("cores", str(os.cpu_count()), (os.cpu_count() or 1) >= 2),
        Check(
            "memory",
            f"{memory.available / 1e9:.0f} of {memory.total / 1e9:.0f} GB free",
            memory.available > 4e9,
        ),
        Check("disk", f"{free_gb:.0f} GB free here", free_gb > 5),
        Check("torch threads", str(torch.get_num_threads()), True),
        Check(
            "oneDNN",
            "there"
            if torch.backends.mkldnn.is_available()
            else "missing: matrix products take the slower way",
            torch.backends.mkldnn.is_available(),
        ),
        Check("CUDA", torch.cuda.get_device_name() if cuda else "none: runs on the CPU", True),
        Check(
            "flash-attn",
            "there" if flash else "not installed: torch SDPA is used",
            flash or not cuda,
        ),
        Check("Jupyter kernel", "there" if kernel else "ipykernel is missing", kernel, not kernel),
        Check("Chromium", browser or "none: the browser tests are skipped", browser is not None),
        Check(
            "data/ecoli",
            "prepared" if recipe.exists() else "not there yet: the first run fetches 50 MB",
            True,
        ),
    ]
    return checks
