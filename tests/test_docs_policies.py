"""The page on policies says what the code does."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gateway.config import Config
from gateway.hooks import api as hooks
from gateway.hooks import functions
from gateway.policies import KNOWN, custom, rate_limit, transform, validate
from gateway.refusals import Reason
from gateway.wire import header_fields
from routes.validation import clean_policies

PAGE = (Path(__file__).parents[1] / "docs" / "policies.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
OPTIONS = re.compile(r'(?:allow_only\(\w+, |OPTIONS = |OF_FUNCTIONS = |OF_FIXED = )\(((?:"\w+"(?:, )?)+),?\)')
SECTIONS = dict(re.findall(r"^## ([a-z-]+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_can_be_saved(example):
    assert clean_policies(YAML(typ="safe", pure=True).load(example))


@pytest.mark.parametrize("name", list(KNOWN))
def test_every_policy_has_its_section_with_all_its_options_and_its_row(name):
    source = Path(transform.__file__).parent / f"{name.replace('-', '_')}.py"
    found = [option for group in OPTIONS.findall(source.read_text()) for option in re.findall(r"\w+", group)]
    assert [option for option in found if f"`{option}`" not in SECTIONS[name]] == []
    assert re.search(rf"^\| .*`{name}`", PAGE, re.MULTILINE)


def test_options_are_found_at_all():
    source = (Path(custom.__file__)).read_text()
    assert "function" in OPTIONS.findall(source)[0]


def test_the_interface_of_functions_is_all_there():
    for name in hooks.__all__:
        assert f"`{name}`" in PAGE
    for name in (*hooks.Call.__slots__, *hooks.Principal.__slots__):
        assert f"`{name}`" in PAGE
    assert set(re.findall(r'Refuse\("([a-z-]+)"', PAGE)) <= set(Reason)


def test_the_python_on_the_page_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found = {}
    exec(code, found)
    caller = hooks.Principal("acme", "k", "free", (), {"region": "xx"}, {})
    call = hooks.Call(caller, "r", "http", "GET", "/", {}, "", "192.0.2.1", None, hooks.Headers())
    assert found["add_region"](call, hooks.Request(hooks.Headers()), {"closed": ["xx"]}).status == 451
    request = hooks.Request(hooks.Headers())
    assert found["add_region"](call, request, {}) is None
    assert request.headers["x-region"] == "xx"


@pytest.mark.parametrize(
    "documented",
    [
        f"`HOOK_THREADS` ({Config.__dataclass_fields__['hook_threads'].default})",
        f"`HOOK_TIMEOUT_S` ({Config.__dataclass_fields__['hook_timeout_s'].default} s)",
        f"after {functions.TIMEOUTS_MAX} missed deadlines",
        f"not called for {functions.SUSPENDED_S:g} s at a time",
        f"at most {validate.ERRORS_MAX}; of a body above {validate.ALL_ERRORS_MAX_BYTES // 1024} KiB",
        f"at most {validate.SCHEMA_MAX_BYTES // 1024} KiB",
        f"At most {transform.STEPS_MAX} steps a side, {transform.DEPTH_MAX} levels a pointer",
        f"{transform.VALUE_MAX_BYTES // 1024} KiB a value",
        f"at most 10^{len(str(rate_limit.AMOUNT_MAX)) - 1}",
    ],
)  # fmt: skip
def test_numbers_are_those_of_the_code(documented):
    assert documented in " ".join(PAGE.split())


def test_every_header_of_the_gateway_is_told():
    assert all(name in PAGE.lower() for name in header_fields.OF_THE_CONNECTION)
