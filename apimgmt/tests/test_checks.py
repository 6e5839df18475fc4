import pytest

from apimgmt.checks import check_exposure

STRONG = {"SECRET_KEY": "s" * 60, "KEY_PEPPER": "p" * 60, "DEBUG": False, "ALLOWED_HOSTS": ["api.example"]}


@pytest.mark.parametrize(
    ("weakness", "fault"),
    [
        ({"DEBUG": True}, "apimgmt.E001"),
        ({"ALLOWED_HOSTS": ["*"]}, "apimgmt.E002"),
        ({"SECRET_KEY": "change-me"}, "apimgmt.E003"),
        ({"KEY_PEPPER": ""}, "apimgmt.E003"),
    ],
)
def test_what_must_not_be_exposed_is_found(settings, weakness, fault):
    for name, value in (STRONG | weakness).items():
        setattr(settings, name, value)
    assert [one.id for one in check_exposure(None)] == [fault]


def test_safe_settings_pass(settings):
    for name, value in STRONG.items():
        setattr(settings, name, value)
    assert check_exposure(None) == []
