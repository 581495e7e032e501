"""Rows that pass through a network together, short memory, sharing, and what a set says of itself."""

import gc
import json
import os
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from painted import Painter, asks, expected
from PIL import Image

from equigen.devices import best_device
from equigen.errors import InputError
from equigen.files import read_json
from equigen.synthesis import SyntheticSet, generate
from equigen.synthesis.chunks import Batched, Share, chunk_size, chunks, is_out_of_memory, render, share_of, write_first

module = sys.modules["equigen.synthesis.generation"]
CHOICES = {
    "guidance": [2.0, 1.0, 2.0, 3.0, 2.0] * 4,
    "solver": [None, None, "ddim", None, None] * 4,
    "guidance_low": [np.nan, 0.1, np.nan, 0.2, np.nan] * 4,
    "negative": ["", "grey", None, "", "dark"] * 4,
}


@pytest.fixture(autouse=True)
def swift(monkeypatch):
    """Sweeping up after short memory takes half a second in a process that has imported so much."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


def pictures(folder):
    table = pd.read_parquet(folder / "synthetic.parquet")
    return np.stack([np.asarray(Image.open(folder / name)) for name in table["image"]])


def whole(folder):
    """Bytes of every file of a set, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_chunk_follows_the_kind_of_device_and_the_size():
    assert chunk_size(Painter()) == 32
    gpu = Painter(device="cuda:1")
    sizes = {}
    for gpu.latent_side in (4, 32, 64, 96, 128, 1024):
        sizes[gpu.latent_side] = chunk_size(gpu)
    assert sizes == {4: 256, 32: 256, 64: 64, 96: 16, 128: 16, 1024: 1}


def test_rows_of_one_kind_go_together():
    plan = asks(20, **CHOICES)
    together = [part.tolist() for part in chunks(plan, 32, mixed=True)]
    every = [[0, 5, 10, 15], [1, 6, 11, 16], [2, 7, 12, 17], [3, 8, 13, 18], [4, 9, 14, 19]]
    assert together == every
    plain = plan[["guidance", "steps"]]
    assert [part.tolist() for part in chunks(plain, 7, mixed=True)] == [
        [0, 2, 3, 4, 5, 7, 8], [9, 10, 12, 13, 14, 15, 17], [18, 19], [1, 6, 11, 16],
    ]  # fmt: skip
    assert [part.tolist() for part in chunks(plain, 3, mixed=False)][-2:] == [[3, 8, 13], [18]]


def test_what_rows_ask_reaches_the_generator_and_the_table(tmp_path):
    plan = asks(20, **CHOICES, pair=np.repeat(range(10), 2), changed="attr.sex")
    for mixes in (True, False):
        made = generate(Painter(mixes_guidance=mixes), plan, tmp_path / str(mixes), show=False)
        np.testing.assert_array_equal(pictures(made.folder), expected(plan))
    table = pd.read_parquet(made.folder / "synthetic.parquet")
    assert list(table) == [
        *("image", "seed", "generator", "label.dx", "attr.sex", "prompt", "guidance", "steps", "accepted", "reason"),
        *("guidance_low", "solver", "negative", "pair", "changed", "sha256"),
    ]
    for name in ("guidance_low", "solver", "negative", "pair", "changed"):
        pd.testing.assert_series_equal(table[name], plan[name], check_dtype=False)


def test_a_generator_of_ones_own_need_not_say_much():
    class Own:
        hash = "own"

        def __call__(self, conditions, seeds, guidance, steps):
            return np.full((len(seeds), 8, 8, 3), 10 * steps, np.uint8)

    assert (chunk_size(Own()), render(Own(), asks(5), [1, 4]).mean()) == (32, 30)
    with pytest.raises(TypeError, match="unexpected keyword argument 'solver'"):
        render(Own(), asks(5, solver="ddim"), [1])


def test_a_part_is_filled_up_to_the_next_power_of_two():
    painter = Painter()
    render(painter, asks(5), [0, 4])
    assert painter.calls == [[100, 101, 102, 103, 104, 100, 101, 102]]
    Batched(painter, 6).images(asks(5), {1})
    assert painter.calls[1] == [100, 101, 102, 103, 104, 100]


@pytest.mark.parametrize("error", ["gpu", "cpu", "python"])
def test_out_of_memory_halves_the_chunk_and_says_so_once(tmp_path, error, capsys):
    plan, painter = asks(70), Painter(holds=9, error=error)
    made = generate(painter, plan, tmp_path / "set", show=False)
    np.testing.assert_array_equal(pictures(made.folder), expected(plan))
    told = capsys.readouterr().err
    assert told.count("Memory is too small for 32 images at once") == 1
    assert read_json(made.folder / "generation.json")["chunk"] == 32
    assert read_json(made.folder / "generation.json")["smallest_chunk"] == 8
    assert sorted({seed for call in painter.calls for seed in call}) == list(range(100, 170))
    small = Painter()
    generate(small, plan, tmp_path / "small", chunk=8, show=False)
    assert painter.calls == small.calls  # the halves are the chunks of a run with fewer, and so round alike


def test_short_memory_is_recorded_even_of_a_run_that_breaks_off(tmp_path, monkeypatch):
    painter, plan = Painter(holds=9), asks(40)
    monkeypatch.setattr(module, "write_png", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(painter, plan, tmp_path, show=False)
    monkeypatch.undo()
    generate(Painter(), plan, tmp_path, show=False)
    assert read_json(tmp_path / "generation.json")["smallest_chunk"] == 8


def test_memory_that_holds_says_nothing(tmp_path, capsys):
    made = generate(Painter(), asks(40), tmp_path, show=False)
    assert read_json(made.folder / "generation.json").keys() == {"plan", "generator", "images", "chunk", "device"}
    assert capsys.readouterr().err == "" and not list(made.folder.glob("smallest*"))


def test_a_chunk_that_was_halved_stays_small():
    painter = Painter(holds=20)
    work = Batched(painter)
    assert len(work.images(asks(96), set(range(96)))) == 96 and (work.chunk, work.capacity) == (32, 16)
    assert [len(call) for call in painter.calls] == [16] * 6


def test_not_one_image_fits(tmp_path):
    with pytest.raises(InputError, match="not even one image fits"):
        generate(Painter(holds=0), asks(3), tmp_path, show=False)


def test_other_errors_are_not_taken_for_short_memory(tmp_path):
    painter = Painter(holds=0)
    painter.error = RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")
    with pytest.raises(RuntimeError, match="size of tensor"):
        generate(painter, asks(3), tmp_path, show=False)
    assert not is_out_of_memory(painter.error) and not is_out_of_memory(ValueError("out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))


def test_torch_says_so_when_memory_is_short():
    """The words are those of the installed torch."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_the_chunk_is_recorded_and_gone_on_with(tmp_path):
    plan, painter = asks(20), Painter()
    generate(painter, plan, tmp_path, chunk=4, show=False)
    assert {len(call) for call in painter.calls} == {4} and read_json(tmp_path / "generation.json")["chunk"] == 4
    (tmp_path / "images/0000007.png").unlink()
    again = Painter(device="cuda")  # whose own chunk would be 256
    generate(again, plan, tmp_path, show=False)
    assert again.calls == [[104, 105, 106, 107]]
    with pytest.raises(InputError, match="was begun in chunks of 4") as caught:
        generate(painter, plan, tmp_path, chunk=8, show=False)
    assert caught.value.problems[0].file == str(tmp_path)
    with pytest.raises(InputError, match=r"chunk 0 .use at least 1"):
        generate(painter, plan, tmp_path, chunk=0, show=False)


def test_a_set_of_the_time_before_goes_on_in_chunks_of_32(tmp_path):
    plan = asks(40)
    generate(Painter(), plan, tmp_path, show=False)
    claim = read_json(tmp_path / "generation.json")
    (tmp_path / "generation.json").write_text(json.dumps({key: claim[key] for key in ("plan", "generator", "images")}))
    (tmp_path / "images/0000033.png").unlink()
    painter = Painter(device="cuda")
    generate(painter, plan, tmp_path, show=False)
    assert painter.calls == [list(range(132, 140))]


def test_images_of_a_gpu_are_written_beside_its_work(tmp_path, monkeypatch):
    """The same files; an error of a writer ends the work."""
    plan, threads, real = asks(40), set(), module.write_png

    def noted(path, image):
        threads.add(threading.current_thread().name)
        real(path, image)

    monkeypatch.setattr(module, "write_png", noted)
    made = generate(Painter(device="cuda"), plan, tmp_path / "gpu", chunk=8, batch=8, show=False)
    assert threads and "MainThread" not in threads
    np.testing.assert_array_equal(pictures(made.folder), expected(plan))
    threads.clear()
    generate(Painter(), plan, tmp_path / "cpu", show=False)
    assert threads == {"MainThread"}

    def failing(path, image):
        if path.name == "0000039.png":
            raise OSError("the disk is gone")
        real(path, image)

    monkeypatch.setattr(module, "write_png", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        generate(Painter(device="cuda"), plan, tmp_path / "last", show=False)
    assert not (tmp_path / "last" / "synthetic.parquet").exists()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_jobs_of_an_array_make_the_same_set(tmp_path, count):
    """In any order; the last one writes the table."""
    plan = asks(90, guidance=[1.0, 2.0, 3.0] * 30)
    one = generate(Painter(), plan, tmp_path / "one", show=False).folder
    seeds = []
    for index in np.random.default_rng(count).permutation(count):
        assert not (tmp_path / "all" / "synthetic.parquet").exists()
        painter = Painter()
        generate(painter, plan, tmp_path / "all", shard=(int(index), count), show=False)
        seeds += sorted({seed for call in painter.calls for seed in call})
    assert whole(tmp_path / "all") == whole(one)
    assert len(seeds) == 90 == len(set(seeds))  # nobody makes what is another's


def test_jobs_at_the_same_time_make_one_table(tmp_path):
    plan = asks(200)
    one = generate(Painter(), plan, tmp_path / "one", chunk=4, show=False).folder

    def job(index):
        generate(Painter(), plan, tmp_path / "all", shard=(index, 5), chunk=4, show=False)

    jobs = [threading.Thread(target=job, args=(index,)) for index in range(5)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert whole(tmp_path / "all") == whole(one)


def test_a_lost_image_is_made_by_the_job_whose_it_is(tmp_path):
    plan = asks(90)
    for index in range(3):
        generate(Painter(), plan, tmp_path, shard=(index, 3), show=False)
    before = whole(tmp_path)
    (tmp_path / "images/0000040.png").unlink()  # of the second chunk
    for index, calls in ((0, 0), (2, 0), (1, 1)):
        painter = Painter()
        generate(painter, plan, tmp_path, shard=(index, 3), show=False)
        assert len(painter.calls) == calls
        assert (tmp_path / "synthetic.parquet").exists()
    assert whole(tmp_path) == before


def test_a_table_of_a_set_that_is_not_whole_goes(tmp_path):
    plan = asks(90)
    generate(Painter(), plan, tmp_path, show=False)
    for name in ("images/0000040.png", "images/0000080.png"):
        (tmp_path / name).unlink()
    generate(Painter(), plan, tmp_path, shard=(1, 3), show=False)
    assert not (tmp_path / "synthetic.parquet").exists()  # another job's is lacking
    generate(Painter(), plan, tmp_path, shard=(2, 3), show=False)
    assert len(pd.read_parquet(tmp_path / "synthetic.parquet")) == 90


def test_shares_that_there_are_not(tmp_path, monkeypatch):
    for shard in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(InputError, match="count from 0"):
            generate(Painter(), asks(3), tmp_path / "set", shard=shard, show=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="one way of sharing or the other"):
        share_of((0, 2))
    assert share_of((0, 1)) == Share() and not (tmp_path / "set").exists()


def test_more_jobs_than_chunks(tmp_path):
    plan = asks(3)
    generate(Painter(), plan, tmp_path, shard=(4, 5), show=False)  # has nothing to do
    with pytest.raises(InputError, match="This set is not complete") as caught:
        len(SyntheticSet(tmp_path))
    assert caught.value.problems[0].file == str(tmp_path)
    assert len(generate(Painter(), plan, tmp_path, shard=(0, 5), show=False)) == 3


def test_who_is_first_writes(tmp_path):
    place = tmp_path / "a" / "claim.json"
    write_first(place, {"who": 1})
    write_first(place, {"who": 2})
    assert read_json(place) == {"who": 1} and [path.name for path in place.parent.iterdir()] == ["claim.json"]


def test_who_is_first_writes_where_there_are_no_links(tmp_path, monkeypatch):
    def none(*_):
        raise PermissionError("no links on this file system")

    monkeypatch.setattr(os, "link", none)
    write_first(tmp_path / "claim.json", {"who": 1})
    assert read_json(tmp_path / "claim.json") == {"who": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["claim.json"]


def test_each_process_gets_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert best_device() == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert best_device() == "cuda:2"
