"""The flat order of groups, and the refusal of indices that do not fit."""

import pytest
import torch

from equigen.equity import Groups
from equigen.errors import InputError


def test_flat_order_and_slices(groups):
    assert len(groups) == 5
    assert groups.index == (("sex", "female"), ("sex", "male"), ("age", "young"), ("age", "middle"), ("age", "old"))
    assert groups.slices == {"sex": slice(0, 2), "age": slice(2, 5)}
    assert groups.attributes == ("sex", "age")


def test_spread_gives_each_image_the_value_of_its_group_and_zero_where_unknown(groups):
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    index = torch.tensor([[0, 2], [1, 0], [-1, 1], [-1, -1]])
    expected = torch.tensor([[1.0, 5.0], [2.0, 3.0], [0.0, 4.0], [0.0, 0.0]])
    assert torch.equal(groups.image_values(values, index), expected)


def test_spread_of_a_level_that_an_attribute_does_not_have_is_nan_and_never_a_neighbour(groups):
    assert groups.image_values(torch.ones(5), torch.tensor([[2, 0]]))[0].isnan().tolist() == [True, False]


def test_records_are_keyed_by_attribute_and_group(groups):
    records = groups.records("sigma", torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert records["sigma/sex/male"] == 0.25
    assert records["sigma/age/old"] == 1.0
    assert len(records) == 5


@pytest.mark.parametrize(
    "names, message",
    [
        ((("sex", ()),), "no levels"),
        ((("sex", ("f", "f")),), "level is named twice"),
        ((("sex", ("f",)), ("sex", ("m",))), "attribute is named twice"),
        ((("a/b", ("f", "m")),), "'/' cannot stand"),
    ],
)
def test_names_that_cannot_be_groups_are_refused(names, message):
    with pytest.raises(InputError, match=message):
        Groups(names)


@pytest.mark.parametrize(
    "index, message",
    [
        (torch.zeros(4, 1, dtype=torch.int64), r"not integer \(4, 2\)"),
        (torch.zeros(4, 2), "float32"),
        (torch.tensor([[0, 0], [0, 3], [0, 0], [0, 0]]), "column 'age': 3 is outside -1..2"),
        (torch.tensor([[-2, 0], [0, 0], [0, 0], [0, 0]]), "column 'sex': -2 is outside -1..1"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(make, index, message):
    with pytest.raises(InputError, match=message):
        make().weights(torch.ones(4), index, torch.zeros(4), 0)
