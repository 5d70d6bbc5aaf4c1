"""Tables of sequences: what is recognised, what is refused in one line, and who is held out."""

import gzip

import numpy as np
import pandas as pd
import pytest

from genesplice.data.assay import read_assay
from genesplice.data.genome import decode, encode, reverse_complement
from genesplice.data.similarity import canonical_kmers, sequence_clusters
from genesplice.errors import InputError


def random_sequences(count: int, length: int = 60, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    return [decode(generator.integers(0, 4, length).astype(np.uint8)) for _ in range(count)]


def make_table(count: int = 40, **columns) -> pd.DataFrame:
    table = pd.DataFrame({"id": [f"s{i}" for i in range(count)]})
    table["sequence"] = random_sequences(count)
    table["label"] = np.where(np.arange(count) % 2 == 0, "on", "off")
    return table.assign(**columns)


def write(path, table, separator="\t"):
    table.to_csv(path, sep=separator, index=False)
    return path


@pytest.fixture
def tsv(tmp_path):
    return tmp_path / "mine.tsv"


# --- what is recognised ---


def test_a_table_with_classes(tsv):
    assay = read_assay(write(tsv, make_table()))
    assert assay.name == "mine"
    assert assay.classes == ("off", "on")
    assert assay.rows["id"].tolist() == [f"s{i}" for i in range(40)]
    assert assay.rows["value"].tolist() == [1.0, 0.0] * 20
    assert decode(assay.tokens[3]) == make_table()["sequence"][3]
    assert list(assay.data_sha256) == ["mine.tsv"]
    assert any("value: column 'label'" in note for note in assay.notes)


@pytest.mark.parametrize(
    ("columns", "separator", "name"),
    [
        ({"sequence": "seq", "label": "y"}, ",", "a.csv"),
        ({"sequence": "Sequence", "label": "Label", "id": "name"}, "\t", "a.tsv.gz"),
        # Names that nobody knows: the only column of sequences, and the only other one.
        ({"sequence": "oligo_dna", "label": "bright"}, "\t", "a.txt"),
    ],
)
def test_columns_by_name_or_by_what_is_in_them(tmp_path, columns, separator, name):
    table = make_table().rename(columns=columns)
    read = read_assay(write(tmp_path / name, table, separator))
    assert read.rows["value"].tolist() == [1.0, 0.0] * 20


def test_parquet_and_a_table_without_header(tmp_path):
    table = make_table()[["sequence", "label"]].assign(label=np.arange(40) / 8)
    table.to_parquet(tmp_path / "a.parquet")
    table.to_csv(tmp_path / "a.tsv", sep="\t", index=False, header=False)
    for name in ("a.parquet", "a.tsv"):
        assay = read_assay(tmp_path / name)
        assert assay.classes == ()
        assert assay.rows["value"].tolist() == table["label"].tolist()


def test_columns_named_by_options(tsv):
    table = make_table(other=random_sequences(40, seed=5), activity=np.linspace(0, 1, 40))
    assay = read_assay(write(tsv, table), sequence="other", value="activity")
    assert decode(assay.tokens[0]) == table["other"][0]
    assert assay.rows["value"].iloc[-1] == 1
    with pytest.raises(InputError, match="no column 'value'"):
        read_assay(tsv, value="activty")


def test_whole_numbers_are_classes_unless_said_otherwise(tsv):
    write(tsv, make_table(label=np.arange(40) % 4 * 3))
    assert read_assay(tsv).classes == ("0", "3", "6", "9")
    assert read_assay(tsv, kind="value").rows["value"].max() == 9
    write(tsv, make_table(label=np.repeat([2.5, 0.5], 20)))
    assert read_assay(tsv, kind="class").classes == ("0.5", "2.5")


def test_fasta_with_labels_in_its_headers_or_in_a_table(tmp_path):
    table, fasta = make_table(), tmp_path / "a.fa.gz"
    rows = table.itertuples()
    with gzip.open(fasta, "wt") as handle:
        handle.writelines(f">{row.id}|{row.label}\n{row.sequence}\n" for row in rows)
    assert read_assay(fasta).rows["value"].tolist() == [1.0, 0.0] * 20
    plain = tmp_path / "b.fa"
    plain.write_text("".join(f">{row.id} x\n{row.sequence}\n" for row in table.itertuples()))
    labels = write(tmp_path / "labels.tsv", table[["id", "label"]].iloc[:30][::-1])
    assay = read_assay(plain, labels)
    values = assay.rows.set_index("id")["value"]
    assert values[[f"s{i}" for i in range(30)]].tolist() == [1.0, 0.0] * 15
    assert values[[f"s{i}" for i in range(30, 40)]].isna().all()
    with pytest.raises(InputError, match="'s0' without a label"):
        read_assay(plain)
    write(labels, table[["id", "label"]].assign(id="gene"))
    with pytest.raises(InputError, match="names without a sequence"):
        read_assay(plain, labels)


def test_a_folder_of_files_by_split_and_class(tmp_path):
    for row in make_table().itertuples():
        part = "test" if row.Index >= 30 else "train"
        folder = tmp_path / "bench" / part / row.label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row.Index}.txt").write_text(row.sequence)
    assay = read_assay(tmp_path / "bench")
    assert assay.classes == ("off", "on")
    assert sorted(assay.rows["id"].iloc[assay.held_out(0)]) == [str(i) for i in range(30, 40)]


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sequence": (4, "ACGTXACGT")}, r"mine.tsv:6: found 'X' at position 5"),
        ({"sequence": (4, "")}, r"mine.tsv:6: found a sequence of 0 bp"),
        ({"sequence": (4, "NNNNNNNNN")}, r"mine.tsv:6: found a sequence of 9 bp"),
        ({"label": (4, "odd")}, r"mine.tsv:6: found class 'odd' of one member"),
        ({"label": (slice(None), "on")}, "found 1 classes"),
    ],
)
def test_bad_rows_are_refused_with_their_line(tsv, change, expected):
    table = make_table()
    for column, (at, value) in change.items():
        table.loc[at, column] = value
    with pytest.raises(InputError, match=expected):
        read_assay(write(tsv, table))


def test_a_sequence_with_two_values_is_refused_and_a_repeat_is_left_out(tsv):
    table = make_table()
    table.loc[7, "sequence"] = table["sequence"][1].lower()
    assert len(read_assay(write(tsv, table)).rows) == 39
    table.loc[7, "label"] = "on"
    with pytest.raises(InputError, match=r"mine.tsv:9: .*two values \(lines 3 and 9\)"):
        read_assay(write(tsv, table))


def test_a_word_among_numbers_is_no_class(tsv):
    table = make_table(label=[f"{i / 7:.3f}" for i in range(40)])
    table.loc[12, "label"] = "high"
    with pytest.raises(InputError, match=r"mine.tsv:14: found 'high' among numbers"):
        read_assay(write(tsv, table))
    table["label"] = "1.5"
    with pytest.raises(InputError, match="1 different values"):
        read_assay(write(tsv, table), kind="value")


def test_columns_that_cannot_be_told_apart(tsv):
    table = make_table().drop(columns="label").assign(a=1.5, b=2.5)
    with pytest.raises(InputError, match="2 columns that may be the value"):
        read_assay(write(tsv, table))
    table = table.rename(columns={"sequence": "one"}).assign(two=random_sequences(40, seed=2))
    with pytest.raises(InputError, match="2 columns of sequences"):
        read_assay(write(tsv, table))


def test_one_cluster_cannot_be_held_out(tsv):
    (first,) = random_sequences(1)
    mutants = [first[:i] + "ACGT"["ACGT".index(first[i]) - 1] + first[i + 1 :] for i in range(40)]
    with pytest.raises(InputError, match="1 clusters of similar sequences in 40 rows"):
        read_assay(write(tsv, make_table(sequence=mutants)))


# --- folds ---


def test_rows_without_a_value_are_kept_for_prediction(tsv):
    table = make_table()
    table.loc[[3, 4], "label"] = ["", "NA"]
    assay = read_assay(write(tsv, table))
    assert np.flatnonzero(~assay.is_measured).tolist() == [3, 4]
    assert assay.rows["fold"].iloc[[3, 4]].tolist() == [-1, -1]
    everything = np.concatenate([assay.held_out(fold) for fold in range(5)])
    assert sorted(everything) == [i for i in range(40) if i not in (3, 4)]


def test_alike_sequences_are_held_out_together_on_either_strand(tsv):
    table = make_table(60)
    for i in range(0, 20, 2):
        changed = table["sequence"][i][:30] + "A" + table["sequence"][i][31:]
        table.loc[i + 1, "sequence"] = decode(reverse_complement(encode(changed)))
    assay = read_assay(write(tsv, table))
    folds = assay.rows["fold"].to_numpy()
    assert (folds[0:20:2] == folds[1:20:2]).all()
    assert assay.leakage["similar"] == 0
    assert np.bincount(folds).min() >= 11
    assert [read_assay(tsv).rows["fold"].tolist() for _ in range(2)] == [folds.tolist()] * 2
    assert read_assay(tsv, seed=1).rows["fold"].tolist() != folds.tolist()


def test_each_fold_has_as_much_of_a_rare_class(tsv):
    assay = read_assay(write(tsv, make_table(100, label=np.arange(100) % 10 == 0)))
    of = assay.rows.groupby("fold")["value"].sum()
    assert of.tolist() == [2.0] * 5


def test_a_split_is_taken_as_it_is_and_its_leaks_are_told(tsv):
    table = make_table(split=np.where(np.arange(40) < 30, "Train", "test"))
    table.loc[20:24, "split"] = "val"
    table.loc[0, ["sequence", "label"]] = table.loc[35, ["sequence", "label"]]
    table.loc[2, "sequence"] = decode(reverse_complement(encode(table["sequence"][36])))
    assay = read_assay(write(tsv, table))
    assert assay.n_folds == 1
    assert assay.held_out(0).tolist() == list(range(30, 40))
    assert assay.training(0).tolist() == [1, *range(3, 30)]
    assert assay.rows["is_validation"].to_numpy().nonzero()[0].tolist() == list(range(20, 25))
    assert (assay.leakage["identical"], assay.leakage["similar"]) == (2, 2)
    assert "2 have the identical sequence" in assay.notes[-1]
    assert read_assay(tsv, split="clusters").n_folds == 5


def test_numbered_folds_are_held_out_in_turn(tsv):
    assay = read_assay(write(tsv, make_table(fold=np.arange(40) % 3 + 1)))
    assert assay.n_folds == 3
    assert assay.held_out(1).tolist() == list(range(1, 40, 3))
    assert np.intersect1d(assay.training(1), assay.held_out(1)).size == 0
    with pytest.raises(InputError, match=r"mine.tsv:5: found an empty split"):
        read_assay(write(tsv, make_table(fold=["" if i == 3 else "1" for i in range(40)])))
    with pytest.raises(InputError, match="a split of train only"):
        read_assay(write(tsv, make_table(split="train")))


def test_what_is_held_out_must_leave_something_to_learn(tsv):
    table = make_table(fold=["a" if i % 2 else "b" for i in range(40)])
    with pytest.raises(InputError, match="20 rows with 1 different values beside fold 0"):
        read_assay(write(tsv, table))


def test_clusters_are_those_of_a_written_out_loop():
    generator, sequences = np.random.default_rng(1), []
    for _ in range(12):
        parent = generator.integers(0, 4, 80).astype(np.uint8)
        for _ in range(generator.integers(1, 12)):
            child = parent.copy()
            child[generator.integers(0, 80, 2)] = generator.integers(0, 4, 2)
            child = child[: generator.integers(30, 81)]
            sequences.append(child if generator.random() < 0.5 else reverse_complement(child))
    order = generator.permutation(len(sequences))
    sequences = [sequences[i] for i in order]
    sets = [set(canonical_kmers(one)[0].tolist()) for one in sequences]
    label = np.arange(len(sequences))
    for i, one in enumerate(sets):
        for j, other in enumerate(sets):
            if len(one & other) >= 0.1 * min(len(one), len(other)):
                label[label == label[j]] = label[i]
    found = sequence_clusters(sequences, np.arange(len(sequences)), 0.1)
    pairs = pd.DataFrame({"loop": label, "found": found}).drop_duplicates()
    assert len(pairs) == len(set(label)) == len(set(found))


def test_short_sequences_have_no_kmers_and_are_clustered_where_they_are_the_same():
    sequences = [encode(text) for text in ("ACGTA", "ACGTC", "ACGTA")]
    found = sequence_clusters(sequences, np.array([0, 1, 0]), 0.1)
    assert found[0] == found[2] != found[1]
