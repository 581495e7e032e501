"""Prompt embeddings on disk: encoded once, found again, never mixed up."""

from pathlib import Path

import pytest
import torch
from tiny_pipelines import tiny_sd

from equigen.diffusion import prompt_cache
from equigen.diffusion.pretrained import MappedTable, open_pretrained
from equigen.diffusion.prompt_cache import PromptCache, encode_prompts, prompt_table
from equigen.errors import InputError

TEXTS = ["", "a retina", "glaucoma of a female patient", "x" * 200, "ünïcode"]


@pytest.fixture(scope="module")
def pretrained(folder_of):
    return open_pretrained(folder_of("sd"))


@pytest.fixture
def counted(pretrained, monkeypatch):
    """The texts that were encoded, in order."""
    seen, encode = [], pretrained.encode
    monkeypatch.setattr(pretrained, "encode", lambda texts: (seen.extend(texts), encode(texts))[1])
    return seen


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "pixart"])
@pytest.mark.parametrize("precision", ["half", "single"])
def test_a_hit_is_what_encoding_gives(folder_of, tmp_path, kind, precision):
    model = open_pretrained(folder_of(kind))
    table = prompt_table(model, TEXTS, tmp_path, precision, show=False)
    fresh, order = model.encode(TEXTS), [3, 0, 3, 2]
    rows = table.take(torch.tensor(order))
    assert len(table) == 5 and rows.keys() == fresh.keys() and table.kind == "embeddings"
    for name, value in rows.items():
        expected = fresh[name][order]
        assert value.dtype == (torch.float16 if precision == "half" and value.is_floating_point() else expected.dtype)
        assert torch.equal(value, expected.to(value.dtype))


def test_texts_are_encoded_once(pretrained, counted, tmp_path):
    encode_prompts(pretrained, [*TEXTS, "a retina"], tmp_path, show=False)
    assert sorted(set(counted)) == sorted(set(TEXTS)) and counted.count("a retina") == 1
    counted.clear()
    cache = encode_prompts(pretrained, TEXTS[::-1], tmp_path, show=False)
    assert counted == [] and cache.missing([*TEXTS, "new", "new"]) == ["new"]
    table = encode_prompts(pretrained, [*TEXTS, "new"], tmp_path, show=False).table(["new", "a retina"])
    assert counted[-1] == "new" and counted.count("a retina") == 0
    assert torch.equal(table.take(torch.tensor([0]))["hidden"], pretrained.encode(["new"])["hidden"].half())


def test_an_interrupted_encoding_goes_on(pretrained, counted, tmp_path, monkeypatch):
    monkeypatch.setattr(prompt_cache, "SHARD_BYTES", 2 * 77 * 32 * 4)  # two texts a file
    texts, add, files = [f"text {number}" for number in range(7)], PromptCache.add, []

    def failing(cache, *args):
        if len(files) == 2:
            raise KeyboardInterrupt
        files.append(args[0])
        add(cache, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PromptCache, "add", failing)
        encode_prompts(pretrained, texts, tmp_path, show=False)
    assert files == [texts[:2], texts[2:4]]
    counted.clear()
    cache = encode_prompts(pretrained, texts, tmp_path, show=False)
    assert [text for text in counted if text] == texts[4:]
    assert len(list(tmp_path.rglob("prompts-*.safetensors"))) == 4 and not list(tmp_path.rglob("*.part*"))
    rows = cache.table(texts).take(torch.arange(7))["hidden"]
    assert torch.equal(rows, pretrained.encode(texts)["hidden"].half())


def test_several_processes_share_the_work(pretrained, counted, tmp_path):
    """Each takes its own texts even where another has already written some, and none is left out."""
    texts = [f"text {number}" for number in range(7)]
    for process in range(3):
        encode_prompts(pretrained, texts, tmp_path, share=(process, 3), show=False)
    assert sorted(text for text in counted if text) == sorted(texts)
    cache = PromptCache(tmp_path, pretrained.text_hash)
    assert cache.missing(texts) == []


def test_what_others_add_is_found(pretrained, tmp_path):
    mine, theirs = (PromptCache(tmp_path, pretrained.text_hash) for _ in range(2))
    theirs.add(["a"], pretrained.encode(["a"]))
    assert mine.missing(["a"]) == ["a"]
    mine.refresh()
    assert mine.missing(["a"]) == []
    mine.add(["a"], pretrained.encode(["a"]))  # the same at the same time does no harm
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1 and len(mine.table(["a", "a"])) == 2


def test_other_encoders_and_precisions_are_kept_apart(pretrained, tmp_path):
    other = open_pretrained(tiny_sd(tmp_path / "p", seed=9))
    encode_prompts(pretrained, ["a"], tmp_path / "c", show=False)
    assert PromptCache(tmp_path / "c", other.text_hash).missing(["a"]) == ["a"]
    assert PromptCache(tmp_path / "c", pretrained.text_hash, "single").missing(["a"]) == ["a"]
    assert PromptCache(tmp_path / "c", pretrained.text_hash).missing(["a", "A"]) == ["A"]


def test_rows_stay_on_disk(pretrained, tmp_path):
    """The table's tensors are views of the file, which the system reads where they are asked for."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("only Linux tells what is mapped")
    cache = encode_prompts(pretrained, TEXTS, tmp_path, show=False)
    file = str(next(iter(cache.locations.values()))[0])
    assert file not in maps.read_text()
    table = cache.table(TEXTS)
    assert isinstance(table, MappedTable) and file in maps.read_text()


def test_trained_encoders_have_a_table_of_tokens(folder_of, tmp_path):
    model = open_pretrained(folder_of("sd"))
    model.encoders["text_encoder"].requires_grad_(True)
    table = prompt_table(model, TEXTS, tmp_path)
    assert table.kind == "tokens" and len(table) == 5 and not list(tmp_path.iterdir())
    assert torch.equal(table.take(torch.tensor([2]))["tokens"].long(), model.family.tokenize([TEXTS[2]])["tokens"])
    with pytest.raises(InputError, match="a text encoder is trained"):
        encode_prompts(model, TEXTS, tmp_path)


def test_a_damaged_file(pretrained, tmp_path):
    cache = encode_prompts(pretrained, ["a"], tmp_path, show=False)
    file = next(tmp_path.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(InputError, match="damaged") as caught:
        PromptCache(tmp_path, pretrained.text_hash)
    assert caught.value.problems[0].file == str(file) and "delete it" in caught.value.problems[0].mend
    cache.refresh()  # what is known already is not read again


def test_values_beyond_half_precision(tmp_path):
    with pytest.raises(InputError, match="beyond half precision"):
        PromptCache(tmp_path, "e").add(["a"], {"hidden": torch.tensor([[1e6]])})
    assert not list(tmp_path.rglob("*.safetensors"))
    single = PromptCache(tmp_path, "e", "single")
    single.add(["a"], {"hidden": torch.tensor([[1e6]])})
    assert single.table(["a"]).take(torch.tensor([0]))["hidden"].item() == 1e6
