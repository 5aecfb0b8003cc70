"""Zero-shot proposals through the real transformers classes; the models are tiny and random, their weights a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file

from collect import definition
from collect.errors import MissingServiceError, RefusedError, UsageError
from train.data.cache import decode
from train.loop.propose import Request, open_proposer
from train.loop.zero_shot import phrases_of

transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "cat", "dog", "kitten", "a", "photo", "of"]


def bert_tokenizer(folder: Path):
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return transformers.BertTokenizerFast(str(folder / "vocab.txt"))


def clip_tokenizer(folder: Path):
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: place for place, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=32, pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def grounding_dino(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("grounding-dino")
    tokenizer = bert_tokenizer(folder)
    backbone = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64, out_indices=[2, 3, 4]
    )
    text = transformers.BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    config = transformers.GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=20, num_feature_levels=4,
    )  # fmt: skip
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    transformers.GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def owlv2(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("owlv2")
    tokenizer = clip_tokenizer(folder)
    text = {
        "vocab_size": 54,
        "bos_token_id": 52,
        "eos_token_id": 53,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
    }
    config = transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
    transformers.Owlv2ForObjectDetection(config).save_pretrained(folder)
    images = transformers.Owlv2ImageProcessor(size={"height": 64, "width": 64})
    transformers.Owlv2Processor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sam3(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sam3")
    small = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    backbone = {
        **small, "model_type": "sam3_vit_model", "num_hidden_layers": 2, "image_size": 112, "patch_size": 14, "window_size": 4,
        "global_attn_indexes": [1], "pretrain_image_size": 56,
    }  # fmt: skip
    text = {
        "vocab_size": 54, "bos_token_id": 52, "eos_token_id": 53, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 32, "projection_dim": 32,
    }  # fmt: skip
    config = transformers.Sam3Config(
        vision_config={"backbone_config": backbone, "fpn_hidden_size": 32, "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]]},
        text_config=text, geometry_encoder_config={**small, "num_layers": 1}, detr_encoder_config={**small, "num_layers": 1},
        detr_decoder_config={**small, "num_layers": 2, "num_queries": 10},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )  # fmt: skip
    transformers.Sam3Model(config).save_pretrained(folder)
    images = transformers.Sam3ImageProcessor(size={"height": 112, "width": 112})
    transformers.Sam3Processor(images, clip_tokenizer(folder)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sam3_video(tmp_path_factory, sam3) -> Path:
    """As the hub has `facebook/sam3`: the detector's tensors within those of a video model, beside a tracker's."""
    folder = tmp_path_factory.mktemp("sam3-video")
    tensors = load_file(sam3 / "model.safetensors")
    held = {f"detector_model.{name}": tensor for name, tensor in tensors.items()}
    save_file({**held, "tracker_model.memory": torch.zeros(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    transformers.Sam3VideoConfig(detector_config=transformers.Sam3Config.from_pretrained(sam3).to_dict()).save_pretrained(folder)
    sizes = {"height": 112, "width": 112}
    processors = transformers.Sam3ImageProcessor(size=sizes), transformers.Sam2VideoVideoProcessor(size=sizes)
    transformers.Sam3VideoProcessor(*processors, clip_tokenizer(folder)).save_pretrained(folder)
    return folder


@pytest.fixture
def request_for(make_dataset, workspace):
    dataset, _ = make_dataset("pets", ["cat", "dog"], [])
    text = dataset.definition.read_text().replace('name = "cat"', 'name = "cat"\nsynonyms = ["kitten"]')
    dataset.definition.write_text(text)
    recipe = definition.load(dataset)
    return lambda **more: Request(workspace, dataset, recipe, threshold=0.0, **more)


def test_no_bars_and_no_warnings(owlv2, request_for, tmp_path, capfd):
    picture = tmp_path / "palette.png"
    PIL.Image.new("P", (60, 40), 3).save(picture, transparency=0)
    proposer = open_proposer(f"zero-shot:{owlv2}", request_for())
    proposer.propose(decode(picture), None)  # a warning of torch about read-only memory would be an error here
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("family", [pytest.param("grounding_dino", marks=pytest.mark.slow), "owlv2", "sam3", "sam3_video"])
def test_a_folder_of_weights_proposes_by_phrase(family, request_for, request):
    folder = request.getfixturevalue(family)
    proposer = open_proposer(f"zero-shot:{folder}", request_for())
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    found = proposer.propose(image, None)
    assert {(entry.category, entry.prompt) for entry in found} <= {("cat", "cat"), ("cat", "kitten"), ("dog", "dog")}
    assert len({entry.prompt for entry in found}) >= 2
    assert all(np.isfinite(entry.xywh).all() and 0 <= entry.score <= 1 for entry in found)
    assert proposer.name == f"zero-shot:{folder.name}"
    assert len(proposer.weights_sha256) == 64


def test_sam3__one_look_at_the_picture_for_all_phrases__as_transformers_itself_answers(sam3, sam3_video, request_for):
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    model, processor = transformers.Sam3Model.from_pretrained(sam3).eval(), transformers.Sam3Processor.from_pretrained(sam3)
    wanted = []
    for phrase in ("cat", "kitten", "dog"):
        with torch.inference_mode():
            outputs = model(**processor(images=image, text=phrase, return_tensors="pt"))
        answer = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[(60, 90)])[0]
        wanted += [(phrase, *box, score) for box, score in zip(answer["boxes"].tolist(), answer["scores"].tolist(), strict=True)]
    for folder in (sam3, sam3_video):
        proposer = open_proposer(f"zero-shot:{folder}", request_for())
        looks = []
        proposer.model.vision_encoder.register_forward_hook(lambda *_, looks=looks: looks.append(1))
        found = proposer.propose(image, None)
        assert len(looks) == 1
        assert [entry.prompt for entry in found] == [phrase for phrase, *_ in wanted]
        ours = [(x, y, x + w, y + h, entry.score) for entry in found for x, y, w, h in [entry.xywh]]
        assert np.allclose(ours, [row[1:] for row in wanted], atol=1e-3)
    assert len({row[1:] for row in wanted}) > len(wanted) / 2, "the phrases are answered differently"


def test_weights_that_do_not_fill_the_model_are_refused(sam3, tmp_path, request_for):
    folder = shutil.copytree(sam3, tmp_path / "other-names")
    tensors = load_file(sam3 / "model.safetensors")
    save_file(
        {name.replace("text_encoder", "words"): t for name, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(RefusedError, match=r"lack \d+ of the tensors .*text_encoder"):
        open_proposer(f"zero-shot:{folder}", request_for())


def test_one_class_only(owlv2, request_for):
    proposer = open_proposer(f"zero-shot:{owlv2}", request_for(category="dog"))
    assert proposer.phrases == (("dog", "dog"),)


def test_absent_weights_say_so__without_asking_again_and_again(request_for, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for source, says in (
        ("nobody/nothing-here", "not in the hub's cache on this machine, and the hub does not answer"),
        ("/no/such/folder", "there is no folder /no/such/folder"),
        (str(tmp_path), "holds no zero-shot model"),
    ):
        with pytest.raises(MissingServiceError, match=f"{says}.*zero-shot:FOLDER"):
            open_proposer(f"zero-shot:{source}", request_for())
    assert not caplog.records, "the library says nothing of its own"


def test_a_model_that_takes_no_text_is_refused(tmp_path, request_for):
    transformers.ResNetConfig().save_pretrained(tmp_path / "resnet")
    with pytest.raises(UsageError, match="takes no text"):
        open_proposer(f"zero-shot:{tmp_path / 'resnet'}", request_for())


def test_phrases_are_prompt_or_name_and_synonyms(request_for):
    assert phrases_of(request_for().definition) == (("cat", "cat"), ("cat", "kitten"), ("dog", "dog"))
