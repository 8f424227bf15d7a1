"""Sentences: files, tokens, batches, splits, and what is wrong with them."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kd_lightning.data import SST2DataModule, TextFilesDataModule
from kd_lightning.data.hold_out import check_classes
from kd_lightning.data.text import sst2
from kd_lightning.data.text.tokens import PADDING, UNKNOWN, Tokenize
from kd_lightning.evaluation.sentences import find_sentences
from kd_lightning.types import UNLABELED
from kd_lightning.utils.checks import UserError

GOOD, BAD = ("good", "great", "fine", "lovely"), ("bad", "awful", "poor", "dull")
NOUNS = ("film", "plot", "cast", "end", "story")


def lines(count: int = 40, shift: int = 0) -> list[tuple[str, str]]:
    """Different sentences, every other one of the class 1."""
    found = []
    for i in range(shift, shift + count):
        word = (GOOD if i % 2 else BAD)[i // 2 % 4]
        found.append((f"the {NOUNS[i // 8 % 5]} is {'very ' * (i % 7)}{word} {i}", str(i % 2)))
    return found


def write(path: Path, rows: list[tuple[str, str]], header: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\t{label}\n" for text, label in [("text", "label")] * header + rows), "utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "train.tsv", lines(64))
    write(tmp_path / "test.tsv", lines(20, shift=64))
    return tmp_path


def opened(folder: Path, **keys: Any) -> TextFilesDataModule:
    data = TextFilesDataModule(folder, batch_size=8, **keys)
    data.prepare_data()
    data.setup()
    return data


def everything(data: Any, epoch: int = 0) -> list[Any]:
    loader = data.train_dataloader()
    loader.epoch = epoch
    return list(loader)


def test_a_batch_holds_the_sentences_of_its_indices(folder: Path) -> None:
    data = opened(folder, val_size=0)
    texts = [text for text, _ in lines(64)]
    seen: list[int] = []
    for batch in everything(data):
        rows, _ = data.tokenize([texts[i] for i in batch.index.tolist()])
        longest = max(map(len, rows))
        assert batch.x["ids"].shape[1] == -(-longest // 8) * 8 and batch.x["ids"].dtype == torch.int64
        assert torch.equal(batch.x["mask"].sum(1), torch.tensor([len(row) for row in rows]))
        assert [ids[mask].tolist() for ids, mask in zip(*batch.x.values(), strict=True)] == rows
        assert (batch.x["ids"][~batch.x["mask"]] == PADDING).all() and not batch.view.any()
        assert batch.y.tolist() == [i % 2 for i in batch.index.tolist()]
        seen += batch.index.tolist()
    assert sorted(seen) == list(range(64))
    assert data.num_views == 1 and not data.epoch_views(3).any() and len(data.epoch_views(0)) == 64


def same(a: list[Any], b: list[Any]) -> bool:
    return all(torch.equal(x.x["ids"], y.x["ids"]) and torch.equal(x.index, y.index) for x, y in zip(a, b, strict=True))


def test_seed_and_epoch_decide_the_batches_and_an_epoch_goes_on(folder: Path) -> None:
    data = opened(folder, seed=3)
    first, again, other = everything(data), everything(opened(folder, seed=3)), everything(data, epoch=1)
    assert same(first, again) and not same(first, other)
    loader = data.train_dataloader()
    loader.epoch = 0
    loader.load_state_dict({"epoch": 0, "batch": 2})
    assert same(list(loader), first[2:])


def test_the_vocabulary_is_that_of_the_training_split_alone(folder: Path) -> None:
    write(folder / "val.tsv", [("zebra zebra zebra", "1"), ("the film", "0")])
    data = opened(folder)
    ids, _ = data.tokenize(["zebra", "film", "FILM", "\u200b"])
    assert ids[0] == [UNKNOWN] and ids[1] == ids[2] != [UNKNOWN] and ids[3] == [UNKNOWN]  # never without a token
    held = opened(folder, val_size=0.5).tokenize.values
    assert held == data.tokenize.values  # the file val is there, nothing is held out


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_the_same_texts_give_the_same_tokenizer_and_the_card_rebuilds_it(kind: str, folder: Path) -> None:
    one, two = (opened(folder, tokenizer=kind, vocabulary=60) for _ in range(2))
    assert one.fingerprint() == two.fingerprint() and one.model_kwargs() == two.model_kwargs()
    assert one.model_kwargs()["vocabulary"] <= 60 and one.model_kwargs()["padding"] == PADDING
    again = Tokenize.parse(json.loads(json.dumps(one.preprocessing())))
    texts = ["The lovely plot", "unheard of wörds"]
    assert again(texts) == one.tokenize(texts)
    assert {k: v.tolist() for k, v in again.inputs(texts).items()} == {
        k: v.tolist() for k, v in one.tokenize.inputs(texts).items()
    }


def test_what_changes_a_sample_changes_the_fingerprint(folder: Path) -> None:
    prints = {opened(folder, **keys).fingerprint() for keys in ({}, {"split_seed": 1}, {"max_length": 4}, {"seed": 9})}
    assert len(prints) == 3  # the seed of the order does not
    few = opened(folder, label_fraction=0.5)
    assert few.fingerprint() == opened(folder).fingerprint() and few.label_identity() == 0.5


def test_few_labels(folder: Path) -> None:
    data, whole = opened(folder, label_fraction=0.25), opened(folder)
    labels = torch.cat([batch.y for batch in everything(data)])
    assert data.labelled is not None and len(data.labelled) == int((labels != UNLABELED).sum()) < len(labels) / 3
    assert whole.labelled is None and data.sizes == whole.sizes
    data.drop_unlabeled()
    assert all((batch.y != UNLABELED).all() for batch in everything(data))


def test_held_out_sentences_are_not_trained_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "test.tsv").unlink()
    write(folder / "train.tsv", lines(64) * 2)  # each twice
    data = opened(folder, val_size=0.2, test_size=0.2)
    rows: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for split, found in rows.items():
        for batch in data.loader(split):
            found |= {str(ids[mask].tolist()) for ids, mask in zip(*batch.x.values(), strict=True)}
    assert rows["train"] and rows["val"] and rows["test"] and not rows["train"] & (rows["val"] | rows["test"])
    out = capsys.readouterr().out
    assert "held out" in out and "copy of one of them" in out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", 'label,note,text\n1,x,"good, really\n""good"""\n0,,bad\n\n1,,fine\n0,,dull\n'),
        ("train.tsv", '\ufefftext\tlabel\r\ngood, "really\t1\r\nbad\t0\r\n\r\nfine\t1\r\ndull\t0\r\n'),
        ("train.jsonl", '{"text": "good \\u2028 one", "label": 1}\n{"label": 0, "text": "bad"}\n\n'
                        '{"text": "fine", "label": "1"}\n{"text": "dull", "label": 0}\n'),
    ],
)  # fmt: skip
def test_tables_and_json_lines(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, "utf-8", newline="")
    write(tmp_path / "test.tsv", [("bad", "0")])
    data = opened(tmp_path, val_size=0)
    assert data.classes == ["0", "1"] and data.sizes == {"train": 4, "val": 0, "test": 1}
    assert data.val_dataloader() == []


def test_long_sentences_are_cut_and_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "test.tsv", [("quite-a-long-word " * 10_000, "1"), ("short", "0")])  # more than a row of `csv` holds
    data = opened(folder, max_length=12)
    (batch,) = data.test_dataloader()
    assert batch.x["ids"].shape == (2, 12) and batch.x["mask"].sum(1).tolist() == [12, 1]
    assert "test: 1 of 2 sentences are cut at data.max_length=12 tokens" in capsys.readouterr().out


def test_tables_that_are_no_split_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They may be the test that was meant, while one is held out from train."""
    for name in ("dev.tsv", "test.CSV"):
        (folder / name).write_text("text\tlabel\na\t1\n")
    opened(folder)
    told = " ".join(capsys.readouterr().out.split())
    assert "dev.tsv, test.CSV left out; a split is train, val or test, in small letters" in told


def test_sentences_to_predict_are_cut_as_those_to_train_on(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes("one\u2028two\x0cthree\r\nfour\n".encode())
    found = find_sentences([str(tmp_path / "lines.txt"), "five"])
    assert [one.text for one in found] == ["one\u2028two\x0cthree", "four", "five"]
    (tmp_path / "lines").write_text("one")
    for word, what in ((tmp_path, "folder"), (tmp_path / "lines", "file")):
        with pytest.raises(UserError, match=rf"is a {what}; sentences are read from \.txt files"):
            find_sentences([str(word)])


def test_empty_sentences_are_left_out_and_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "test.tsv", [("  ", "1"), ("short", "0"), ("", "1")])
    assert opened(folder).sizes["test"] == 1
    assert f"{folder / 'test.tsv'}: left out 2 × empty sentence" in capsys.readouterr().out.replace("\n", "")


MISTAKES: list[tuple[str, str | bytes, dict[str, Any], str]] = [
    ("train.csv", "sentence,label\na,1\n", {}, r"data.text_column=text: .*train.csv has it not; its header is sent"),
    ("train.csv", "text,lable\na,1\n", {}, r"data.label_column=label: .* not; did you mean 'lable'"),
    ("train.csv", "text,text,label\na,b,1\n", {}, r"has it twice"),
    ("train.csv", "text,label\na,b,1\n", {}, r"train.csv, line 2: 3 columns, but the header has 2"),
    ("train.csv", 'text,label\n"a,1\n', {}, r"train.csv, line 2: "),
    ("train.csv", 'text,label\n"a,1\nb,0\n', {}, r"train.csv, lines 2 to 3: .*; a quote may be missing"),
    ("train.csv", "text,label\na,1\n", {"text_column": "label"}, r"must be different columns, got label twice"),
    ("train.tsv", "text\tlabel\na\tb\x1b[31m\n", {}, r"train.tsv, line 2: the label 'b.x1b\[31m' has a control char"),
    ("train.json", "", {}, r"has none of the files train.tsv, .*; it has test.tsv, train.json"),
    ("train.tsv", b"text\tlabel\ncaf\xe9\t1\n", {}, r"train.tsv, line 2: not UTF-8"),
    ("train.tsv", "", {}, r"train.tsv has no sentences"),
    ("train.tsv", "text\tlabel\na\t1\nb\t1\n", {}, r"two or more different labels, got 1"),
    ("train.tsv", "text\tlabel\na\t1\nb\t\n", {}, r"train.tsv, line 3: the label is empty"),
    ("train.tsv", "text\tlabel\na\t1\nb\t0\n", {}, r"class of .*train.tsv needs 2 or more sentences, .*: 0 has 1"),
    ("train.jsonl", "text\n", {}, r"train.jsonl, line 1: not JSON"),
    ("train.jsonl", "[" * 100_000, {}, r"train.jsonl, line 1: not JSON"),
    ("train.jsonl", '{"text": "\\ud800", "label": 1}', {}, r"train.jsonl, line 1: half of a surrogate pair"),
    ("train.jsonl", '{"text": "a"}\n', {}, r"data.label_column=label: .*line 1, has no such key; its keys are text"),
    ("train.jsonl", '["a"]\n', {}, r"line 1: must be an object with the keys text and label, got a list"),
    ("train.jsonl", '{"text": 3, "label": 1}\n', {}, r"line 1: text must be a string"),
    ("test.tsv", "text\tlabel\na\tmaybe\n", {}, r"test.tsv, line 2: label 'maybe' is none of the classes 0, 1"),
    ("test.tsv", "text\tlabel\n\t1\n", {}, r"test.tsv has no sentences"),
    ("other.tsv", "", {"tokenizer": "word"}, r"data.tokenizer must be one of words, pieces.*did you mean 'words'"),
    ("other.tsv", "", {"vocabulary": 3}, r"data.vocabulary must be a whole number >= 10"),
    ("other.tsv", "", {"max_length": 0}, r"data.max_length must be a whole number >= 1"),
    ("other.tsv", "", {"lowercase": 1}, r"data.lowercase must be true or false"),
    ("other.tsv", "", {"label_fraction": 2}, r"data.label_fraction must be a number > 0 and <= 1"),
    ("other.tsv", "", {"root": 3}, r"data.root must be a folder"),
    ("other.tsv", "", {"root": "nowhere"}, r"there is no such folder"),
    ("other.tsv", "", {"root": __file__}, r"test_sentences.py is a file; give a folder"),
    ("other.tsv", "", {"train_size": 3}, r"unknown key data.train_size"),
    ("train.csv", "text,label\na,1\n", {"keep": True}, r"has train.tsv and train.csv; keep one"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "keys", "told"), MISTAKES)
def test_a_mistake_is_one_line(name: str, content: str | bytes, keys: dict[str, Any], told: str, folder: Path) -> None:
    keys = dict(keys)
    if name.startswith("train") and not keys.pop("keep", False):
        (folder / "train.tsv").unlink()
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=told) as caught:
        opened(keys.pop("root", folder), **keys)
    assert "\n" not in str(caught.value)


def test_no_file_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has none of the files train\.tsv, train\.csv, train\.jsonl"):
        opened(tmp_path)


def test_no_other_test_is_held_out_if_its_file_is_none(folder: Path) -> None:
    (folder / "test.tsv").rename(folder / "moved.tsv")
    (folder / "test.tsv").symlink_to(folder / "gone.tsv")
    with pytest.raises(UserError, match=r"test\.tsv is not a file but a folder, a pipe or a broken link"):
        opened(folder)


def test_folders_whose_names_differ_in_capital_letters_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    check_classes(torch.tensor([0, 1, 2]), ["Cat", "cat", "dog"], [], "images", "photos")
    assert capsys.readouterr().out == "photos: classes that differ in capital letters alone: Cat, cat\n"


def test_labels_that_look_alike_are_one_class_or_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = ["caf\u00e9  au lait", "cafe\u0301 au\u00a0lait", "tea", "Tea"]
    write(tmp_path / "train.tsv", [(f"word {i % 30}", same[i % 4]) for i in range(40)])
    assert opened(tmp_path, val_size=0).classes == ["Tea", "caf\u00e9 au lait", "tea"]
    out = capsys.readouterr().out
    assert "classes that differ in capital letters alone: Tea, tea" in out
    assert "10 of 40 training sentences have a copy in another class" in out


def test_labels_are_sorted_and_numbers_by_value(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", [(f"word {i}", str(i % 11)) for i in range(44)])
    assert opened(tmp_path, val_size=0).classes == [str(i) for i in range(11)]


# SST-2


def treebank(path: Path) -> str:
    trees = "(3 (2 (2 The) (2 film)) (4 (2 is) (3 (3 good) (2 -LRB-))))\n(2 (2 Neutral) (2 .))\n(0 (1 Bad) (2 .))\n"
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("train", "dev", "test"):
            archive.writestr(f"trees/{part}.txt", trees * (4 if part == "train" else 1))
    return path.as_uri()


def test_the_treebank_is_fetched_once_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sst2, "URL", treebank(tmp_path / "trees.zip"))
    monkeypatch.setattr(sst2, "SIZES", {"train": 8, "dev": 2, "test": 2})
    root = tmp_path / "data" / "sst2"
    data = SST2DataModule(root, batch_size=4)
    data.prepare_data()
    assert (root / "dev.tsv").read_text() == "The film is good (\t1\nBad .\t0\n"
    data.setup()
    assert data.sizes == {"train": 8, "val": 2, "test": 2} and data.classes == ["negative", "positive"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "train.tsv").write_text("my sentence\t1\n")
    with pytest.raises(UserError, match=r"train\.tsv is not SST-2's, and stays"):
        SST2DataModule(mine, batch_size=4).prepare_data()
    assert (mine / "train.tsv").read_text() == "my sentence\t1\n" and not (mine / "dev.tsv").exists()
    monkeypatch.setattr(sst2, "URL", "file:///nowhere")
    SST2DataModule(root, batch_size=4).prepare_data()  # not asked again


def test_a_download_that_fails_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sst2, "URL", (tmp_path / "none.zip").as_uri())
    with pytest.raises(UserError, match=r"could not be downloaded.*put train.tsv, dev.tsv and test.tsv") as caught:
        SST2DataModule(tmp_path / "sst2").prepare_data()
    assert "\n" not in str(caught.value) and str(tmp_path / "sst2") in str(caught.value)
    monkeypatch.setattr(sst2, "URL", treebank(tmp_path / "other.zip"))
    with pytest.raises(UserError, match=r"not as published: .* has 2 sentences in dev"):
        SST2DataModule(tmp_path / "sst2").prepare_data()
    with pytest.raises(UserError, match="SST-2 is missing; put"):
        SST2DataModule(tmp_path / "sst2").setup()


def test_files_of_pairs_with_and_without_dev(tmp_path: Path) -> None:
    for name, rows in (("train", lines(40)), ("test", lines(8, shift=40))):
        write(tmp_path / f"{name}.tsv", rows, header=False)
    data = SST2DataModule(tmp_path)
    data.setup()
    assert data.sizes == {"train": 36, "val": 4, "test": 8}
    write(tmp_path / "dev.tsv", [("a film", "2")], header=False)
    with pytest.raises(UserError, match=r"dev\.tsv, line 1: label '2' is none of the classes 0, 1"):
        SST2DataModule(tmp_path).setup()
    (tmp_path / "dev.tsv").write_text("a film 1\n")
    with pytest.raises(UserError, match=r"dev\.tsv, line 1: there is no tab"):
        SST2DataModule(tmp_path).setup()


def test_without_the_library_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("kd_lightning.data.text.tokens.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'kd_lightning\[text\]'"):
        opened(folder)


def test_an_example_is_the_same_at_every_call(folder: Path) -> None:
    data = opened(folder, max_length=20)
    one, two = data.example(3), data.example(3)
    assert all(torch.equal(one[k], two[k]) for k in one) and one["ids"].shape == (3, 20)
    ids: Tensor = one["ids"]
    assert ids.min() > PADDING and ids.max() < data.model_kwargs()["vocabulary"]
