import datasets
import pytest

from altprop.errors import UsageError
from altprop.tasks.columns import choose

IMAGE, LABEL, NUMBER = datasets.Image(), datasets.ClassLabel(names=["a", "b"]), datasets.Value("int64")


def test_by_type_whatever_the_names() -> None:
    features = datasets.Features({"klass": LABEL, "pic": IMAGE, "id": NUMBER})
    assert choose(features, "there", None, None) == ("pic", "klass")


def test_two_candidates_need_a_name() -> None:
    features = datasets.Features({"img": IMAGE, "fine": LABEL, "coarse": LABEL})
    with pytest.raises(UsageError, match=r"2 columns.*fine \(ClassLabel\), coarse \(ClassLabel\).*label=NAME"):
        choose(features, "there", None, None)
    assert choose(features, "there", None, "fine") == ("img", "fine")


def test_no_candidate_needs_a_name() -> None:
    features = datasets.Features({"img": IMAGE, "number": NUMBER})
    with pytest.raises(UsageError, match=r"there has no columns of the type ClassLabel.*number \(int64\)"):
        choose(features, "there", None, None)
    assert choose(features, "there", None, "number") == ("img", "number")
    with pytest.raises(UsageError, match="image=NAME"):
        choose(datasets.Features({"text": datasets.Value("string"), "y": LABEL}), "there", None, None)


def test_a_wrong_name_lists_the_columns() -> None:
    features = datasets.Features({"img": IMAGE, "y": LABEL})
    with pytest.raises(UsageError, match=r"no column 'lable': its columns are img \(Image\), y \(ClassLabel\)"):
        choose(features, "there", None, "lable")


def test_text_is_no_label() -> None:
    features = datasets.Features({"img": IMAGE, "y": datasets.Value("string")})
    with pytest.raises(UsageError, match="'y' of there holds string, which are not labels"):
        choose(features, "there", None, "y")
