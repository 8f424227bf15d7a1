"""Networks of Hugging Face as teacher and student: each reads sentences with its own tokenizer."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import kd_lightning
from kd_lightning import export, predict, runs
from kd_lightning.data import TextFilesDataModule
from kd_lightning.data.text.pretrained import read_tokenizer
from kd_lightning.models import create_model
from kd_lightning.runs.students import load_student
from kd_lightning.training.run import train
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.hub import content
from tests.conftest import Finished, compose
from tests.data.test_sentences import lines, write

transformers = pytest.importorskip("transformers")
Command = Callable[..., Finished]


def tiny_bert(folder: Path) -> Path:
    """Write a BERT of two small layers; its padding is token 3, and `[CLS]`, `[SEP]` frame a sentence."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    trainer = trainers.WordLevelTrainer(special_tokens=special, show_progress=False)
    words.train_from_iterator([text for text, _ in lines(400)], trainer)
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    named = dict(zip(("unk_token", "cls_token", "sep_token", "pad_token"), special, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(
        vocab_size=words.get_vocab_size(), max_position_embeddings=32, pad_token_id=3, num_labels=5, **sizes
    )
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf")
    transformers.utils.logging.disable_progress_bar()
    tiny_bert(folder / "bert")
    for name, count, shift in (("train", 240, 0), ("val", 40, 240), ("test", 80, 280)):
        write(folder / "data" / f"{name}.tsv", lines(count, shift))
    return folder


def composed(place: Path, *overrides: str, **data: Any) -> Any:
    cfg = compose(
        *("optimizer=adamw", "teacher_stage=adamw", "optimizer.lr=0.01", "trainer.max_epochs=3"),
        *("teacher_stage.max_epochs=4", "teacher_stage.optimizer.lr=0.005", "model.student=text_bag"),
        *(f"model.teacher=hf/{place / 'bert'}", f"teacher_stage.dir={place / 'teachers'}"),
        *(f"model.teacher_cache={place / 'cache'}", *overrides),
    )
    own = {"root": str(place / "data"), "batch_size": 16, "max_length": 24, "seed": cfg.seed}
    cfg.data = {"_target_": "kd_lightning.data.TextFilesDataModule", **own, "tokenizer": "words", **data}
    return cfg


@pytest.fixture(scope="module")
def distilled(place: Path) -> Path:
    train(composed(place), place / "runs" / "kd")
    return place / "runs" / "kd"


def test_a_teacher_reads_the_same_sentences_with_its_own_tokenizer(distilled: Path, place: Path) -> None:
    metrics = runs.read(distilled).metrics
    (stage,) = (path for path in (place / "teachers").iterdir() if runs.is_finished(path))
    own = runs.read(stage).metrics["student"]["best"]
    assert metrics["teacher"]["test"]["accuracy"] == own["test"]["accuracy"] > 0.9, "as when it was trained"
    assert metrics["teacher"]["val"]["nll"] == pytest.approx(own["val"]["nll"], rel=1e-4)
    data = TextFilesDataModule(place / "data", max_length=24, batch_size=16)
    data.setup()
    own_tokens, facts = data.teacher_inputs(None, None, "", f"hf/{place / 'bert'}")
    assert own_tokens is not None and facts["padding"] == 3
    batch = next(iter(data.train_dataloader()))
    x, texts = own_tokens(batch), [lines(240)[i][0] for i in batch.index.tolist()]
    expected = read_tokenizer(f"hf/{place / 'bert'}", 24, "").inputs(texts)
    assert torch.equal(x["ids"], expected["ids"]) and torch.equal(x["mask"], expected["mask"])
    assert (x["ids"][:, 0] == 1).all() and not torch.equal(x["ids"], batch.x["ids"])


def test_a_teacher_is_asked_once_whatever_the_student_reads(distilled: Path, place: Path, tmp_path: Path) -> None:
    tables = sorted(path.name for path in (place / "cache").iterdir())
    metrics = train(composed(place, "trainer.max_epochs=1", vocabulary=20), tmp_path / "run")
    assert metrics["teacher"]["test"] == runs.read(distilled).metrics["teacher"]["test"]
    (folder,) = (place / "cache").iterdir()
    assert [folder.name] == tables and {path.name for path in folder.iterdir()} == {"views.bin", "raw.bin"}


def test_what_a_table_lacks_is_asked_of_the_right_sentences(distilled: Path, place: Path, tmp_path: Path) -> None:
    for name, bytes_gone in (("views.bin", 900), ("raw.bin", 700)):  # in the middle of batches
        path = next((place / "cache").iterdir()) / name
        content = path.read_bytes()
        path.write_bytes(bytes(bytes_gone) + content[bytes_gone:])
    metrics = train(composed(place), tmp_path / "again")
    before = runs.read(distilled).metrics
    for one in (lambda m: m["teacher"], lambda m: m["student"]["last"]):  # alike up to the width of a batch
        assert one(metrics)["test"]["nll"] == pytest.approx(one(before)["test"]["nll"], rel=1e-4)


def test_so_does_a_run_whose_tokenizer_is_another_one(distilled: Path, place: Path, tmp_path: Path) -> None:
    words = ("model.teacher=text_bag", f"model.teacher_weights={distilled}", "trainer.max_epochs=1")
    metrics = train(composed(place, *words, vocabulary=20), tmp_path / "run")
    assert metrics["teacher"]["test"]["accuracy"] == runs.read(distilled).student["test"]["accuracy"]


def test_methods_that_read_layers_see_its_tokens(place: Path, distilled: Path, tmp_path: Path) -> None:
    words = ("loss=fitnets", "loss.student_layers=last", "loss.teacher_layers=last", "trainer.max_epochs=1")
    assert train(composed(place, *words), tmp_path / "run")["train"]["loss"] > 0


def test_predicted_beside_its_teacher(distilled: Path, command: Command) -> None:
    done = command(predict, distilled, "the plot is very good", "the cast is awful", "--teacher")
    assert done.status == 0 and done.out.count("%") == 8


def test_a_student_of_hugging_face_needs_its_folder_only_to_begin(
    place: Path, tmp_path: Path, command: Command
) -> None:
    folder = shutil.copytree(place / "bert", tmp_path / "bert")
    words = (f"model.student=hf/{folder}", "loss=ce", "model.student_pretrained=true", "optimizer.lr=0.005")
    words += ("scheduler.warmup_epochs=1", "trainer.max_epochs=4")
    metrics = train(composed(place, *words, tokenizer=f"hf/{folder}"), tmp_path / "run")
    assert metrics["student"]["last"]["test"]["accuracy"] > 0.9
    shutil.rmtree(folder)
    _, card = load_student(tmp_path / "run")
    assert card.preprocessing["padding"] == 3 and card.kwargs["config"]["hidden_size"] == 16
    assert command(export, tmp_path / "run", "--format", "onnx", "--dynamic-batch").status == 0
    sentences = ["the film is very good", "the plot is very very very bad"]
    for path in (tmp_path / "run", tmp_path / "run" / "model.onnx"):
        assert kd_lightning.load(path)(sentences).labels == ["1", "0"]


@pytest.mark.parametrize(
    ("words", "data", "told"),
    [
        (["model.student=hf/{bert}"], {}, r"prepares its inputs by itself: write data\.tokenizer=hf/"),
        (["model.teacher=hf/{data}"], {}, r"model\.teacher: .*/data has no config\.json"),
        (["model.teacher=hf//no/such/folder"], {}, r"model\.teacher: there is no folder /no/such/folder"),
        (["model.teacher=hf/a/b"], {}, r"model\.teacher: cannot get the tokenizer of 'hf/a/b' .*hf download a/b"),
        (["+model.teacher_kwargs.hiden_size=3"], {}, r"model\.teacher_kwargs: .* has no 'hiden_size'.*'hidden_size'"),
        (["+model.teacher_kwargs.hidden_dropout_prob=2"], {}, r"model\.teacher: .* refuses .*ValueError: dropout"),
        ([], {"max_length": 64}, r"model\.teacher: hf/.* reads 32 tokens at most.*data\.max_length"),
        ([], {"tokenizer": "word"}, r"data\.tokenizer must be one of .*words"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    words: list[str], data: dict[str, Any], told: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    words = [word.format(bert=place / "bert", data=place / "data") for word in words]
    with pytest.raises(UserError, match=told) as caught:
        train(composed(place, *words, **data), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    assert not logging.getLogger("huggingface_hub").isEnabledFor(logging.WARNING)  # of each try without a network


def test_a_strangers_folder_fetches_no_code_and_has_all_weights_of_a_teacher(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(place / "bert", tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": "stranger/kernel"}))
    facts = {"vocabulary": 8, "padding": 3, "max_length": 24}
    net = create_model(f"hf/{folder}", 5, pretrained=True, **facts)
    assert net.fresh == [] and net.network.config._attn_implementation != "stranger/kernel"
    state = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("classifier")}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    cfg = composed(place, f"model.teacher=hf/{folder}", "model.teacher_weights=published")
    cfg.model.teacher_classes = {"0": "LABEL_0", "1": "LABEL_1"}
    with pytest.raises(
        UserError, match=r"=published: hf/.*/bert has no weights for classifier\.bias, classifier\.weight"
    ):
        train(cfg, tmp_path / "run")
    save_file({"other.weight": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"model\.student: the weights of hf/.*/bert are of another network; they lack"):
        create_model(f"hf/{folder}", 5, pretrained=True, **facts)


def test_a_folder_is_known_by_every_byte(tmp_path: Path) -> None:
    """Two trainings of one network may have the same beginning: embeddings that were not trained."""
    names = set()
    for end in (b"a", b"b"):
        (tmp_path / "model.safetensors").write_bytes(bytes(2**24) + end)
        names.add(content(f"hf/{tmp_path}"))
    assert len(names) == 2


def test_images_and_sentences_are_told_apart(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no classifier of images"):
        create_model(f"hf/{place / 'bert'}", 2, image_size=32)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", "num_labels": 7}
    transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes)).save_pretrained(tmp_path / "net")
    net = create_model(f"hf/{tmp_path / 'net'}", 10, pretrained=True, image_size=32)
    assert net.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    train(compose(f"model.student=hf/{tmp_path / 'net'}", "loss=ce"), tmp_path / "run")
    shutil.rmtree(tmp_path / "net")
    assert load_student(tmp_path / "run")[0](torch.zeros(2, 3, 8, 8)).shape == (2, 10)
