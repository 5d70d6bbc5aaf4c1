"""The bench: rows that follow from their measurements, and real ones in a process of their own."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks import BenchRow, make_rows, stages
from benchmarks.measure import measure
from benchmarks.mutagenesis import measure_mutagenesis, substitutions
from benchmarks.page import write_bench_page
from benchmarks.rows import (
    LENGTHS,
    MUTAGENESIS,
    MUTAGENESIS_GOALS,
    growth,
    in_child,
    make_tasks,
)
from genesplice.data.genome import decode
from genesplice.errors import InputError, WorkError

pytestmark = pytest.mark.slow


def found(**changes):
    """Measurements of a machine on which everything takes 2 µs a base, and peers 40."""
    step = {"seconds": 1.0, "us_per_bp": 2.0, "above_mb": 400.0, "kflop_per_bp": 200.0}
    names = (
        "forward", "train", "base path forward", "base path train", "megabase checkpoints",
        "chromosome",
    )  # fmt: skip
    values = {name: dict(step) for name in names}
    for length in LENGTHS:
        for mode in ("forward", "train"):
            values[f"{mode} {length}"] = {**step, "seconds": 2e-6 * length}
    values |= {
        "gemm": {"gflops": 120.0},
        "stem": {"ns_per_bp": 50.0},
        "loader": {"uint8 tokens": 3000.0, "pyfaidx and a dictionary": 10.0},
        "api": {"public": 1.01, "bare": 1.0},
    }
    for label in MUTAGENESIS:
        for kb in MUTAGENESIS_GOALS:
            values[f"mutagenesis {label} {kb}"] = {
                "per_second": 300.0, "naive_per_second": 20.0, "error": 2e-6,
            }  # fmt: skip
    for mode in ("forward", "train"):
        for name in ("parameters", "flops"):
            values[f"enformer {name} {mode}"] = {**step, "us_per_bp": 40.0}
    return values | changes


def row(name, values):
    (match,) = (row for row in make_rows(values) if name in row.name)
    return match


def test_ratios_are_of_this_run():
    forward = row("forward per bp against enformer-pytorch, equal parameters", found())
    assert (forward.measured, forward.peer, forward.ratio) == (2.0, 40.0, 2.0 / 40.0)
    assert forward.met
    slow = found(**{"enformer parameters forward": {"us_per_bp": 20.0}})
    assert row("forward per bp against enformer-pytorch, equal parameters", slow).met is False


def test_without_peers_nothing_is_claimed():
    values = {name: value for name, value in found().items() if "enformer" not in name}
    rows = [r for r in make_rows(values) if "enformer" in r.name]
    assert len(rows) == 3
    assert all(r.met is None and r.ratio is None for r in rows)


def test_the_share_of_the_peak():
    share = row("GEMM peak at 196,608 bp, forward", found())
    assert share.measured == pytest.approx(200e3 / 2e-6 / 1e9 / 120)
    assert row("GEMM peak at 196,608 bp, train", found()).measured == pytest.approx(
        3 * share.measured
    )


@pytest.mark.parametrize("power", [0.9, 1.0, 1.7])
def test_growth_is_the_exponent(power):
    assert growth({n: 3e-7 * n**power for n in LENGTHS}) == pytest.approx(power)


def test_a_miss_is_a_miss():
    assert row("training 1 Mbp with checkpoints, above the model", found()).met
    big = found(**{"megabase checkpoints": {"seconds": 2.0, "above_mb": 501.0}})
    assert row("training 1 Mbp with checkpoints, above the model", big).met is False


def test_a_base_of_a_chromosome_and_of_the_base_path_is_held_against_the_bins():
    whole = "time a base of that step against 196,608 bp"
    assert row(whole, found()).met
    slow = found(chromosome={"seconds": 50.0, "us_per_bp": 2.3, "above_mb": 1.0})
    assert (row(whole, slow).measured, row(whole, slow).met) == (pytest.approx(1.15), False)
    path = "with the base-resolution path and 1-bp output, train"
    assert (row(path, found()).ratio, row(path, found()).met) == (1.0, True)
    heavy = found(**{"base path train": {"us_per_bp": 5.1}})
    assert (row(path, heavy).ratio, row(path, heavy).met) == (pytest.approx(2.55), False)


def test_goals_of_loader_and_stem():
    assert row("loader against pyfaidx", found()).met is False  # 300 times
    fast = found(loader={"uint8 tokens": 15_000.0, "pyfaidx and a dictionary": 10.0})
    assert row("loader against pyfaidx", fast).met
    share = "stem as a share of forward"
    assert (row(share, found()).measured, row(share, found()).met) == (0.025, False)
    assert row(share, found(stem={"ns_per_bp": 40.0})).met


def test_mutagenesis_is_held_against_whole_windows_of_its_length():
    first = "best naive, {} kb, read at a gene's start"
    rows = [row(first.format(kb), found()) for kb in MUTAGENESIS_GOALS]
    assert [(r.measured, r.peer, r.ratio, r.met) for r in rows] == [
        (300.0, 20.0, 15.0, True), (300.0, 20.0, 15.0, False), (300.0, 20.0, 15.0, False)
    ]  # fmt: skip
    wrong = {"per_second": 300.0, "naive_per_second": 20.0, "error": 3e-5}
    rough = found(**{"mutagenesis bins alone, read at a gene's start 16": wrong})
    assert row("largest relative error", found()).met
    assert row("largest relative error", rough).met is False


# A norm over four channels amplifies rounding: there a window alone and the same in a batch differ
# by 1.2e-5 already.
@pytest.mark.parametrize(("read", "base_width"), [("start", 8), ("gene", 0)])
def test_mutagenesis_is_measured_and_exact(read, base_width):
    sizes = {"width": 32, "heads": 2, "base_width": base_width}
    result = measure({"kind": "mutagenesis", "length": 4096, "read": read, "sizes": sizes})
    assert result["error"] <= 1e-5
    assert result["per_second"] > result["naive_per_second"] > 0


def test_substitutions_are_all_different_and_change_one_base():
    tokens = torch.randint(0, 4, (1, 100), dtype=torch.uint8)
    bases = substitutions(tokens, 50, 24)
    before = torch.eye(4)[tokens[0, 50:58].long()]
    assert bases.unique(dim=0).shape == (24, 8, 4)
    assert ((bases != before).any(-1).sum(1) == 1).all()
    assert (bases.sum(-1) == 1).all()


def test_a_window_too_short_for_a_gene_is_refused():
    task = {"length": 2048, "read": "gene", "sizes": {"width": 32, "heads": 2}}
    with pytest.raises(InputError, match="2048 bp, expected at least 2176 bp"):
        measure_mutagenesis(task)


def test_rows_are_the_contract():
    keys = {"name", "goal", "measured", "unit", "peer", "ratio", "met"}
    for r in make_rows(found()):
        assert set(r.to_dict()) == keys
        assert (r.met is None) or (r.measured is not None)
    names = [r.name for r in make_rows(found())]
    assert len(set(names)) == len(names)


def gpu_rows(**changes):
    """Rows of a GPU that multiplies 700 teraflops and trains at 300."""
    gpu = {
        "has_flash": 1.0, "tflops": 700.0, "train_tflops": 300.0, "sdpa_error": 0.01,
        "flash_error": 0.015, "long_gb": 6.0,
    }  # fmt: skip
    names = {r.name for r in make_rows(found()) if "flash-attn" in r.name or "on a GPU" in r.name}
    rows = make_rows(found(gpu=gpu | changes))
    return [(r.measured, r.met) for r in rows if r.name in names]


def test_what_needs_a_gpu_says_so():
    rows = [r for r in make_rows(found()) if "flash-attn" in r.name or "on a GPU" in r.name]
    assert len(rows) == 3
    assert all(r.measured is None and r.met is None and "no CUDA GPU" in r.unit for r in rows)


def test_rows_of_a_gpu_are_held_against_its_peak_and_the_plain_kernel():
    assert gpu_rows() == [(pytest.approx(3 / 7), True), (pytest.approx(1.5), True), (6.0, True)]
    worse = gpu_rows(train_tflops=279.0, flash_error=0.021, long_gb=8.1)
    assert [met for _, met in worse] == [False, False, False]
    assert gpu_rows(has_flash=0.0) == [(None, None), (None, None), (6.0, True)]


def test_what_a_gpu_is_measured_by_is_right_where_there_is_none():
    small = {"width": 32, "heads": 2, "annotation": False}
    result = measure(
        {"kind": "gpu", "device": "cpu", "length": 4096, "batch": 2, "long": 8192, "size": 256,
         "tokens": 600, "half_window": 32, "sizes": small}
    )  # fmt: skip
    assert 0 < result["sdpa_error"] < 0.05  # bf16 has eight bits
    assert result["flash_error"] == result["sdpa_error"]
    assert (result["has_flash"], result["long_gb"]) == (0.0, 0.0)
    task = {"kind": "step", "model": "ours", "length": 4096, "train": False, "flops": True}
    assert result["kflop_per_bp"] == measure(task | {"sizes": small})["kflop_per_bp"]
    operations = 3 * result["kflop_per_bp"] * 1e3 * 4096 * 2
    assert result["train_tflops"] == pytest.approx(operations / result["train_seconds"] / 1e12)
    assert 0 < result["tflops"] < 100


def test_every_row_has_its_task(tmp_path):
    tasks = make_tasks(True, str(tmp_path))
    assert set(found()) >= set(tasks)
    assert set(tasks) - {"gemm"} >= {"forward", "train", "chromosome"}


@pytest.mark.parametrize("train", [False, True])
def test_a_real_measurement(train):
    task = {"kind": "step", "model": "ours", "length": 16_384, "train": train, "repeats": 1}
    result = in_child(task | {"sizes": {"width": 32, "heads": 2}, "flops": True})
    assert 0 < result["seconds"] < 60
    assert result["us_per_bp"] == pytest.approx(result["seconds"] / 16_384 * 1e6)
    # Counted operations: linear layers alone are 2 x parameters for each token of a level.
    assert 1 < result["kflop_per_bp"] < 50
    assert 10_000 < result["parameters"] < 1_000_000


def test_operations_are_counted_whichever_backend_multiplies():
    task = {"kind": "step", "model": "ours", "length": 4096, "train": False, "flops": True}
    code = (
        "import json, sys, torch; torch.backends.mkldnn.enabled = False\n"
        "from benchmarks.measure import measure\n"
        f"print(json.dumps(measure({task!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    plain = json.loads(done.splitlines()[-1])["kflop_per_bp"]
    assert in_child(task)["kflop_per_bp"] == pytest.approx(plain, rel=1e-6)


def test_a_failed_measurement_says_why():
    with pytest.raises(WorkError, match="1000 bp, expected a multiple of 1024"):
        in_child({"kind": "step", "model": "ours", "length": 1000, "train": False})


def test_the_page_is_offline_and_escaped(tmp_path):
    rows = [BenchRow("<b>x</b>", "at most 1", 2.0, "s", met=False), *make_rows(found())]
    path = write_bench_page(tmp_path / "b.html", rows, found(), "one core of <something>.")
    page = path.read_text()
    assert "<b>x" not in page
    assert "default-src &#39;none&#39;" in page
    assert "one core of &lt;something&gt;." in page
    assert 'src="http' not in page
    assert "missed" in page


def test_a_stage_is_measured_with_the_processes_that_it_starts(tmp_path):
    """A checkout of its own, whose command starts a child that works, and one that outlives it."""
    child = "import time\nwhile time.process_time() < 0.5: pass\nkept = bytearray(200 * 2**20)"
    orphan = "import time\nwhile time.process_time() < 1.5: pass"
    package = tmp_path / "checkout" / "genesplice"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import json, pathlib, subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)\n"
        f"subprocess.Popen([sys.executable, '-c', {orphan!r}])\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"
        "out.mkdir()\n"
        "rows = [dict(metric='bits_per_base', split='test', model=m, value=v, fold=f)\n"
        "        for m, v, f in (('genesplice', 1.75, None), ('count_two_sided', 1.5, None),\n"
        "                        ('genesplice', 1.85, 0), ('genome_alone', 1.9, 0))]\n"
        "(out / 'metrics.json').write_text(json.dumps(rows))\n"
    )
    folder = tmp_path / "before"
    folder.mkdir()
    found = stages.run_stage("pretrain", package.parent, folder, "chr")
    assert (2.0 if sys.platform == "linux" else 0.5) <= found["cpu_seconds"] < 30
    assert 200 <= found["largest_process_mb"] < 2000
    assert found["scores"] == {"bits_per_base": 1.75, "bits_per_base_genome_alone": 1.9}
    with pytest.raises(WorkError, match=r"pretrain of .* ended with 1: see .*pretrain\.log"):
        stages.run_stage("pretrain", package.parent, folder, "chr")


def test_the_same_random_substitutions_are_drawn_for_both_sides(tiny_bundle, tmp_path):
    assert stages.random_substitutions(tiny_bundle.path, tmp_path / "a.vcf", 50) == "chr"
    stages.random_substitutions(tiny_bundle.path, tmp_path / "b.vcf", 50)
    text = (tmp_path / "a.vcf").read_text()
    assert text == (tmp_path / "b.vcf").read_text()
    for line in text.splitlines()[3:]:
        contig, position, _, ref, alt, *_ = line.split("\t")
        at = int(position) - 1
        assert decode(tiny_bundle.genome.fetch(contig, at, at + 1)) == ref != alt
    assert text.count("\n") == 53
