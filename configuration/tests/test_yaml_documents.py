import pytest

from configuration.yaml_documents import BYTES_MAX, DEPTH_MAX, DocumentError, parse, read, write
from configuration.yaml_reader import ALIASES_MAX


def refusal_of(text):
    with pytest.raises(DocumentError) as refused:
        parse(text, "x.yaml")
    return str(refused.value)


def test_yaml_and_json_are_read_as_the_same_plain_data():
    data = {"a": [1, 2.5, True, None, "x"], "b": {"c": "2026-01-01"}}
    assert parse("a: [1, 2.5, true, null, x]\nb: {c: 2026-01-01}", "x").data == data
    assert parse('{"a": [1, 2.5, true, null, "x"],\n\t"b": {"c": "2026-01-01"}}', "x").data == data
    assert type(parse("a: 2.5", "x").data["a"]) is float


def test_booleans_of_yaml_1_1_are_strings():
    assert parse("a: [yes, no, on, off]", "x").data == {"a": ["yes", "no", "on", "off"]}


def test_places_have_file_line_and_column():
    document = parse("tiers:\n  - name: gold\n    limits:\n      - metric: requests\n", "x.yaml")
    assert document.place("tiers", 0, "limits", 0, "metric") == "x.yaml:4:9"
    assert document.place("tiers", 0, "no such") == "x.yaml:2:5"
    assert document.place() == "x.yaml:1:1"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [1,2", "x.yaml:2:1: did not find expected ',' or ']'"),
        ("a: 1\na: 2", 'x.yaml:2:1: found duplicate key "a"'),
        ("a: *b", "x.yaml:1:4: found undefined alias"),
        ("a: !secret x", "x.yaml:1:1: values of this YAML type are not supported"),
        ("a: !!set {b, c}", "x.yaml:1:1: values of this YAML type are not supported"),
        ("a: !!int x", "x.yaml:1:1: must be a whole number"),
        ("a: 1e999", "x.yaml:1:1: a number must be finite"),
        ("a: .inf", "x.yaml:1:1: a number must be finite"),
        ("a: " + "9" * 500, "x.yaml:1:1: a number has more than 400 digits"),
        ('{"a": ' + "9" * 500 + "}", "x.yaml:1:2: a number has more than 400 digits"),
        ('{"a": ' + "9" * 5000 + "}", "x.yaml:1:2: a number has more than 400 digits"),
        ('{"a": 1e999}', "x.yaml:1:2: a number must be finite"),
        ('{"a": {"b": 1,\n "b": 2}}', 'x.yaml:2:2: found duplicate key "b"'),
        ("? [1]\n: 2", "x.yaml:1:1: a name must be a string"),
        ("a: 1\n---\nb: 2", "x.yaml:2:1: a second document"),
        ("a: \x00", "x.yaml: "),
        (r'a: "\0"', "x.yaml:1:1: a string must not contain NUL"),
        (r'a: "\ud800"', "x.yaml:1:7: found invalid Unicode character escape code"),
        (r'{"a": "\ud800"}', "x.yaml:1:1: a string must not contain NUL"),
        (r'{"\u0000": 1}', "x.yaml:1:1: a string must not contain NUL"),
        (r'"\0": a', "x.yaml:1:1: a string must not contain NUL"),
        ("[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), f"nested more than {DEPTH_MAX} levels"),
        ("a: &a x\nb: [" + "*a, " * (ALIASES_MAX + 1) + "]", f"more than {ALIASES_MAX} aliases"),
        ("a: " + "x" * BYTES_MAX, "is larger than"),
    ],
)
def test_what_is_refused_says_where_and_why(text, fault):
    assert fault in refusal_of(text)


def test_aliases_that_grow_without_end_are_refused():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]" for number in range(1, 9)]
    assert "after expanding aliases" in refusal_of("\n".join(lines))


def test_a_file_that_is_missing_too_large_or_not_utf_8_is_refused(tmp_path):
    with pytest.raises(DocumentError, match="No such file"):
        read(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(DocumentError, match="not UTF-8"):
        read(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (BYTES_MAX + 1))
    with pytest.raises(DocumentError, match="larger than"):
        read(tmp_path / "large.yaml")


def test_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read(tmp_path / "bom.yaml").data == {"a": 1}


@pytest.mark.parametrize(
    "text", ["on", "12", "1e3", "null", "2026-01-01", "a: b", "- x", "", " x ", "# x", "ä\n\nb", "*a"]
)
def test_every_text_that_is_written_is_read_back(text):
    assert parse(write({"a": text, "b": [text, {"c": text}]}), "x").data == {"a": text, "b": [text, {"c": text}]}
