"""The command: help, good input, bad input with exit status 2 and the mend, interruptions."""

import errno
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import equigen
from equigen.cli.commands import app
from equigen.equity import mechanism_names
from equigen.exit_status import Terminated

OPTIONS = {
    "cohort check": "COHORT_YAML --out --quarantine",
    "cohort pack": "COHORT --out --images",
    "phantom": "--out --images --seed --settings",
    "autoencoder train": "COHORT --out --patches --seed --settings",
    "encode": "COHORT --out --size --autoencoder --store",
    "train": "COHORT --out --mechanism --images --preset --size --seed --start --min-snr --accumulate "
    "--precision --snapshot-every --autoencoder --latents --settings --base --tune --rank --text-encoder "
    "--gradient-checkpointing --sharding --store --best --trackers --grid-every",
    "plan": "COHORT --out --policy --size --seed --attribute --guidance --steps --solver --negative --interval",
    "generate": "GENERATOR --cohort --out --policy --size --guidance --steps --seed --batch --plan --attribute "
    "--solver --negative --interval --chunk --shard --precision",
    "screen": "SET --generator --cohort --fields --tries --threshold --judge --encoder --min-patients --replicates "
    "--seed --precision",
    "pairs": "SET --out --cohort --number --shown --judge --encoder --min-pairs --min-patients --replicates --seed",
    "calibrate": "GENERATOR COHORT --attribute --out --objective --gap-weight --budget --bounds --images --steps "
    "--encoder --confirm --confirm-images --replicates --min-patients --seed --batch",
    "compare": "COMPARISON_YAML --out --jobs --engine --set --verify --accept",
    "evaluate": "--real --generated --out --groups --labels --only --train --image --patient --encoder --metrics "
    "--size --matched-n --replicates --seed --intersections",
    "diagnose": "COHORT --out --synthetic --label --ratios --images --size --seeds",
    "audit": "PREDICTIONS --out --groups --truth --positive --score --patient --site --unknown --only --replicates",
    "report": "--out --quality --fairness --title",
    "run": "STUDY_YAML --out --set --verify --accept",
    "demo": "--out --set --verify --accept",
}


def call(*words, env=None):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", **(env or {})})


def fine(*words):
    done = call(*words)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words) -> str:
    """The message of a command that ends with status 2; its lines joined."""
    done = call(*words)
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit) and "Traceback" not in done.output
    return done.stderr


def test_every_command_is_listed_and_has_a_test_of_its_help():
    text = fine("--help")
    for command in OPTIONS:
        assert re.search(rf"\b{command.split()[0]}\b", text)
    groups = {"cohort", "autoencoder"}
    listed = {command.name or command.callback.__name__ for command in app.registered_commands} | groups
    assert listed == {command.split()[0] for command in OPTIONS}


@pytest.mark.parametrize("command", list(OPTIONS))
def test_help_names_every_option_and_says_what_it_is(command):
    text = re.sub(r"\x1b\[[0-9;]*m", "", fine(*command.split(), "--help"))
    for option in OPTIONS[command].split():
        line = next(line for line in text.splitlines() if re.search(rf"(?<![\w-]){option}(?![\w-])", line[:40]))
        assert re.search(r"[a-z]{3,} [a-z`]|parquet|study.yaml|folder\.", line.replace(option, "", 1)), line


def test_help_keeps_what_looks_like_markup():
    assert "runs/NAME by default" in fine("run", "--help")
    assert "generators/MECHANISM-seedSEED" in fine("train", "--help")
    for command in OPTIONS:
        assert " ; " not in fine(*command.split(), "--help") and "/ by default" not in fine(*command.split(), "--help")


def test_version():
    assert fine("--version").strip() == f"equigen {equigen.__version__}"


def test_an_unknown_option_or_command_is_refused():
    assert "No such option: --imgs" in refused("phantom", "--imgs", "3")
    assert "No such command 'trian'" in refused("trian")


# cohort check


@pytest.fixture
def table(tmp_path):
    """Eight images with a table and a cohort.yaml, which a test may spoil."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(8):
        name = f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / name)
        part = ["train", "test"][index // 4]
        rows.append({"file": name, "pid": f"p{index}", "dx": "nv", "sex": "FM"[index % 2], "part": part})
    spec = {
        "name": "small",
        "table": "t.csv",
        "image": {"column": "file"},
        "patient": "pid",
        "split": {"column": "part"},
        "labels": {"dx": {"kind": "multiclass", "column": "dx", "levels": ["nv", "mel"]}},
        "attributes": {"sex": {"column": "sex", "levels": {"F": "female", "M": "male"}}},
    }

    def check(*words, **change):
        for row, column, value in change.get("cells", []):
            rows[row - 2][column] = value
        pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
        (tmp_path / "cohort.yaml").write_text(yaml.safe_dump({**spec, **change.get("spec", {})}))
        return call("cohort", "check", tmp_path / "cohort.yaml", "--out", tmp_path / "out", *words)

    return check


def test_a_good_cohort_is_written_and_counted(table, tmp_path):
    done = table()
    assert done.exit_code == 0, done.output
    assert "8 images, 0 rows left out" in done.stdout and "female" in done.stdout
    assert len(pd.read_parquet(tmp_path / "out" / "cohort.parquet")) == 8
    again = call("cohort", "check", tmp_path / "out", "--out", tmp_path / "copy")
    assert again.exit_code == 0 and (tmp_path / "copy" / "cohort.json").is_file()


def test_a_check_counts_unknown_words_and_names_the_positive_level(table):
    spec = {"labels": {"dx": {"kind": "binary", "column": "dx", "levels": ["mel", "nv"]}}}
    done = table(cells=[(2, "sex", "NA"), (3, "sex", ""), (4, "sex", "NA")], spec=spec)
    text = " ".join(done.output.split())
    assert "attribute 'sex' is unknown in 3 rows ('NA' 2, empty 1)" in text, text
    assert "label 'dx': 'nv' is positive, 'mel' is negative" in text


def test_a_folder_with_a_cohort_file_is_as_good_as_the_file(table, tmp_path):
    table()
    assert "8 images" in fine("cohort", "check", tmp_path, "--out", tmp_path / "out2")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spec": {"table": "s.csv"}}, "s.csv: there is no such table (did you mean 't.csv'?)"),
        ({"spec": {"patient": "pidd"}}, "column 'pidd', t.csv: patient: the table has no such column (did you mean 'p"),
        ({"cells": [(5, "sex", "X")]}, "row 5, column 'sex': "),
        ({"cells": [(3, "dx", "mell")]}, "did you mean 'mel'?"),
        ({"cells": [(9, "pid", "p0")]}, "row 9, column 'part': patient 'p0' is on several sides of the split"),
        ({"cells": [(4, "file", "nine.png")]}, "row 4, column 'file': there is no image 'nine.png'"),
        ({"spec": {"pattient": "pid"}}, "cohort.yaml: pattient: unknown key (did you mean 'patient'?)"),
    ],
)
def test_a_bad_cohort_is_refused_with_row_column_and_mend(table, tmp_path, change, words):
    done = table(**change)
    assert done.exit_code == 2 and words in done.stderr and "Traceback" not in done.output, done.output
    assert not (tmp_path / "out").exists()


def test_an_image_that_is_not_an_image(table, tmp_path):
    (tmp_path / "2.png").write_bytes(b"<html>not found</html>")
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
    done = table()
    assert done.exit_code == 2 and "has 2 problems" in done.stderr
    assert "row 4, column 'file': the image '2.png'" in done.stderr
    assert "row 5, column 'file': the image '3.png'" in done.stderr
    left = table("--quarantine")
    assert left.exit_code == 0 and "6 images, 2 rows left out" in left.stdout
    assert left.stderr.count("left out row") == 2 and "column 'file'" in left.stderr


def test_a_path_that_is_no_cohort_says_what_is_wanted(table, tmp_path):
    table()
    assert "nowhere.yaml: No such file or directory" in refused("cohort", "check", tmp_path / "nowhere.yaml")
    assert "is a table, not a description of one (write a cohort.yaml" in refused("encode", tmp_path / "t.csv")
    (tmp_path / "empty").mkdir()
    assert "holds neither cohort.yaml nor cohort.parquet" in refused("train", tmp_path / "empty")


# each stage by its own command


def test_phantom_writes_a_folder_that_cohort_check_takes(tmp_path):
    (tmp_path / "s.yaml").write_text("size: 32\nboth_eyes: 0.0\n")
    out = fine("phantom", "--out", tmp_path / "p", "--images", 20, "--seed", 4, "--settings", tmp_path / "s.yaml")
    assert out.strip() == str(tmp_path / "p" / "cohort.yaml")
    with Image.open(tmp_path / "p" / "images" / "000000.png") as image:
        assert image.size == (32, 32)
    assert "20 images, 0 rows" in fine("cohort", "check", tmp_path / "p", "--out", tmp_path / "out")
    (tmp_path / "s.yaml").write_text("size: 32\nbothe_eyes: 0.0\n")
    text = refused("phantom", "--out", tmp_path / "q", "--settings", tmp_path / "s.yaml")
    assert "s.yaml: bothe_eyes: unknown key (did you mean 'both_eyes'?)" in text and not (tmp_path / "q").exists()


def test_encode_train_and_generate(phantom_folder, tmp_path):
    latents, settings = tmp_path / "latents", tmp_path / "t.yaml"
    out = fine("encode", phantom_folder, "--out", latents, "--size", 32)
    assert re.search(r"120 images, \d+\.\d dB PSNR", out) and list(latents.rglob("*.safetensors"))
    settings.write_text("batch: 16\nprobe_images: 16\nmechanism: perturbation\n")
    words = ("train", phantom_folder, "--out", tmp_path / "g", "--mechanism", "none", "--images", 32)
    fine(*words, "--preset", "tiny", "--size", 32, "--seed", 5, "--latents", latents, "--settings", settings)
    record = json.loads((tmp_path / "g" / "training.json").read_text())
    assert record["settings"]["mechanism"] == "none"  # the command line wins
    chosen = {key: record["settings"][key] for key in ("seed", "batch", "size", "preset", "images")}
    assert chosen == {"seed": 5, "batch": 16, "size": 32, "preset": "tiny", "images": 32}
    made = ("generate", tmp_path / "g", "--cohort", phantom_folder, "--steps", 1, "--size", 7, "--seed", 2)
    fine(*made, "--out", tmp_path / "s", "--policy", "uniform", "--guidance", 1.5)
    table = pd.read_parquet(tmp_path / "s" / "synthetic.parquet")
    assert len(table) == 7 and set(table["guidance"]) == {1.5} and set(table["steps"]) == {1}
    assert "another plan or generator (choose another folder with --out)" in refused(*made, "--out", tmp_path / "s")


def test_what_training_and_generation_cannot_use_is_named(phantom_folder, generator, tmp_path):
    train = ("train", phantom_folder, "--out", tmp_path / "g", "--latents", tmp_path / "l", "--size", 32)
    assert "images: Input should be greater than or equal to 1, not 0" in refused(*train, "--images", 0)
    assert "'fair' is not known (use one of: none" in refused(*train, "--mechanism", "fair")
    assert "none" in mechanism_names()
    assert "preset: Input should be 'tiny'" in refused(*train, "--preset", "huge")
    generate = ("generate", generator.folder, "--cohort", phantom_folder, "--out", tmp_path / "s")
    assert "policy 'fair' is unknown (use one of match" in refused(*generate, "--policy", "fair")
    assert "size 0 (ask for at least one image)" in refused(*generate, "--size", 0)
    assert "holds no model_index.json" in refused("generate", tmp_path, *generate[2:])
    assert "33" in refused("encode", phantom_folder, "--size", 33, "--out", tmp_path / "l")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_during_generate(phantom_folder, generator, tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    words = ("generate", generator.folder, "--cohort", phantom_folder, "--out", tmp_path / "s")
    words = (*words, "--steps", 1, "--size", 9)
    monkeypatch.setattr("equigen.files.os.fsync", full)
    text = refused(*words)
    assert "The disk is full; nothing half-written was kept." in text
    assert re.search(r"images/\d+\.png: No space left on device \(free some space and run the same command", text)
    assert len(list((tmp_path / "s" / "images").iterdir())) == 4  # the first call wrote generation.json
    assert not list((tmp_path / "s").rglob("*.part.*")) and not (tmp_path / "s" / "synthetic.parquet").exists()
    monkeypatch.undo()
    fine(*words)
    assert len(list((tmp_path / "s" / "images").iterdir())) == 9


@pytest.mark.parametrize("kind", ["OSError", "SafetensorError"])
def test_a_full_disk_that_no_writer_of_ours_saw(phantom_folder, tmp_path, monkeypatch, kind):
    from safetensors import SafetensorError

    known = {
        "OSError": OSError(errno.ENOSPC, "No space left on device", "big.bin"),
        "SafetensorError": SafetensorError("I/O error: No space left on device (os error 28)"),
    }

    def fail(*_args, **_rest):
        raise known[kind]

    monkeypatch.setattr("equigen.training.train", fail)
    assert "The disk is full" in refused("train", phantom_folder, "--out", tmp_path / "g")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    text = refused("phantom", "--out", tmp_path / "file" / "p", "--images", 2)
    assert str(tmp_path / "file") in text and "a file stands where a folder is wanted" in text


def test_an_error_of_ours_is_not_hidden(phantom_folder, tmp_path, monkeypatch):
    def fail(*_args, **_rest):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("equigen.training.train", fail)
    assert isinstance(call("train", phantom_folder, "--out", tmp_path / "g").exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "status", "word"), [(KeyboardInterrupt, 130, "interrupted"), (Terminated, 143, "terminated")]
)
def test_an_interrupted_command_says_how_to_go_on(phantom_folder, tmp_path, monkeypatch, error, status, word):
    def fail(*_args, **_rest):
        raise error

    monkeypatch.setattr("equigen.training.train", fail)
    done = call("train", phantom_folder, "--out", tmp_path / "g")
    assert done.exit_code == status
    assert done.stderr.strip().splitlines()[-1].startswith(word) and "run the same command again" in done.stderr
