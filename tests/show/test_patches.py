"""Bindings: the value for every option, and what a report is given of it."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genesplice.errors import InputError
from genesplice.show.patches import Binding, Control, decode_rows, encode_array

GENE = Control(name="gene", kind="select", label="Gene", options=("a", "b", "c"))
SIDE = Control(name="side", kind="toggle", label="Other side", options=("off", "on"))
CONTROLS = {"gene": GENE, "side": SIDE}


@given(
    arrays(np.float64, st.integers(0, 40), elements=st.floats(-1e5, 1e5, allow_nan=False)),
    st.integers(0, 3),
    st.booleans(),
)
def test_numbers_survive_to_their_decimals(
    values: np.ndarray, decimals: int, with_gap: bool
) -> None:
    if with_gap and values.size:
        values[0] = np.nan
    packed = encode_array(values, decimals)
    assert packed["type"] in {"i1", "i2", "i4"}
    back = decode_rows(packed)
    np.testing.assert_allclose(back, values, atol=0.5000001 * 10.0**-decimals, rtol=0)


@given(arrays(np.float64, 7, elements=st.floats(allow_infinity=False)))
def test_positions_keep_every_bit(values: np.ndarray) -> None:
    packed = encode_array(values)
    assert packed["type"] == "f8"
    assert "scale" not in packed
    np.testing.assert_array_equal(decode_rows(packed), values)


def test_the_smallest_type_that_fits_is_taken() -> None:
    for largest, kind in ((1.27, "i1"), (1.28, "i2"), (327.67, "i2"), (327.68, "i4")):
        assert encode_array(np.array([largest, -largest]), 2)["type"] == kind
    for largest, kind in ((127, "i1"), (128, "i2"), (32768, "i4"), (2**40, "f8")):
        assert encode_array(np.array([largest, -1]))["type"] == kind
    assert encode_array(np.array([], dtype=np.int64))["type"] == "i1"
    assert encode_array(np.array([True, False]))["type"] == "i1"
    assert encode_array(np.ones(3, dtype=np.float32))["type"] == "f4"
    position = np.array([4_641_651.5])
    assert decode_rows(encode_array(position))[0] == position[0]
    with pytest.raises(InputError, match="smaller, or fewer decimals"):
        encode_array(np.array([1e9]), 3)
    with pytest.raises(InputError, match="an array of"):
        encode_array(np.array(["a"]))


def test_a_value_for_every_combination_of_options() -> None:
    table = np.arange(3 * 2 * 4, dtype=np.float64).reshape(3, 2, 4)
    texts = [f"{gene}{side}" for gene in "abc" for side in ("off", "on")]
    array = Binding(path="y", rows=table, controls=("gene", "side"), traces=(0,))
    listed = Binding(path="name", rows=texts, controls=("gene", "side"), traces=(0,))
    for binding in (array, listed):
        binding.check(CONTROLS, 1)
    flat = decode_rows(array.to_payload())
    for i, j in itertools.product(range(3), range(2)):
        state = {"gene": i, "side": j}
        expected = [i * 8 + j * 4 + k for k in range(4)]
        assert array.value(state, CONTROLS).tolist() == expected
        assert listed.value(state, CONTROLS) == "abc"[i] + ("off", "on")[j]
        # What the page does: the last control runs fastest.
        index = i * 2 + j
        assert flat[index * 4 : (index + 1) * 4].tolist() == expected
        assert listed.to_payload()["values"][index] == "abc"[i] + ("off", "on")[j]


def test_rows_may_be_scalars_ragged_or_letters() -> None:
    scalars = Binding(path="x0", rows=np.array([1.0, 2.0, 3.5]), controls=("gene",))
    assert scalars.value({"gene": 2}, CONTROLS) == 3.5
    assert type(scalars.value({"gene": 2}, CONTROLS)) is float
    assert scalars.to_payload()["kind"] == "scalars"

    rows = [np.array([1.0]), np.array([]), np.array([2.0, np.nan])]
    ragged = Binding(path="x", rows=rows, controls=("gene",), traces=(0,))
    assert ragged.value({"gene": 1}, CONTROLS).size == 0
    payload = ragged.to_payload()
    assert (payload["kind"], payload["lengths"]) == ("ragged", [1, 0, 2])
    np.testing.assert_array_equal(decode_rows(payload), [1.0, 2.0, np.nan])

    letters = Binding(
        path="text",
        rows=np.array([[0, 1], [3, 4], [2, 2]]),
        controls=("gene",),
        traces=(0,),
        palette=tuple("ACGTN"),
    )
    assert letters.value({"gene": 1}, CONTROLS) == ["T", "N"]
    assert letters.to_payload()["palette"] == list("ACGTN")
    assert letters.to_payload()["type"] == "i1"

    rounded = Binding(path="y", rows=np.array([[0.126], [1.0], [np.nan]]), controls=("gene",))
    short = Binding(path="y", rows=rounded.rows, controls=("gene",), decimals=2)
    assert short.value({"gene": 0}, CONTROLS).tolist() == [0.13]
    for binding in (scalars, ragged, letters, rounded, short):
        binding.check(CONTROLS, 1)
        json.dumps(binding.to_payload(), allow_nan=False)


@pytest.mark.parametrize(
    ("binding", "match"),
    [
        (Binding(path="y", rows=[1, 2], controls=("gene",)), "values 2 for y, expected 3"),
        (
            Binding(path="y", rows=np.ones((2, 3)), controls=("side", "gene", "x")),
            "y bound to x, expected controls among gene, side",
        ),
        (
            Binding(path="y", rows=np.ones((3, 2)), controls=("side", "gene")),
            "values 3 x 2 for y, expected 2 x 3, the options of side, gene",
        ),
        (Binding(path="y", rows=[1], controls=()), "y bound to nothing"),
        (Binding(path="y", rows=[1] * 3, controls=("gene",), traces=(2,)), "y of trace 2"),
    ],
)
def test_a_binding_that_does_not_fit_is_refused(binding: Binding, match: str) -> None:
    with pytest.raises(InputError, match=match):
        binding.check(CONTROLS, 2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"options": ()}, "0 options of 'g'"),
        ({"options": ("a", "a")}, "2 options of 'g', 1 of them different"),
        ({"options": ("a",), "kind": "toggle"}, "1 options of toggle 'g', expected 2"),
        ({"options": ("a", "b"), "start": 2}, "'g' starting at 2, expected 0 to 1"),
    ],
)
def test_a_control_that_makes_no_sense_is_refused(options: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Control(**{"name": "g", "kind": "select", "label": "G", **options})
