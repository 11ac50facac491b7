"""The help of the command, of what lies below a verb, and what the tab key completes."""

import shutil
import subprocess

import pytest

from keras_resnet.cli import parser
from keras_resnet.cli.main import main
from keras_resnet.cli.options import file_actions
from keras_resnet.display import console

PARSERS = dict(parser.walk(parser.parsers()[0]))


@pytest.mark.parametrize("name", filter(None, PARSERS))
def test_everything_has_help_with_an_example(name):
    text = PARSERS[name].format_help()
    assert "--json" in text
    assert f"keras-resnet {name}" in text.splitlines()[-1]
    assert "Example: " in text


def test_an_example_is_one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    example = PARSERS["explain"].format_help().splitlines()[-1]
    assert example.endswith("cat.jpg --methods gradcam,smoothgrad")


def test_a_step_before_the_example_stands_before_it():
    *_, first, second = PARSERS["completion"].format_help().splitlines()
    assert first.startswith("Example: mkdir -p ~/")
    assert second.startswith("         keras-resnet completion bash > ~/")


@pytest.mark.parametrize("name", PARSERS)
def test_every_argument_has_help(name):
    """All but the place of a verb, whose lines are listed."""
    arguments = PARSERS[name]._actions
    assert all(action.help for action in arguments if not isinstance(action.choices, dict))


def _help(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["--help"])
    return capsys.readouterr().out


def test_the_help_says_what_the_exit_codes_mean(monkeypatch, capsys):
    text = " ".join(_help(monkeypatch, capsys).split())
    assert "0 success; 1 a file failed its check; 2 an error that you can fix" in text
    assert "130 interrupted" in text


def test_the_help_lists_every_verb_once_in_its_group(monkeypatch, capsys):
    """In one line of a terminal with 80 columns."""
    assert set(parser.VERBS) == set(parser._DEFINED)
    assert len(parser.VERBS) == sum(map(len, parser.GROUPS.values()))
    lines = _help(monkeypatch, capsys).splitlines()
    for title, names in parser.GROUPS.items():
        first = lines.index(f"{title}:") + 1
        listed = [line.split(maxsplit=1) for line in lines[first : first + len(names)]]
        assert listed == [[name, parser.VERBS[name].summary] for name in names]
    assert max(map(len, lines)) <= 80


def test_a_table_wider_than_the_terminal_keeps_its_figures(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    name = "runs/[a]/" + 150 * "x"  # a bracket is no markup
    console.print_table("Wide", ("file", "bytes"), [(name, "1,094,208"), ("y", "7")])
    assert f"{name}  1,094,208\n" in capsys.readouterr().out


# The tab key --------------------------------------------------------------------------------------


def test_files_are_the_arguments_that_can_be_one():
    def files(name):
        found = file_actions(PARSERS[name])
        return {(action.option_strings or [action.dest])[0] for action in found}

    assert files("predict") == {"model", "--weights", "images", "--out"}
    assert files("train") == {"config", "--resume", "--out", "--data"}
    assert files("benchmark") == {"files", "--against", "--out", "--picture"}
    assert files("weights import") == files("weights") == {"file", "--out"}
    assert files("list") == {"--csv", "--picture"}
    assert files("completion") == set()


def _script(shell, folder, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    path = folder / f"completion.{shell}"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_reads_the_script(shell, tmp_path, capsys):
    script = _script(shell, tmp_path, capsys)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    result = subprocess.run([shell, "-n", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert ":_files" in script.read_text() or shell == "bash"


def test_tcsh_has_every_command(tmp_path, capsys):
    """Not read by a tcsh: only that the script completes this command's words."""
    script = _script("tcsh", tmp_path, capsys).read_text()
    assert script.count("complete keras-resnet") == 1
    assert all(verb in script for verb in parser.parsers()[1])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["predict", "mod"], {"model.keras"}),
        (["predict", "model.keras", "c"], {"cat.jpg"}),
        (["export", "model.keras", "--out", "exp"], {"exports"}),
        (["weights", "im"], {"import"}),
        (["weights", "import", "cat"], {"cat.jpg"}),
        (["weights", "import", "--pre"], {"--preprocessing"}),
        (["show", "resnet152v1"], {"resnet152v1_5"}),
        (["profile", "resnet152v1"], {"resnet152v1_5"}),
        (["profile", "mod"], {"model.keras"}),
        (["train", "debug/"], {"debug/tiny"}),
        (["explain", "model.keras", "--methods", "gradcam,smo"], {"gradcam,smoothgrad"}),
        (
            ["export", "model.keras", "--formats", "savedmodel,tflite-int1"],
            {"savedmodel,tflite-int16x8"},
        ),
    ],
    ids=" ".join,
)
def test_bash_completes(words, expected, tmp_path, capsys):
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    script = _script("bash", tmp_path, capsys)
    (tmp_path / "files").mkdir()
    for name in ("model.keras", "cat.jpg", "exports"):
        (tmp_path / "files" / name).touch()
    asked = (
        'source "$0"; COMP_WORDS=(keras-resnet "$@"); COMP_CWORD=$#; '
        '_shtab_keras_resnet 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    result = subprocess.run(
        ["bash", "-c", asked, script, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path / "files",
        check=True,
    )
    assert set(result.stdout.split()) == expected
