import math
from pathlib import Path

import pytest
import yaml

from search_spaces import ConfigurationError, load_yaml, resolve_config_path
from search_spaces.diagnostics.diagnostics import Diagnostics


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-2.5e-4", -0.00025),
        (".5", 0.5),
        ("1.", 1.0),
        ("1.e2", 100.0),
        ("1_000", 1000),
        ("032", 32),
        ("+7", 7),
        ("0x1F", 31),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("yes", True),
        ("Off", False),
        ("", None),
        ("~", None),
        ("'1e-3'", "1e-3"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("e3", "e3"),
        ("1e", "1e"),
        ("ខ្មែរ", "ខ្មែរ"),
        ("[1, 2e-1]", [1, 0.2]),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
    ],
)
def test_scalar_has_the_expected_value_and_type(write, text, value):
    found = load_yaml(write(f"key: {text}\n")).data["key"]
    assert found == value
    assert type(found) is type(value)


def test_loaders_of_pyyaml_are_not_changed(write):
    load_yaml(write("a: 1e-3\n"))
    assert yaml.safe_load("a: 1e-3") == {"a": "1e-3"}


def test_byte_order_mark_is_ignored(write):
    assert load_yaml(write(b"\xef\xbb\xbfa: 1\n")).data == {"a": 1}


def test_every_key_and_list_item_has_its_line(write):
    document = load_yaml(write("# head\na:\n  b: 1\n  c:\n  - 5\n  - d: 6\n"))
    assert document.line(("a",)) == 2
    assert document.line(("a", "b")) == 3
    assert document.line(("a", "c", 1, "d")) == 6
    assert document.line(("a", "missing", "deep")) == 2
    assert document.location(("a", "b")) == "config.yaml:3: "


MERGED = """\
base: &base {x: 1, y: 2}
other: &other {y: 3, z: 4}
a: {<<: *base, y: 9}
b: {<<: [*base, *other]}
c:
  y: 9
  <<: *base
"""


def test_merged_keys_keep_the_lines_of_their_anchors(write):
    document = load_yaml(write(MERGED))
    assert document.data["a"] == {"x": 1, "y": 9}
    assert document.data["b"] == {"x": 1, "y": 2, "z": 4}
    assert document.data["c"] == {"x": 1, "y": 9}
    assert document.line(("a", "x")) == 1
    assert document.line(("c", "y")) == 6


def test_all_duplicate_keys_are_reported_with_both_lines(write):
    text = "a: 1\nb:\n  c: 1\n  c: 2\na: 3\n"
    messages = (
        "the key 'c' is already in line 3; remove one of the two",
        "the key 'a' is already in line 1; remove one of the two",
    )
    document = load_yaml(write(text))
    assert (document.data, document.duplicates) == ({"a": 1, "b": {"c": 1}}, ((4, messages[0]), (5, messages[1])))
    with pytest.raises(ConfigurationError) as caught:
        Diagnostics(document).raise_errors()
    assert caught.value.problems == (f"config.yaml:4: {messages[0]}", f"config.yaml:5: {messages[1]}")
    # An unreadable value is raised at once, with the duplicate keys, because the data cannot be checked.
    with pytest.raises(ConfigurationError) as caught:
        load_yaml(write(text + "d: !!binary aGVsbG8=\n"))
    assert len(caught.value.problems) == 3


def test_duplicate_key_in_an_anchor_is_reported_once(write):
    assert len(load_yaml(write("a: &a {x: 1, x: 2}\nb: *a\nc: {<<: *a}\n")).duplicates) == 1


@pytest.mark.parametrize(
    ("text", "location", "message"),
    [
        ("a: [1, 2\nb: 3\n", "config.yaml:2:2: ", "that starts in line 1"),
        ("a: 1\n\tb: 2\n", "config.yaml:2:1: ", "spaces, not tabs"),
        ("a: b: c\n", "config.yaml:1:5: ", "mapping values are not allowed"),
        ("a: *missing\n", "config.yaml:1:4: ", "define the anchor"),
        ("a: 1\n---\nb: 2\n", "config.yaml:2:1: ", "one document"),
        ("a: 1\nb: x\x07y\n", "config.yaml:2:5: ", "not allowed in YAML"),
        ("a: 'x\n", "config.yaml:", "not valid YAML"),
    ],
)
def test_message_about_invalid_yaml_has_location_and_remedy(write, text, location, message):
    with pytest.raises(yaml.YAMLError) as caught:
        load_yaml(write(text))
    assert str(caught.value).startswith(location)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"# only a comment\n", "the file is empty"),
        (b"- 1\n- 2\n", "found a list; expected a mapping"),
        (b"hello\n", "found a single value; expected a mapping"),
        (b"a: " + b"x" * 300_000, r"the file has 300,003 bytes; expected at most 262,144"),
        (b"a: " + b"[" * 60 + b"]" * 60, "nested more than 40 levels"),
        (b"a: !!python/tuple [1, 2]\n", "the tag !!python/tuple is not allowed"),
        (b"a: !mine 5\n", "the tag !mine is not allowed"),
        (b"a: !!int hello\n", "'hello' is not a valid int"),
        (b"a: !!bool hello\n", "'hello' is not a valid bool"),
    ],
)
def test_unsuitable_file_is_rejected(write, content, message):
    with pytest.raises(ConfigurationError) as caught:
        load_yaml(write(content))
    assert str(caught.value).startswith("config.yaml:")
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("item", ["[{0}, {0}, {0}, {0}, {0}, {0}]", "{{<<: [{0}, {0}, {0}, {0}, {0}, {0}]}}"])
def test_exponentially_expanding_anchors_are_rejected_quickly(write, item):
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{level}: &a{level} {item.format(f'*a{level - 1}')}" for level in range(1, 25)]
    with pytest.raises(ConfigurationError, match="anchors expand to more than"):
        load_yaml(write("\n".join(lines)))


def test_message_about_a_folder_suggests_the_files_in_it(write, tmp_path):
    write("a: 1", "inside.yaml")
    with pytest.raises(ConfigurationError, match=r"it is a folder\); use a YAML file in this folder: inside\.yaml"):
        load_yaml(tmp_path)


def test_file_that_cannot_be_opened_is_reported(write):
    with pytest.raises(ConfigurationError, match=r"config\.yaml/inner\.yaml: cannot be read \(Not a directory\)"):
        load_yaml(write("a: 1") / "inner.yaml")


def test_message_about_a_missing_file_suggests_a_similar_name(write, tmp_path):
    write("a: 1", "my_config.yaml")
    with pytest.raises(FileNotFoundError, match="did you mean") as caught:
        load_yaml("my_confg.yaml")
    assert str(tmp_path / "my_config.yaml") in str(caught.value)


@pytest.mark.parametrize("other", ["best.yaml", "test_2.yaml", "test.json", "other/test.yaml"])
def test_dissimilar_name_other_suffix_or_other_folder_is_not_suggested(write, other):
    write("a: 1", other)
    with pytest.raises(FileNotFoundError, match=r"; check the path$"):
        load_yaml("test.yaml")


def test_working_directory_is_searched_before_the_package(write):
    built_in = resolve_config_path("config/phase3_simple_configs.yaml")
    assert built_in.is_absolute()
    assert built_in.is_file()
    write("experiments: {}", "config/phase3_simple_configs.yaml")
    assert resolve_config_path("config/phase3_simple_configs.yaml") == Path("config/phase3_simple_configs.yaml")


def test_folder_of_the_referring_file_is_searched_after_the_working_directory(write, tmp_path):
    name, referring = "config/model_config.yaml", Path("other/experiments.yaml")
    built_in = resolve_config_path(name, referring)
    write("models: {}", f"other/{name}")
    relative = resolve_config_path(name, referring)
    write("models: {}", name)
    assert (built_in, relative) == (resolve_config_path(built_in), tmp_path / "other" / name)
    assert resolve_config_path(name, referring) == Path(name)
    write("a: 1", "other/deeper/x.yaml")
    assert resolve_config_path(f"../{name}", Path("other/deeper/x.yaml")) == (
        tmp_path / "other" / "deeper" / ".." / name
    )
    with pytest.raises(FileNotFoundError) as caught:
        resolve_config_path("nothing.yaml", referring)
    searched = [tmp_path / "nothing.yaml", tmp_path / "other" / "nothing.yaml"]
    assert f"looked for {searched[0]} and {searched[1]} and " in str(caught.value)


@pytest.mark.parametrize(
    "path", ["nothing.yaml", "/nothing.yaml", "../names.py", "x" * 5000, "a\0b", "~unknown-user/x.yaml"]
)
def test_missing_path_raises_file_not_found_error(path):
    with pytest.raises(FileNotFoundError, match="configuration file not found"):
        resolve_config_path(path)
