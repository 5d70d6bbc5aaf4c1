"""Tasks: planted truth is found, chance is chance, and nothing held out is learned from."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import matthews_corrcoef, r2_score, roc_auc_score
from tiny_runs import config

from genesplice.cli import main
from genesplice.data.assay import add_changes, read_assay
from genesplice.data.genome import decode, encode, reverse_complement
from genesplice.errors import InputError
from genesplice.evaluate.bootstrap import make_draws, task_draws
from genesplice.model.adapters import AdaptedReader, Entrance, Reader, add_adapters
from genesplice.model.genesplice import PretrainingModel, make_encoder
from genesplice.runtime import write_json
from genesplice.training import tasks
from genesplice.training.tasks import run_task

MOTIF = "TTGACATATAAT"


@pytest.fixture(autouse=True)
def short(monkeypatch, request):
    """Few steps, where no score depends on them."""
    if "motif" not in request.node.name:
        monkeypatch.setattr(tasks, "LEAST_STEPS", 24)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder as `pretrain` leaves one; the weights are random."""
    folder, settings = (
        tmp_path_factory.mktemp("encoder"),
        config("pretrain.window_bp=1024", "pretrain.shift_bp=64"),
    )
    torch.manual_seed(1)
    model = PretrainingModel(settings.model, settings.pretrain.contrastive_width)
    save_file(model.state_dict(), folder / "model.safetensors")
    write_json(folder / "run.json", settings.to_dict())
    return folder


def planted(count: int = 240, length: int = 72, seed: int = 0) -> pd.DataFrame:
    """Sequences half of which have a motif at base 20, and values that say so."""
    generator, rows = np.random.default_rng(seed), []
    for i in range(count):
        text = decode(generator.integers(0, 4, length).astype(np.uint8))
        if has := i % 2 == 0:
            text = text[:20] + MOTIF + text[20 + len(MOTIF) :]
        rows.append((f"s{i}", text, "on" if has else "off", has + generator.normal(scale=0.1)))
    return pd.DataFrame(rows, columns=["id", "sequence", "label", "strength"])


def write(path, table):
    table.to_csv(path, sep="\t", index=False)
    return path


def pooled(result, metric: str) -> dict[str, float]:
    rows = [m for m in result.metrics if m.metric == metric and m.split == "test"]
    return {m.model: m.value for m in rows if m.fold is None}


# --- planted truth, and chance ---


@pytest.mark.slow
def test_a_motif_that_decides_the_class_is_found(tmp_path, encoder):
    table = planted()
    table.loc[:3, "label"] = ""
    assay = read_assay(write(tmp_path / "a.tsv", table), value="label", n_folds=2)
    result = run_task(assay, init=encoder)
    auroc = pooled(result, "auroc")
    assert set(auroc) >= {"genesplice", "genesplice_random", "ridge_kmers", "gbm_kmers", "cnn"}
    assert auroc["genesplice"] > 0.95
    assert auroc["cnn"] > 0.9
    rows = result.predictions[result.predictions["model"] == "genesplice"]
    assert sorted(rows["id"]) == sorted(table["id"][4:])
    assert (rows["input_bp"] == 72).all()
    again = roc_auc_score(rows["observed"] == "on", rows["score:on"] - rows["score:off"])
    assert auroc["genesplice"] == pytest.approx(again)
    # Rows without a label are predicted from the other rows: they have the motif, or have not.
    later = result.unmeasured[result.unmeasured["model"] == "genesplice"]
    assert later["id"].tolist() == ["s0", "s1", "s2", "s3"]
    assert later["predicted"].tolist() == ["on", "off", "on", "off"]
    sizes = sorted({m.n for m in result.metrics if m.split == "learning_curve"})
    assert sizes == [round(118 * share) for share in (0.125, 0.25, 0.5, 1)]
    assert any(text.startswith("Ahead of boosting on k-mers: ") for text in result.answers)


@pytest.mark.slow
def test_random_labels_are_at_chance(tmp_path, encoder):
    table = planted()
    table["label"] = np.random.default_rng(3).permutation(table["label"])
    assay = read_assay(write(tmp_path / "a.tsv", table), value="label", n_folds=2)
    auroc = pooled(run_task(assay, init=encoder), "auroc")
    assert all(abs(auroc[name] - 0.5) < 0.13 for name in auroc if " - " not in name)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["lora", "ia3", "full"])
def test_what_learns_beyond_the_probe_is_no_worse(tmp_path, encoder, mode):
    table = planted(120).assign(split=np.where(np.arange(120) < 80, "train", "test"))
    assay = read_assay(write(tmp_path / "a.tsv", table), value="strength")
    probe, result = (run_task(assay, init=encoder, mode=name) for name in ("probe", mode))
    assert pooled(result, "pearson")["genesplice"] > pooled(probe, "pearson")["genesplice"] - 0.1
    rows = result.predictions[result.predictions["model"] == "genesplice"]
    expected = r2_score(rows["observed"], rows["predicted"])
    assert pooled(result, "r2")["genesplice"] == pytest.approx(expected)


# --- measured changes ---


def with_changes(tmp_path, table, changes, **options):
    assay = read_assay(write(tmp_path / "a.tsv", table), **options)
    return add_changes(assay, write(tmp_path / "changes.tsv", changes))


def broken_motifs(table: pd.DataFrame) -> pd.DataFrame:
    """Every motif in another order, which costs 1, and bases far from it, which cost nothing."""
    rows = []
    for name, text in zip(table["id"][::2], table["sequence"][::2], strict=True):
        for start, value in ((20, -1.0), (50, 0.0)):
            ref = text[start : start + len(MOTIF)]
            rows.append((name, start + 1, ref, ref[::2] + ref[1::2], value))
    return pd.DataFrame(rows, columns=["id", "position", "ref", "alt", "value"])


@pytest.mark.slow
def test_changes_of_a_motif_are_told_from_changes_beside_it(tmp_path, encoder):
    table = planted()
    made = with_changes(tmp_path, table, broken_motifs(table), value="strength", n_folds=2)
    result = run_task(made[0], init=encoder, changes=made[1])
    found = {m.model: m for m in result.metrics if m.metric == "change_spearman"}
    assert found["genesplice"].value > 0.5
    assert found["genesplice"].n == len(table)
    assert len(result.unmeasured) == 0
    # The change is that of two rows without a value, by the model of the fold of the first.
    one = result.changed[result.changed["model"] == "ridge_kmers"].iloc[0]
    before = result.predictions.query("model == 'ridge_kmers' and id == @one.id").iloc[0]
    text, alone = table.set_index("id").loc[one["id"], "sequence"], table.copy()
    text = text[: one["position"] - 1] + one["alt"] + text[one["position"] - 1 + len(MOTIF) :]
    alone.loc[len(alone)] = ("changed", text, "", np.nan)
    assay = made[0]
    fold = assay.rows["fold"][assay.rows["id"] == one["id"]].iloc[0]
    assert (before["fold"], one["fold"]) == (fold, fold)
    again = read_assay(write(tmp_path / "b.tsv", alone), value="strength", n_folds=2)
    work = tasks._Work(again, "probe", False, 0)
    wanted = np.array([len(alone) - 1])
    after = work.ridge_kmers(again.training(int(fold)), wanted)[0, 0]
    assert one["predicted"] == pytest.approx(after - before["predicted"], abs=1e-6)


def test_a_change_that_was_learned_from_or_is_never_held_out_is_left_out(tmp_path):
    table = planted(60).assign(split=np.where(np.arange(60) < 20, "test", "train"))
    changes = broken_motifs(table)
    # The first change makes a sequence that a training row has.
    one = changes.iloc[0]
    text = table["sequence"][0]
    table.loc[20, "sequence"] = text[:20] + one["alt"] + text[20 + len(MOTIF) :]
    changes = changes[changes["id"] != "s20"]
    made = with_changes(tmp_path, table, changes, value="strength")
    result = run_task(made[0], changes=made[1])
    # Ten of twenty held-out rows have a motif, two changes each.
    ours = result.changed[result.changed["model"] == "genesplice"]
    assert len(ours) == 19
    assert set(ours["id"]) == {f"s{i}" for i in range(0, 20, 2)}
    assert len(result.unmeasured) == 0
    assert "19 measured changes of held-out sequences; left out: 39" in made[0].notes[-1]
    with pytest.raises(InputError, match="0 measured changes of held-out sequences, 4 of others"):
        with_changes(tmp_path, table, changes.iloc[-4:], value="strength")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("s0", 3, "?", "A", 0.1),
            "changes.tsv:2: found [?]>A at position 3, expected ref [ACGT], and",
        ),
        (
            ("s0", 73, "A", "C", 0.1),
            "2: found A>C at position 73, expected ref within the sequence",
        ),
        (("s9", 1, "A", "C", 0.1), "changes.tsv:2: found 0 sequences 's9', expected one"),
        (("s1", 1, "A", "C", 0.1), "changes.tsv:2: found 2 sequences 's1'"),
        (("s0", 0, "A", "C", 0.1), "changes.tsv:2: found position '0'"),
        (("s0", 1, "", "", 0.1), "changes.tsv:2: found > at position 1"),
    ],
)
def test_changes_that_do_not_fit_are_one_line(tmp_path, change, words):
    table = planted(9).assign(split=["train"] * 6 + ["test"] * 3)
    table.loc[2, "id"] = "s1"
    changes = pd.DataFrame([change], columns=["id", "position", "ref", "alt", "value"])
    with pytest.raises(InputError, match=words):
        with_changes(tmp_path, table, changes, value="strength")


# --- held out is held out ---


@pytest.mark.slow
def test_values_of_held_out_rows_decide_nothing(tmp_path, encoder):
    table = planted(60).assign(split=np.where(np.arange(60) < 40, "train", "test"))
    other = table.copy()
    other.loc[40:, "strength"] = np.linspace(-9, 9, 20)
    guesses = []
    for rows in (table, other):
        assay = read_assay(write(tmp_path / "a.tsv", rows), value="strength")
        guesses.append(run_task(assay, init=encoder, mode="lora").predictions["predicted"])
    pd.testing.assert_series_equal(*guesses)


@pytest.mark.slow
def test_an_identical_sequence_of_the_training_rows_is_not_learned_from(tmp_path, encoder):
    table = planted(60).assign(split=np.where(np.arange(60) < 40, "train", "test"))
    copies = table.iloc[40:50].assign(split="train", id="copy")
    guesses = []
    for rows in (table, pd.concat([table, copies])):
        assay = read_assay(write(tmp_path / "a.tsv", rows), value="strength")
        guesses.append(run_task(assay, init=encoder).predictions["predicted"])
    pd.testing.assert_series_equal(*guesses)


@pytest.mark.slow
def test_both_strands_are_one_where_they_are_said_to_be(tmp_path, encoder):
    table = planted(60).assign(split=np.where(np.arange(60) < 40, "train", "test"))
    turned = table.copy()
    turned.loc[40:, "sequence"] = [
        decode(reverse_complement(encode(text))) for text in table["sequence"][40:]
    ]
    for both in (True, False):
        guesses = []
        for rows in (table, turned):
            assay = read_assay(write(tmp_path / "a.tsv", rows), value="strength")
            made = run_task(assay, init=encoder, both_strands=both).predictions
            guesses.append(made["predicted"].to_numpy())
        assert np.allclose(*guesses, atol=1e-4) == both


# --- what is read of an encoder ---


def tokens_of(*lengths: int) -> torch.Tensor:
    tokens = torch.full((len(lengths), 1024), 4, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(0, 4, (length,), generator=generator)
    return tokens


@pytest.mark.parametrize("hierarchy", ["whole", "local_only"])
def test_padding_that_is_skipped_changes_nothing(hierarchy):
    torch.manual_seed(0)
    encoder = make_encoder(config(f"model.hierarchy={hierarchy}").model).eval()
    tokens = tokens_of(150, 40, 257)
    with torch.no_grad():
        whole = encoder(tokens, with_bases=True)
        encoder.skips_padding = True
        short = encoder(tokens, with_bases=True)
    for row, length in enumerate((150, 40, 257)):
        for name, size in {"bases": 1, "bins": 16, "summaries": 128, "regions": 1024}.items():
            one, other = getattr(whole, name)[row], getattr(short, name)[row]
            assert one.shape == other.shape
            n = -(-length // size)
            torch.testing.assert_close(one[:n], other[:n], atol=1e-5, rtol=1e-4)


def test_features_are_those_of_a_written_out_loop():
    encoder = make_encoder(config().model).eval()
    tokens = tokens_of(48, 48)
    with torch.no_grad():
        output, features = encoder(tokens, with_bases=True), Reader(encoder, 3)(tokens)
        parts = []
        for values in (output.bins, output.bases.unflatten(1, (-1, 16)).mean(2)):
            three = [values[1, i] for i in range(3)]
            stacked = torch.stack(three)
            parts += [*three, stacked.mean(0), stacked.max(0).values]
    torch.testing.assert_close(features[1], torch.cat(parts))


def test_bins_before_attention_are_all_that_adapters_need():
    encoder = make_encoder(config().model).eval()
    encoder.skips_padding = True
    tokens = tokens_of(150, 90)
    with torch.no_grad():
        reader = Reader(encoder, 0)
        expected = reader(tokens)
        bins = Entrance(encoder, 256)(tokens)
        add_adapters(encoder, "lora")
        adapted = AdaptedReader(encoder, 0)
        found = adapted(tokens, bins, expected[:, reader.n_of_bins :])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


# --- scores ---


def test_scores_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    label = generator.integers(0, 3, 90)
    scores = np.eye(3)[label] + generator.normal(size=(90, 3))
    block = np.arange(90) // 9
    draws = make_draws(10, 20, 0)
    found = task_draws(np.eye(3)[label], scores, block, draws)
    for draw in (0, 7):
        rows = np.repeat(np.arange(90), draws[draw][block])
        areas = [roc_auc_score(label[rows] == k, scores[rows, k]) for k in range(3)]
        assert found["auroc"][draw] == pytest.approx(np.mean(areas))
        guess = scores[rows].argmax(1)
        assert found["mcc"][draw] == pytest.approx(matthews_corrcoef(label[rows], guess))
        assert found["accuracy"][draw] == pytest.approx((guess == label[rows]).mean())
    x, y = generator.normal(size=(2, 90, 1)) * 1e-7
    found = task_draws(y, x + y, block, draws)
    rows = np.repeat(np.arange(90), draws[7][block])
    assert found["pearson"][7] == pytest.approx(np.corrcoef((x + y)[rows, 0], y[rows, 0])[0, 1])
    assert found["r2"][7] == pytest.approx(r2_score(y[rows], (x + y)[rows]))


# --- the verb ---


def run(*words) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["genesplice", *map(str, words)])
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


@pytest.mark.slow
def test_the_verb_writes_what_the_others_write(tmp_path, encoder, capsys):
    table = write(tmp_path / "mine.tsv", planted(60)[["sequence", "strength"]])
    changes = broken_motifs(planted(60).assign(id=range(1, 61)))
    words = ("--init", encoder, "--measured", write(tmp_path / "changes.tsv", changes))
    out = tmp_path / "out"
    assert run("task", "--table", table, "--out", out, "--folds", 2, *words) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        str(out / name) for name in ("metrics.json", "predictions.parquet", "index.html")
    ]
    assert "Ahead of boosting on k-mers: " in said.err
    records = json.loads((out / "metrics.json").read_text())
    assert {one["metric"] for one in records} >= {"spearman", "pearson", "r2"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["data_sha256"]) == {"mine.tsv", "changes.tsv", "encoder"}
    assert manifest["leakage"]["identical"] == 0
    predictions = pd.read_parquet(out / "predictions.parquet")
    assert (predictions["input_bp"] == 72).all()
    page = (out / "index.html").read_text()
    assert len(pd.read_parquet(out / "changed.parquet")) == 5 * len(changes)
    assert "Learning curve" in page
    assert "Measured changes" in page
    assert "Ahead of boosting on k-mers" in page


@pytest.mark.parametrize("count", [6, 7, 12])
def test_a_small_table_is_answered_and_its_curve_has_each_size_once(tmp_path, count):
    table = write(tmp_path / "few.tsv", planted(count)[["sequence", "strength"]])
    assert run("task", "--table", table, "--out", tmp_path / "out", "--folds", 2) == 0
    records = json.loads((tmp_path / "out" / "metrics.json").read_text())
    keys = [(m["metric"], m["model"], m["n"]) for m in records if m["split"] == "learning_curve"]
    assert len(keys) == len(set(keys)) > 0


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, encoder, capsys):
    table = planted(40, 1025)
    write(tmp_path / "long.tsv", table)
    bad = planted(40)
    bad.loc[3, "sequence"] = "ACGT-ACGT"
    write(tmp_path / "bad.tsv", bad)
    expected = {
        "long.tsv": "found sequence 's0' of 1025 bp, expected at most 1024 bp",
        "bad.tsv": "bad.tsv:5: found '-' at position 5",
        "none.tsv": "none.tsv: found no such file",
    }
    for name, text in expected.items():
        words = ("--table", tmp_path / name, "--value", "strength", "--init", encoder)
        assert run("task", *words, "--out", tmp_path / "out") == 2
        lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("genesplice: ")]
        assert len(lines) == 1
        assert text in lines[0]
        assert sorted(one.name for one in tmp_path.iterdir()) == ["bad.tsv", "long.tsv"]


@pytest.mark.slow
def test_without_an_encoder_it_says_so(tmp_path):
    assay = read_assay(write(tmp_path / "a.tsv", planted(40)), value="strength", n_folds=2)
    result = run_task(assay)
    assert result.notes == ["no --init: the encoder has random weights"]
    assert tasks.RANDOM not in pooled(result, "spearman")
    with pytest.raises(InputError, match="mode 'prob', expected probe, lora, ia3, full"):
        run_task(assay, mode="prob")
