"""What an operator leaves out."""

import pytest
from clinic_local import modules
from clinic_local.errors import SetupError
from clinic_shared import contracts

ALL = tuple(contracts.load().services)


def test_without_a_word_everything_runs():
    assert modules.chosen({}) == ALL
    assert modules.chosen({"CLINIC_WITHOUT": " , "}) == ALL


@pytest.mark.parametrize("name", [name for name in ALL if name not in modules.ALWAYS])
def test_any_other_service_can_be_left_out(name):
    assert modules.chosen({"CLINIC_WITHOUT": name}) == tuple(one for one in ALL if one != name)


def test_several_are_named_with_commas():
    chosen = modules.chosen({"CLINIC_WITHOUT": "reporting, billing"})
    assert set(ALL) - set(chosen) == {"reporting", "billing"}


@pytest.mark.parametrize("name", modules.ALWAYS)
def test_what_all_others_need_stays(name):
    with pytest.raises(SetupError, match="can't be left out"):
        modules.chosen({"CLINIC_WITHOUT": name})


@pytest.mark.parametrize("variable", ["CLINIC_WITHOUT", "CLINIC_SUBSCRIBED_SERVICES"])
def test_a_name_that_is_no_service_is_refused(variable):
    with pytest.raises(SetupError, match="no service billling"):
        modules.chosen({variable: "billling"})


def test_a_selection_for_tests_may_be_anything():
    assert modules.chosen({"CLINIC_SUBSCRIBED_SERVICES": "scheduling"}) == ("scheduling",)


def test_a_restart_leaves_out_what_the_start_left_out(tmp_path):
    assert modules.remembered(tmp_path) == ""
    modules.remember(tmp_path, "billing")
    assert modules.remembered(tmp_path) == "billing"
    modules.remember(tmp_path, "")
    assert modules.remembered(tmp_path) == ""
