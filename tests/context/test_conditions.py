"""Conditions differ in context length and in nothing else; failures leave what is complete."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_genomes import with_columns

import genesplice as gs
from genesplice.context.conditions import (
    complete_runs,
    condition_config,
    condition_steps,
    condition_tasks,
    judge_conditions,
    plan_conditions,
    run_condition,
)
from genesplice.context.controls import control_settings
from genesplice.context.perturbation import compare_distance_dependence
from genesplice.context.rule import Decision
from genesplice.context.verdict import (
    context_test,
    question_no,
    question_steps,
    rule_sentence,
    verdict_record,
    without_learning,
)
from genesplice.data.windows import tile_windows
from genesplice.errors import InputError
from genesplice.predict.expression import encode_genes
from genesplice.training.finetuning import make_model
from genesplice.training.folds import epoch_steps
from genesplice.training.sweeps import SweepResult

SETTINGS = [
    "finetune.fewest_genes=1",
    "verdict.contexts_bp=512,4096,1000000", "verdict.core_bp=16384", "verdict.width=16",
    "verdict.epochs=1", "verdict.validation_blocks=0", "verdict.graph_layers=0",
    "verdict.references=short_cnn,plain_attention",
]  # fmt: skip


def config(*more):
    return gs.override(gs.load_preset("quick"), [*SETTINGS, *more])


def plan_of(bundle, *more):
    own = config(*more)
    return own, plan_conditions(own, bundle, own.verdict.contexts_bp, own.verdict.references)


def test_contexts_beyond_the_contig_become_the_whole_of_it(tiny_bundle):
    own, plan = plan_of(tiny_bundle)
    assert plan.context_of == {
        "context_512": 512, "context_4096": 4096, "context_whole": tiny_bundle.genome.length,
    }  # fmt: skip
    assert plan.longest.name == "context_whole"
    windows = tile_windows(tiny_bundle.genome, plan.core_bp, plan.flank_bp)
    assert len(windows) == 1
    assert windows[0].end - windows[0].start >= tiny_bundle.genome.length
    assert (
        condition_config(own, plan, plan.longest, fold=0, seed=0, epochs=1).model.context_bp is None
    )


def test_every_gene_of_a_core_has_its_context(tiny_bundle):
    _, plan = plan_of(tiny_bundle, "verdict.contexts_bp=512,4096,20000")
    assert plan.longest.context_bp == 20_000
    assert plan.core_bp == 16_384
    assert plan.flank_bp >= 10_000
    assert plan.flank_bp % 1024 == 0


def test_conditions_have_equal_parameters_cores_and_steps(tiny_bundle):
    own, plan = plan_of(tiny_bundle)
    sizes, cores, tuning = set(), set(), set()
    for condition in plan.conditions:
        if condition.is_reference:
            continue
        settings = condition_config(own, plan, condition, fold=0, seed=0, epochs=3)
        model = make_model(tiny_bundle, settings)
        sizes.add(sum(weight.numel() for weight in model.parameters()))
        tuning.add(dataclasses.replace(settings.finetune, flank_bp=0))
        cores.add(settings.finetune.core_bp)
        others = dataclasses.replace(settings.model, context_bp=None)
        assert others == condition_config(own, plan, plan.longest, fold=0, seed=0, epochs=3).model
    assert len(sizes) == len(cores) == len(tuning) == 1


def test_what_lies_beyond_a_context_is_not_encoded_and_changes_nothing(tiny_bundle):
    own, plan = plan_of(tiny_bundle, "verdict.contexts_bp=512,2048,20000", "verdict.core_bp=8192")
    longest = int((tiny_bundle.genes["end"] - tiny_bundle.genes["start"]).max())
    assert plan.gene_bp == longest
    flanks = []
    for condition in plan.conditions[:3]:
        settings = condition_config(own, plan, condition, fold=0, seed=0, epochs=1)
        flanks.append(settings.finetune.flank_bp)
        torch.manual_seed(0)
        model = make_model(tiny_bundle, settings).eval()
        windows = {"core_bp": plan.core_bp, "flank_bp": flanks[-1]}
        some = encode_genes(model, tiny_bundle, **windows)
        all_of_it = encode_genes(model, tiny_bundle, **windows | {"flank_bp": plan.flank_bp})
        torch.testing.assert_close(some, all_of_it, rtol=1e-4, atol=1e-5)
    assert flanks == sorted(flanks)
    assert flanks[0] < longest + 3072
    assert flanks[0] < plan.flank_bp == flanks[-1]


def test_conditions_read_the_genome_alone(tiny_bundle):
    own, plan = plan_of(tiny_bundle)
    assert own.model.relatives  # as the main model does
    for condition in plan.conditions:
        settings = condition_config(own, plan, condition, fold=0, seed=0, epochs=1)
        assert not settings.model.relatives
        assert not make_model(tiny_bundle, settings).encoder.channels.relatives


def test_with_relatives_they_read_columns_and_say_so_where_there_are_none(tiny_bundle, tmp_path):
    own, plan = plan_of(tiny_bundle, "verdict.relatives=true")
    settings = condition_config(own, plan, plan.conditions[0], fold=0, seed=0, epochs=1)
    assert make_model(with_columns(tiny_bundle), settings).encoder.channels.relatives
    with pytest.raises(InputError, match=r"found verdict\.relatives, and no relatives in the data"):
        context_test(tiny_bundle, own, tmp_path / "verdict")
    assert not (tmp_path / "verdict").exists()


@pytest.mark.parametrize("relatives", ["false", "true"])
def test_the_context_of_a_condition_is_exact(tiny_bundle, relatives):
    settings = "verdict.contexts_bp=512,4096,20000", f"verdict.relatives={relatives}"
    own, plan = plan_of(tiny_bundle, *settings)
    for condition in plan.conditions[:2]:
        encoder = make_model(
            with_columns(tiny_bundle),
            condition_config(own, plan, condition, fold=0, seed=0, epochs=1),
        ).encoder.eval()
        tokens = torch.randint(0, 4, (1, 8192), dtype=torch.uint8)
        channels = encoder.channels(tokens, torch.zeros_like(tokens)).requires_grad_()
        is_real = torch.ones(1, 8192 // own.verdict.bin_bp, dtype=torch.bool)
        middle = 4096 // own.verdict.bin_bp
        encoder.encode(channels, is_real).bins[0, middle].square().sum().backward()
        reached = channels.grad[0].abs().sum(1).nonzero().ravel()
        assert int(reached.max()) < 4096 + own.verdict.bin_bp + condition.context_bp // 2
        assert int(reached.min()) >= 4096 - condition.context_bp // 2


def test_references_carry_their_input_length(tiny_bundle):
    _, plan = plan_of(tiny_bundle)
    references = {
        condition.name: condition.context_bp
        for condition in plan.conditions
        if condition.is_reference
    }
    assert references["short_cnn"] < 64
    assert references["plain_attention"] == 8192 + 2 * 2048
    assert set(plan.context_of).isdisjoint(references)


ARCHS = "short_cnn,enformer_like,plain_attention,kmer_tokens"


@pytest.mark.slow
def test_mandatory_references_have_equal_steps_and_an_input_length(tiny_bundle, tmp_path):
    own, plan = plan_of(tiny_bundle, f"verdict.references={ARCHS}", "verdict.reference_bp=4096")
    references = [condition for condition in plan.conditions if condition.is_reference]
    assert [condition.name for condition in references] == ARCHS.split(",")
    for condition in references:
        settings = condition_config(own, plan, condition, fold=0, seed=0, epochs=1)
        bases = settings.finetune.core_bp * settings.finetune.batch_windows
        assert 0 <= bases - plan.core_bp < 4096
        steps = epoch_steps(tiny_bundle.genome, settings.finetune)
        assert steps == condition_steps(tiny_bundle.genome, own, plan, 1)
        assert condition.context_bp < plan.longest.context_bp
        if condition.name == "kmer_tokens":
            table = run_condition(
                tiny_bundle.path, settings, tmp_path / condition.name, condition.name
            )
            assert set(table["gene_id"]) == set(tiny_bundle.test_genes(0))


@pytest.mark.parametrize("preset", ["standard", "full"])
def test_presets_beyond_quick_run_the_mandatory_references(preset):
    assert ",".join(gs.load_preset(preset).verdict.references) == ARCHS


def test_one_task_for_each_condition_fold_and_seed(tiny_bundle, tmp_path):
    own, plan = plan_of(tiny_bundle)
    tasks = condition_tasks(tiny_bundle, own, plan, tmp_path, folds=(0, 2), seeds=(1,), epochs=4)
    assert len({task.name for task in tasks}) == len(tasks) == 2 * len(plan.conditions)
    settings = tasks[-1].arguments["config"]
    assert (settings.finetune.folds, settings.finetune.seeds) == ((2,), (1,))
    assert (settings.finetune.sequence_epochs, settings.finetune.epochs) == (4, 0)


def test_a_condition_gives_its_predictions(tiny_bundle, tmp_path):
    own, plan = plan_of(tiny_bundle)
    settings = condition_config(own, plan, plan.conditions[0], fold=1, seed=0, epochs=1)
    table = run_condition(tiny_bundle.path, settings, tmp_path / "run", "context_512")
    assert set(table["model"]) == {"context_512"}
    assert set(table["gene_id"]) == set(tiny_bundle.test_genes(1))
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert "sequence fold 1" in (tmp_path / "run.log").read_text()


# --- what is judged ---


def predictions(bundle, plan, noise, folds=(0,), seeds=(0, 1)):
    """Every condition predicts the truth with a noise of its own."""
    generator, tables = np.random.default_rng(0), []
    for fold in folds:
        for seed in seeds:
            for condition in plan.conditions:
                observed = bundle.observed.loc[bundle.test_genes(fold)]
                own = generator.normal(0, noise[condition.name], observed.shape)
                shift = generator.normal(0, noise[condition.name], (len(observed), 1))
                table = (observed + own + shift).stack().rename("predicted").reset_index()
                table.columns = ["gene_id", "condition", "predicted"]
                table["observed"] = observed.stack().to_numpy()
                tables.append(table.assign(fold=fold, seed=seed, model=condition.name))
    return pd.concat(tables, ignore_index=True)


def test_a_run_that_one_condition_lacks_does_not_count(tiny_bundle):
    _, plan = plan_of(tiny_bundle)
    table = predictions(tiny_bundle, plan, {condition.name: 0.1 for condition in plan.conditions})
    lost = (table["model"] == "context_4096") & (table["seed"] == 1)
    kept = complete_runs(table[~lost], plan)
    assert set(kept["seed"]) == {0}
    assert set(kept["model"]) == set(plan.context_of)
    with pytest.raises(InputError, match="no fold and seed that all context conditions have"):
        complete_runs(table[table["model"] != "context_512"], plan)


def test_runs_are_those_that_the_rule_kept_not_those_that_were_asked_for(tiny_bundle):
    own, plan = plan_of(tiny_bundle, "verdict.seeds=0,1,2,3,4", "verdict.folds=0,1")
    noise = {condition.name: 0.1 for condition in plan.conditions}
    table = predictions(tiny_bundle, plan, noise, folds=(0, 1), seeds=(0, 1, 2))
    one_fold = table[table["fold"] == 0]
    lost = (one_fold["model"] == "context_512") & (one_fold["seed"] == 2)
    for kept, n_runs in ((table, 2), (one_fold, 3), (one_fold[~lost], 2)):
        decision = judge_conditions(kept, tiny_bundle, plan, own)
        swept = SweepResult(kept, {"a-task": "died"}, 1.0)
        record = verdict_record(decision, own, plan, {"cpu_seconds": 2.0}, swept)
        assert record["rule"]["n_runs"] == n_runs
        assert record["rule"]["counts_shared_variance"] is False
        assert f"Complete runs of each context: {n_runs}." in rule_sentence(record["rule"])
    nothing = Decision("cannot tell", (), "Cannot tell.")
    assert verdict_record(nothing, own, plan, {"cpu_seconds": 0.0}, swept)["rule"]["n_runs"] == 0


def test_the_rule_is_applied_to_the_conditions(tiny_bundle):
    own, plan = plan_of(tiny_bundle)
    noise = {"context_512": 2.0, "context_4096": 1.0, "context_whole": 0.2}
    noise |= {condition.name: 5.0 for condition in plan.conditions if condition.is_reference}
    table = predictions(tiny_bundle, plan, noise, seeds=(0, 1, 2))
    assert judge_conditions(table, tiny_bundle, plan, own, ["level_r2"]).answer == "yes"
    same = predictions(tiny_bundle, plan, dict.fromkeys(noise, 0.02), seeds=(0, 1, 2))
    assert judge_conditions(same, tiny_bundle, plan, own).answer == "no"


def test_conditions_that_learned_nothing_are_named(tiny_bundle):
    _, plan = plan_of(tiny_bundle)
    table = predictions(tiny_bundle, plan, {one.name: 0.1 for one in plan.conditions})
    assert without_learning(table, plan) == {}
    assert without_learning(table.iloc[:0], plan) == {}
    is_short, is_long = (table["model"] == name for name in ("context_512", "context_whole"))
    table.loc[is_short, "predicted"] = 7.0 + 1e-7 * np.arange(is_short.sum())
    table.loc[is_long, "predicted"] = -table.loc[is_long, "observed"]
    reasons = without_learning(table, plan)
    assert set(reasons) == {"context_512", "context_whole"}
    assert "same level for all genes" in reasons["context_512"]
    assert "worse than their mean" in reasons["context_whole"]


def test_controls_hold_for_the_settings_they_depend_on():
    first = control_settings(config())
    assert control_settings(config("verdict.folds=1,2", "verdict.workers=7")) == first
    assert control_settings(config("verdict.width=32")) != first
    assert control_settings(config("verdict.smallest_effect=0.3")) == first
    assert control_settings(config("verdict.relatives=true")) == first, "they have none"
    assert control_settings(config("verdict.control_smallest_effect=0.3")) != first


DISTANCES = [0, 128, 256, 512, 1024]


def instruments(is_distal):
    """Four genes; beyond 256 bp everything, or nothing, decides."""
    full = np.array([1.0, 2.0, 3.0, 4.0])
    rows = [
        (f"g{i}", d, 2.5 if is_distal and d <= 256 else level, level)
        for d in DISTANCES
        for i, level in enumerate(full)
    ]
    dose = pd.DataFrame(rows, columns=["gene_id", "distance_bp", "level", "full"])
    share = [0.1, 0.0, 0.0, 0.9, 0.0] if is_distal else [0.95, 0.05, 0.0, 0.0, 0.0]
    mass = pd.DataFrame({"low_bp": [0, *DISTANCES[:-1]], "high_bp": DISTANCES})
    return dose, mass.assign(gradient=share, perturbation=share)


@pytest.mark.parametrize(
    ("answer", "is_distal", "n_disagreements"),
    [("yes", True, 0), ("yes", False, 3), ("no", False, 0), ("no", True, 3),
     ("cannot tell", True, 0)],
)  # fmt: skip
def test_disagreements_are_said(answer, is_distal, n_disagreements):
    found = compare_distance_dependence(answer, *instruments(is_distal), 512, 2048)
    assert len(found["disagreements"]) == n_disagreements
    assert all(f"The conditions say {answer}" in text for text in found["disagreements"])
    assert found["distance_dependence"]["depends_beyond"]["gradient"] is is_distal
    assert found["distance_dependence"]["field_gradient_bp"] == (512 if is_distal else 0)
    assert found["distance_dependence"]["kept_beyond_shortest"] == pytest.approx(
        0 if is_distal else 1
    )


def test_without_genes_there_are_no_other_instruments():
    empty = pd.DataFrame()
    assert compare_distance_dependence("no", empty, empty, 512, 2048)["distance_dependence"] is None


def test_instruments_that_disagree_with_each_other_say_so_whatever_the_answer():
    dose, mass = instruments(True)[0], instruments(False)[1]
    (found,) = compare_distance_dependence("cannot tell", dose, mass, 512, 2048)["disagreements"]
    assert "The methods of distance dependence disagree" in found
    assert (
        "shuffling all beyond a distance found that it depends on sequence further than 256 bp"
        in found
    )
    assert "gradient and perturbation did not" in found


def test_of_a_model_that_needs_no_sequence_mass_says_nothing():
    near, far = instruments(False)[0], instruments(True)[1]
    found = compare_distance_dependence("cannot tell", near, far, 512, 2048, 1.0)
    assert found["disagreements"] == []
    wanted = {"dose-response": False, "gradient": None, "perturbation": None}
    assert found["distance_dependence"]["depends_beyond"] == wanted


def test_what_lies_outside_of_the_window_is_not_denied():
    found = compare_distance_dependence("yes", *instruments(False), 512, 100_000)["disagreements"]
    assert len(found) == 3
    assert all("within the 1024 bp that were measured" in text for text in found)


def test_who_does_not_look_cannot_say_no():
    no = Decision("no", (), "Longer context does not help here.")
    assert question_no(no, 0.5) is no
    taken_back = question_no(no, 0.9991)
    assert taken_back.answer == "cannot tell"
    assert "99.9% of the differences" in taken_back.sentence
    unknown = question_no(no, None)
    assert unknown.answer == "no"
    assert "was not measured" in unknown.sentence
    yes = Decision("yes", (), "Longer context helps here.")
    assert question_no(yes, 1.0) is yes
    assert question_no(yes, None) is yes


def test_a_no_of_conditions_that_learned_for_a_shorter_time_is_taken_back():
    no, yes = (Decision(answer, (), "said") for answer in ("no", "yes"))
    assert question_steps(no, 80, 80) is no
    assert question_steps(yes, 10, 80) is yes
    taken_back = question_steps(no, 48, 80)
    assert taken_back.answer == "cannot tell"
    assert "took 48 steps" in taken_back.sentence
    assert "took 80" in taken_back.sentence


def test_steps_are_those_of_a_run(tiny_bundle):
    settings = gs.override(gs.load_preset("quick"), ["verdict.core_bp=32768"])
    plan = plan_conditions(settings, tiny_bundle, (512, 2048))
    windows = len(tile_windows(tiny_bundle.genome, plan.core_bp, plan.flank_bp, offset_bp=1))
    assert condition_steps(tiny_bundle.genome, settings, plan, 3) == 3 * windows


def test_a_pass_over_a_whole_circle_is_one_step(tiny_bundle):
    assert tiny_bundle.genome.contigs[0].is_circular
    settings = gs.load_preset("quick")
    plan = plan_conditions(settings, tiny_bundle, (512, 8_388_608))
    assert condition_steps(tiny_bundle.genome, settings, plan, 5) == 5
