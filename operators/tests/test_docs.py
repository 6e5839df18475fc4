from pathlib import Path

from django.conf import settings

from apimgmt.management_api import PARTS, router
from operators.bodies import BODY_MAX_BYTES
from operators.paging import LIMIT_DEFAULT, LIMIT_MAX

TEXT = (Path(settings.BASE_DIR) / "docs" / "management-api.md").read_text()


def test_every_collection_and_filter_of_the_control_plane_has_its_row():
    ours = [viewset for _, viewset, _ in router.registry if viewset.__module__ != "analytics.api"]
    assert {viewset.__module__ for viewset in ours} == set(PARTS) - {"analytics.api"}
    for prefix, viewset, _ in router.registry:
        if viewset in ours and "(" not in prefix:
            (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{prefix}/`")]
            filterset = getattr(viewset, "filterset_class", None)
            for name in filterset.base_filters if filterset else ():
                assert f"`{name}`" in row, f"{prefix}: {name}"


def test_the_numbers_are_those_of_the_code():
    assert f"({LIMIT_DEFAULT}, at most {LIMIT_MAX})" in TEXT
    assert BODY_MAX_BYTES == 1024 * 1024
    assert "at most 1 MiB" in TEXT
