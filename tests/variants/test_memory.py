"""A VCF of any length takes the same memory: peaks of two processes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_variants import save_masked, snv, write_lines

ROOT = Path(__file__).resolve().parents[2]
# What is scored costs the same for every record: one base of one place here, over and over.
PROGRAM = """
import resource, sys
from pathlib import Path
import genesplice as gs
from genesplice.variants.annotate import Settings, annotate_vcf
from genesplice.predict.models import open_models
model, data, vcf, out = map(Path, sys.argv[1:])
done = annotate_vcf(open_models([model]), gs.load_bundle(data), vcf, out,
                    settings=Settings(with_percentile=False))
print(done.n_records, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(folder: Path, count: int, model: Path, bundle) -> float:
    """Most MB that a process held while it scored `count` records."""
    starts = np.repeat(np.arange(500, 600), count // 100)
    lines = [snv(bundle.genome, int(start)) for start in starts]
    source = write_lines(folder / f"{count}.vcf", lines)
    words = [sys.executable, "-c", PROGRAM, model, bundle.path, source, folder / f"{count}.out.vcf"]
    told = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=True, cwd=ROOT
    )
    n_records, kilobytes = told.stdout.split()
    assert int(n_records) == count
    return int(kilobytes) / 1024


@pytest.mark.slow
def test_ten_times_the_records_take_no_more_memory(tiny_bundle, tmp_path):
    model = save_masked(tmp_path / "pre", "model.base_width=0")
    few, many = (peak(tmp_path, count, model, tiny_bundle) for count in (2_000, 20_000))
    # A record of the larger file, its text alone, takes far more than this if it is kept.
    assert many - few < 18_000 * 0.5 / 1024
