"""The command line as a user meets it: real outputs, and one line with exit status 2 for a mistake."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from bnnlib import paths, studies
from bnnlib.energy import memory_uj
from bnnlib.specs import ModelSpec, TrainSpec


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A study of two quick runs, with folders of its own."""
    quick = TrainSpec("digits", 2, batch=50, train_images=100)
    protocol = studies.Protocol(quick, quick, {"": 2})
    study = studies.Study({"binary": ModelSpec("lenet5", "bbbb", "bbb")}, {"short": protocol})
    monkeypatch.setitem(studies.STUDIES, "tiny", study)
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("BNN_CHECKPOINTS", str(tmp_path / "checkpoints"))
    return tmp_path


def test_cost_prints_layers_and_total(bnn):
    status, out, _ = bnn("cost", "vggnet7", "--weights", "tbbbbbbbb", "--acts", "bbbbbbbb", "--table", "icmla2020")
    lines = out.splitlines()
    assert status == 0 and len(lines) == 11
    assert lines[1].split()[:5] == ["conv1", "3,110,400", "27", "fixed8", "ternary"]
    assert "514,072,064" in lines[-1] and "0.7036" in lines[-1]


def test_memory_has_a_column_of_its_own(bnn):
    arguments = ("cost", "lenet5", "--weights", "tbbb", "--acts", "btb")
    plain, with_memory = bnn(*arguments)[1].splitlines(), bnn(*arguments, "--memory")[1].splitlines()
    assert with_memory[0] == plain[0] + "   memory uJ"
    assert all(more.startswith(line) for line, more in zip(plain[:-1], with_memory[:-1], strict=True))
    found = json.loads(bnn(*arguments, "--memory", "memory45", "--json")[1])
    assert found["total_uj"] == json.loads(bnn(*arguments, "--json")[1])["total_uj"]
    spec = ModelSpec("lenet5", "tbbb", "btb")
    assert found["memory_uj"] == pytest.approx(memory_uj(spec)) and f"{memory_uj(spec):.4f}" in with_memory[-1]
    assert sum(layer["memory_fj"] for layer in found["layers"]) * 1e-9 == pytest.approx(found["memory_uj"])


def test_cost_json_has_the_promised_keys_and_adds_up(bnn):
    status, out, _ = bnn("cost", "vggnet7", "--weights", "tbbbbbbbb", "--acts", "bbbbbbbb", "--json")
    answer = json.loads(out)
    assert status == 0 and set(answer) == {"total_uj", "layers"}
    assert [set(layer) for layer in answer["layers"]] == [
        {"name", "macs", "vector_length", "weight", "act", "energy_fj"}
    ] * 9
    assert answer["total_uj"] == pytest.approx(sum(layer["energy_fj"] for layer in answer["layers"]) * 1e-9, rel=1e-12)


def test_cost_reproduces_the_papers_figure(bnn):
    points = pd.read_csv(paths.DATA / "paper_pareto_points.csv", dtype={"weights": str, "acts": str})
    own = points[points["own"] == "yes"]
    assert len(own) == 29
    for point in own.itertuples():
        options = ["--weights", point.weights, "--acts", point.acts, "--width", str(int(point.width))]
        total = json.loads(bnn("cost", point.arch, *options, "--json")[1])["total_uj"]
        allowed = 0.005 * point.energy_uj if point.dataset == "cifar10" else point.energy_uncertainty_uj
        assert abs(total - point.energy_uj) <= allowed, point.variant


def test_runs_json_has_the_promised_keys(bnn, tiny):
    status, out, _ = bnn("runs", "--study", "tiny", "--json")
    rows = json.loads(out)
    promised = {
        "study", "name", "seed", "status", "epochs", "val_accuracy", "test_accuracy", "energy_uj", "device",
        "spec_hash",
    }  # fmt: skip
    assert status == 0 and len(rows) == 2 and all(promised <= set(row) for row in rows)
    assert [row["status"] for row in rows] == ["missing", "missing"] and rows[0]["test_accuracy"] is None


def test_train_makes_what_runs_calls_missing(bnn, tiny):
    _, out, _ = bnn("runs", "--study", "tiny", "--missing")
    command = out.splitlines()[1]
    assert command == "bnn train tiny --name binary-short --seed 1"
    assert bnn(*command.split()[1:])[0] == 0
    _, out, _ = bnn("runs", "--study", "tiny", "--missing")
    assert out.splitlines() == ["bnn train tiny --name binary-short --seed 0"]
    assert (tiny / "results/tiny/binary-short-s1.json").exists()
    status, out, _ = bnn("train", "tiny")
    assert status == 0 and "binary-short seed 1: done already" in out and "binary-short seed 0: test" in out


def test_time_boxed_training_says_what_is_left(bnn, tiny):
    status, out, _ = bnn("train", "tiny", "--max-minutes", "0")
    assert status == 75 and "2 runs left" in out


MISTAKES = {
    "bad code letter": (["cost", "lenet5", "--weights", "bxbb"], "'bxbb' has the unknown code 'x'"),
    "wrong number of codes": (["cost", "vggnet7", "--weights", "bbb"], "'bbb' has 3 codes; vggnet7 needs 9"),
    "no codes": (["cost", "lenet5", "--weights", ""], "has 0 codes; lenet5 needs 4"),
    "unknown memory": (["cost", "lenet5", "--memory", "ram"], "memory table 'ram' is unknown; use memory45"),
    "unknown architecture": (["cost", "resnet"], "'resnet' is unknown; use one of 'lenet5', 'vggnet7'"),
    "zero width": (["cost", "lenet5", "--width", "0"], "width 0"),
    "width that is no number": (["cost", "lenet5", "--width", "two"], "'two' is not a valid float"),
    "unknown table": (["cost", "lenet5", "--table", "intel4"], "intel4"),
    "unknown study": (["train", "imagenet"], "'imagenet' is unknown; use one of lenet-mnist"),
    "unknown network": (["train", "lenet-mnist", "--name", "L9T"], "no run of name 'L9T'"),
    "unknown protocol": (["train", "lenet-mnist", "--protocol", "long"], "protocol 'long' is unknown"),
    "unknown device": (["train", "tiny", "--device", "abacus"], "device 'abacus'"),
    "unknown data set": (["data", "get", "imagenet"], "'imagenet' is unknown"),
    "unknown command": (["fly"], "No such command 'fly'"),
    "unknown option": (["cost", "lenet5", "--colour", "red"], "--colour"),
    "overwriting many in a time box": (["train", "tiny", "--overwrite", "--max-minutes", "1"], "name one run"),
    "unknown notebook": (["reproduce", "--only", "99"], "99"),
    "unknown parameter": (["reproduce", "-p", "speed=9"], "speed"),
    "parameter without value": (["reproduce", "-p", "speed"], "'speed' has no value"),
    "unknown mode": (["reproduce", "--mode", "slow"], "slow"),
}


@pytest.mark.parametrize("arguments, named", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_status_2(bnn, tiny, arguments, named):
    status, out, err = bnn(*arguments)
    assert status == 2
    assert len(err.splitlines()) == 1 and err.startswith("bnn: ") and named in err
    assert "Traceback" not in out + err


def test_missing_data_name_the_file_and_the_command(bnn, tiny, monkeypatch):
    monkeypatch.setenv("BNN_DATA", str(tiny / "nothing"))
    status, _, err = bnn("train", "lenet-mnist", "--name", "binary", "--seed", "0")
    assert status == 2 and len(err.splitlines()) == 1
    assert "train-images-idx3-ubyte.gz" in err and "bnn data get mnist" in err and "BNN_DATA" in err


def test_a_folder_that_cannot_be_written_is_found_before_the_work(bnn, tiny, monkeypatch):
    (tiny / "file").write_text("")
    monkeypatch.setenv("BNN_RESULTS", str(tiny / "file" / "results"))
    status, out, err = bnn("train", "tiny")
    assert status == 2 and len(err.splitlines()) == 1 and "cannot write" in err and "test" not in out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_a_read_only_folder_is_found_before_the_work(bnn, tiny, monkeypatch):
    (tiny / "locked").mkdir(mode=0o555)
    monkeypatch.setenv("BNN_RESULTS", str(tiny / "locked"))
    status, _, err = bnn("train", "tiny")
    assert status == 2 and len(err.splitlines()) == 1 and "cannot write" in err


def test_a_corrupt_checkpoint_and_result_are_one_line(bnn, tiny):
    (run, _) = studies.runs("tiny")
    checkpoint = tiny / "checkpoints" / f"tiny-binary-short-s0-{run.hash}.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"PK\x03\x04 half a file")
    status, _, err = bnn("train", "tiny", "--seed", "0")
    assert status == 2 and len(err.splitlines()) == 1 and f"rm {checkpoint}" in err
    result = tiny / "results/tiny/binary-short-s0.json"
    result.write_text('{"spec_hash": "0')
    status, _, err = bnn("train", "tiny")
    assert status == 2 and len(err.splitlines()) == 1 and str(result) in err
    assert "stale    bnn train tiny --name binary-short --seed 0 --overwrite" in bnn("runs", "--study", "tiny")[1]


def test_a_result_of_a_changed_spec_is_one_line_with_the_command(bnn, tiny, monkeypatch):
    assert bnn("train", "tiny", "--seed", "0")[0] == 0
    changed = TrainSpec("digits", 2, batch=25, train_images=100)
    study = studies.Study(studies.STUDIES["tiny"].networks, {"short": studies.Protocol(changed, changed, {"": 2})})
    monkeypatch.setitem(studies.STUDIES, "tiny", study)
    status, _, err = bnn("train", "tiny")
    assert status == 2 and len(err.splitlines()) == 1
    (command,) = [line for line in bnn("runs", "--study", "tiny", "--missing")[1].splitlines() if "overwrite" in line]
    assert command == "bnn train tiny --name binary-short --seed 0 --overwrite" and command in err
    assert bnn(*command.split()[1:])[0] == 0
    assert bnn("runs", "--study", "tiny")[1].startswith("done ")


def test_the_bare_command_is_its_help(bnn):
    status, out, err = bnn()
    assert status == 0 and err == "" and "Commands:" in out
    assert bnn("data")[1].startswith("Usage:")


def test_help_lists_the_commands():
    code = "from bnnlib import cli; import sys; sys.argv = ['bnn', '--help']; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT)
    assert done.returncode == 0 and done.stderr == ""
    commands = ("cost", "train", "runs", "data", "reproduce")
    assert all(command in done.stdout for command in commands)


@pytest.mark.parametrize(
    "words",
    [["--help"], ["train", "nothing"], ["cost", "lenet5", "--weights", "x"], ["recommend", "--help"], ["runs", "-z"]],
)
def test_help_and_mistakes_do_not_wait_for_torch(words):
    code = f"""
import sys, bnnlib.cli
sys.argv = ["bnn", *{words}]
try:
    bnnlib.cli.main()
except SystemExit:
    pass
print([name for name in ("torch", "pandas", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


@pytest.mark.parametrize(
    "words", [["cost", "vggnet7", "--memory"], ["runs"], ["claims"], ["recommend", "lenet5", "--budget-uj", "0.05"]]
)
def test_answers_from_tables_and_results_do_not_wait_for_torch(words):
    code = f"""
import sys, bnnlib.cli
sys.argv = ["bnn", *{words}]
try:
    bnnlib.cli.main()
except SystemExit as stop:
    assert not stop.code
print([name for name in ("torch", "matplotlib", "numba") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT)
    assert done.stdout.endswith("\n[]\n") and len(done.stdout) > 500, done.stdout + done.stderr


def test_training_prints_no_bar_into_a_log(bnn, tiny):
    _, _, err = bnn("train", "tiny", "--seed", "0")
    assert err == ""


def test_the_training_path_imports_little():
    """A machine that only trains needs neither plotting nor notebooks nor Dask."""
    code = (
        "import sys; from bnnlib import cli, data; from bnnlib.runs import runner; from bnnlib.studies import results;"
        "data.load('digits');"
        "others = ('matplotlib', 'seaborn', 'papermill', 'IPython', 'nbformat', 'distributed');"
        "print([m for m in others if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_an_installed_copy_works_in_a_checkout_and_says_so_elsewhere(tmp_path):
    """``pip install .`` copies the package; tables and results stay in the checkout."""
    shutil.copytree(paths.ROOT / "bnnlib", tmp_path / "site" / "bnnlib")

    def run(folder) -> subprocess.CompletedProcess:
        code = (
            "from bnnlib import cli, paths; import sys; sys.argv = ['bnn', 'hardware', 'get', 'x'];"
            "print(paths.ROOT); cli.main()"
        )
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
        return subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=folder, env=environment
        )

    inside, outside = run(paths.ROOT / "tests"), run(tmp_path)
    assert inside.stdout.strip() == str(paths.ROOT) and "library x is not one that can be downloaded" in inside.stderr
    assert outside.returncode == 2 and "run bnn in a checkout" in outside.stderr and outside.stderr.count("\n") == 1


def test_the_readme_shows_what_the_commands_print(bnn):
    blocks = re.findall(r"^\$ bnn (cost .*)\n((?:(?!```|\$).*\n)+)", (paths.ROOT / "README.md").read_text(), re.M)
    assert blocks
    for command, shown in blocks:
        assert bnn(*shlex.split(command)) == (0, shown, "")


def test_the_readme_code_gives_the_energies_beside_it():
    """Every `energy_uj(model)  # number` of its Python, up to what would train."""
    found = 0
    for block in re.findall(r"```python\n(.*?)```", (paths.ROOT / "README.md").read_text(), re.S):
        names: dict = {}
        exec(block.partition("outcome =")[0], names)
        for number, digits in re.findall(r"^energy_uj\(model\) +# (\d+\.(\d+))", block, re.M):
            assert f"{names['energy_uj'](names['model']):.{len(digits)}f}" == number
            found += 1
    assert found == 2
